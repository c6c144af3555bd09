// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
)

// dropDerived removes derived attributes, which are behind a closed gate, from a
// claim that had none.
func dropDerived(spec, old *resourcev1.ResourceClaimSpec) {
	if old != nil && derives(old) {
		return
	}
	for i := range spec.Devices.Requests {
		r := &spec.Devices.Requests[i]
		if r.Exactly != nil {
			r.Exactly.DerivedAttributes = nil
		}
		for n := range r.FirstAvailable {
			r.FirstAvailable[n].DerivedAttributes = nil
		}
	}
}

func derives(spec *resourcev1.ResourceClaimSpec) bool {
	return slices.ContainsFunc(spec.Devices.Requests, func(r resourcev1.DeviceRequest) bool {
		return r.Exactly != nil && len(r.Exactly.DerivedAttributes) > 0 ||
			slices.ContainsFunc(r.FirstAvailable, func(s resourcev1.DeviceSubRequest) bool { return len(s.DerivedAttributes) > 0 })
	})
}

// dropSkipped removes the node operations that an allocation skips, which are
// behind a closed gate, from a claim that had none.
func dropSkipped(status, old *resourcev1.ResourceClaimStatus) {
	skips := func(r resourcev1.DeviceRequestAllocationResult) bool { return len(r.SkipNodeOperations) > 0 }
	if status.Allocation == nil || old.Allocation != nil && slices.ContainsFunc(old.Allocation.Devices.Results, skips) {
		return
	}
	for i := range status.Allocation.Devices.Results {
		status.Allocation.Devices.Results[i].SkipNodeOperations = nil
	}
}

// dropFromSlice removes what is behind closed gates from a slice that did not
// have it; old is nil on create.
func dropFromSlice(spec, old *resourcev1.ResourceSliceSpec) {
	if old == nil {
		old = &resourcev1.ResourceSliceSpec{}
	}
	if old.PartitionTypeAttribute == nil {
		spec.PartitionTypeAttribute = nil
	}
	if len(old.SkipNodeOperations) == 0 {
		spec.SkipNodeOperations = nil
	}
	had := func(has func(resourcev1.Device) bool) bool { return slices.ContainsFunc(old.Devices, has) }
	lists, nodes, groups := had(hasListAttributes), had(hasNodeResources), had(hasCompatibilityGroups)
	for i := range spec.Devices {
		d := &spec.Devices[i]
		if !lists {
			dropListAttributes(d)
		}
		if !nodes {
			d.NodeAllocatableResources = nil
		}
		if !groups {
			for n := range d.ConsumesCounters {
				d.ConsumesCounters[n].CompatibilityGroups = nil
			}
		}
	}
}

func dropListAttributes(d *resourcev1.Device) {
	for name, a := range d.Attributes {
		a.IntValues, a.BoolValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
		d.Attributes[name] = a
	}
}

func hasListAttributes(d resourcev1.Device) bool {
	for _, a := range d.Attributes {
		if a.IntValues != nil || a.BoolValues != nil || a.StringValues != nil || a.VersionValues != nil {
			return true
		}
	}
	return false
}

func hasNodeResources(d resourcev1.Device) bool { return len(d.NodeAllocatableResources) > 0 }

func hasCompatibilityGroups(d resourcev1.Device) bool {
	return slices.ContainsFunc(d.ConsumesCounters, func(c resourcev1.DeviceCounterConsumption) bool { return len(c.CompatibilityGroups) > 0 })
}
