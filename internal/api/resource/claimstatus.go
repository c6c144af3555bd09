// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// deviceID names an allocated device, or a share of one.
func deviceID(driver, pool, device string, share *string) string {
	parts := []string{driver, pool, device}
	if share != nil {
		parts = append(parts, *share)
	}
	return strings.Join(parts, "/")
}

func allocated(a *resourcev1.AllocationResult) sets.Set[string] {
	ids := sets.New[string]()
	if a != nil {
		for _, r := range a.Devices.Results {
			ids.Insert(deviceID(r.Driver, r.Pool, r.Device, (*string)(r.ShareID)))
		}
	}
	return ids
}

// dropDeallocated removes what is told of devices that the claim gave back.
func dropDeallocated(status, old *resourcev1.ResourceClaimStatus) {
	gone := allocated(old.Allocation).Difference(allocated(status.Allocation))
	if len(gone) == 0 {
		return
	}
	var kept []resourcev1.AllocatedDeviceStatus
	for _, d := range status.Devices {
		if !gone.Has(deviceID(d.Driver, d.Pool, d.Device, d.ShareID)) {
			kept = append(kept, d)
		}
	}
	status.Devices = kept
}

func validateClaimStatus(c, old *resourcev1.ResourceClaim) field.ErrorList {
	path := field.NewPath("status")
	status, was := &c.Status, &old.Status
	reserved := path.Child("reservedFor")
	errs := unique(status.ReservedFor, resourcev1.ResourceClaimReservedForMaxSize, reserved,
		func(r *resourcev1.ResourceClaimConsumerReference) types.UID { return r.UID }, itself[resourcev1.ResourceClaimConsumerReference], validateConsumer)

	ids := allocated(status.Allocation)
	errs = append(errs, unique(status.Devices, -1, path.Child("devices"),
		func(d *resourcev1.AllocatedDeviceStatus) string {
			return deviceID(d.Driver, d.Pool, d.Device, d.ShareID)
		}, itself[resourcev1.AllocatedDeviceStatus],
		func(d *resourcev1.AllocatedDeviceStatus, p *field.Path) field.ErrorList {
			return validateDeviceStatus(d, ids, p)
		})...)

	switch fresh := sets.New(status.ReservedFor...).Difference(sets.New(was.ReservedFor...)); {
	case len(status.ReservedFor) == 0:
	case status.Allocation == nil:
		errs = append(errs, field.Forbidden(reserved, "may not be specified when `allocated` is not set"))
	case c.DeletionTimestamp != nil && len(fresh) > 0:
		errs = append(errs, field.Forbidden(reserved, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
	}
	switch where := path.Child("allocation"); {
	case status.Allocation == nil:
	case was.Allocation == nil:
		errs = append(errs, validateAllocation(status.Allocation, namesOf(&c.Spec.Devices), where)...)
	case !apiequality.Semantic.DeepEqual(status.Allocation, was.Allocation):
		errs = append(errs, field.Invalid(where, nil, "field cannot be modified once set"))
	}
	return errs
}

func validateConsumer(r *resourcev1.ResourceClaimConsumerReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct{ name, value string }{{"resource", r.Resource}, {"name", r.Name}, {"uid", string(r.UID)}} {
		if f.value == "" {
			errs = append(errs, field.Required(path.Child(f.name), ""))
		}
	}
	return errs
}

func validateAllocation(a *resourcev1.AllocationResult, names requestNames, path *field.Path) field.ErrorList {
	devices := path.Child("devices")
	errs := atMost(a.Devices.Results, resourcev1.AllocationResultsMaxSize, devices.Child("results"),
		func(r *resourcev1.DeviceRequestAllocationResult, p *field.Path) field.ErrorList {
			errs := names.validateRef(r.Request, p.Child("request"))
			errs = append(errs, validateDriverRef(r.Driver, p.Child("driver"))...)
			errs = append(errs, validatePoolRef(r.Pool, p.Child("pool"))...)
			errs = append(errs, rule.Label(r.Device, p.Child("device"))...)
			errs = append(errs, validateBinding(r.BindingConditions, r.BindingFailureConditions, p)...)
			if r.ShareID != nil {
				errs = append(errs, validateUID(string(*r.ShareID), p.Child("shareID"))...)
			}
			return errs
		})
	errs = append(errs, atMost(a.Devices.Config, 2*resourcev1.DeviceConfigMaxSize, devices.Child("config"),
		func(c *resourcev1.DeviceAllocationConfiguration, p *field.Path) field.ErrorList {
			errs := rule.OneOfRequired(c.Source, p.Child("source"), resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
			errs = append(errs, names.validateRefs(c.Requests, p.Child("requests"))...)
			return append(errs, validateConfiguration(&c.DeviceConfiguration, false, p)...)
		})...)
	if a.NodeSelector != nil {
		errs = append(errs, rule.NodeSelector(a.NodeSelector, false, path.Child("nodeSelector"))...)
	}
	return errs
}

func validateDeviceStatus(d *resourcev1.AllocatedDeviceStatus, ids sets.Set[string], path *field.Path) field.ErrorList {
	errs := validateDriver(d.Driver, path.Child("driver"))
	errs = append(errs, validatePoolName(d.Pool, path.Child("pool"))...)
	errs = append(errs, rule.Label(d.Device, path.Child("device"))...)
	if d.ShareID != nil {
		errs = append(errs, validateUID(*d.ShareID, path.Child("shareID"))...)
	}
	if id := deviceID(d.Driver, d.Pool, d.Device, d.ShareID); !ids.Has(id) {
		errs = append(errs, field.Invalid(path, id, "must be an allocated device in the claim"))
	}
	conditions := path.Child("conditions")
	if n := len(d.Conditions); n > resourcev1.AllocatedDeviceStatusMaxConditions {
		errs = append(errs, field.TooMany(conditions, n, resourcev1.AllocatedDeviceStatusMaxConditions))
	}
	errs = append(errs, metavalidation.ValidateConditions(d.Conditions, conditions)...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, validateObject(d.Data.Raw, resourcev1.AllocatedDeviceStatusDataMaxLength, path.Child("data"))...)
	}
	if d.NetworkData != nil {
		errs = append(errs, validateNetworkData(d.NetworkData, path.Child("networkData"))...)
	}
	return errs
}

func validateNetworkData(d *resourcev1.NetworkDeviceData, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(d.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		errs = append(errs, field.TooLong(path.Child("interfaceName"), "", resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(d.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		errs = append(errs, field.TooLong(path.Child("hardwareAddress"), "", resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	return append(errs, unique(d.IPs, resourcev1.NetworkDeviceDataMaxIPs, path.Child("ips"), same[string], itself[string],
		func(ip *string, p *field.Path) field.ErrorList { return validation.IsValidInterfaceAddress(p, *ip) })...)
}

// validateBinding checks the conditions that binding waits for and gives up at.
func validateBinding(conditions, failures []string, path *field.Path) field.ErrorList {
	where, failed := path.Child("bindingConditions"), path.Child("bindingFailureConditions")
	label := func(name *string, p *field.Path) field.ErrorList { return metavalidation.ValidateLabelName(*name, p) }
	errs := atMost(conditions, resourcev1.BindingConditionsMaxSize, where, label)
	errs = append(errs, atMost(failures, resourcev1.BindingFailureConditionsMaxSize, failed, label)...)
	seen := sets.New[string]()
	for i, c := range conditions {
		if seen.Has(c) {
			errs = append(errs, field.Duplicate(where.Index(i), c))
		}
		seen.Insert(c)
	}
	waited := seen
	seen = sets.New[string]()
	for i, c := range failures {
		if seen.Has(c) {
			errs = append(errs, field.Duplicate(failed.Index(i), c))
		}
		seen.Insert(c)
		if waited.Has(c) {
			errs = append(errs, field.Invalid(failed.Index(i), c, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	switch {
	case len(conditions) == 0 && len(failures) > 0:
		errs = append(errs, field.Invalid(where, conditions, "bindingConditions are required to use bindingFailureConditions"))
	case len(failures) == 0 && len(conditions) > 0:
		errs = append(errs, field.Invalid(failed, failures, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}
