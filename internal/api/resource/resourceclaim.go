// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func resourceClaim() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "ResourceClaim", Resource: "resourceclaims", Singular: "resourceclaim",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.ResourceClaim], NewList: api.NewList[resourcev1.ResourceClaimList],
			Default: api.Default(func(c *resourcev1.ResourceClaim) { defaultClaim(&c.Spec) }),
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/resourceclaims",
		New:     api.New[resourcev1.ResourceClaim], NewList: api.NewList[resourcev1.ResourceClaimList],
		Rules: api.For[*resourcev1.ResourceClaim]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, c *resourcev1.ResourceClaim) {
				c.Status = resourcev1.ResourceClaimStatus{}
				dropDerived(&c.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, c, old *resourcev1.ResourceClaim) {
				c.Status = old.Status
				dropDerived(&c.Spec, &old.Spec)
			},
			Validate: func(c *resourcev1.ResourceClaim) field.ErrorList {
				return validateClaim(&c.Spec, field.NewPath("spec"))
			},
			ValidateUpdate: func(c, old *resourcev1.ResourceClaim) field.ErrorList {
				return rule.Unchanged(c.Spec, old.Spec, field.NewPath("spec"))
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("State", "A summary of the current state (allocated, pending, reserved, etc.)."),
				table.Age(),
			},
			Cells: func(c *resourcev1.ResourceClaim) []any {
				return []any{c.Name, claimState(c), table.Since(c.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, c, old *resourcev1.ResourceClaim) {
				c.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &old.ObjectMeta)
				dropDeallocated(&c.Status, &old.Status)
				dropSkipped(&c.Status, &old.Status)
			}),
			ValidateUpdate: api.Update(validateClaimStatus),
			ResetFields:    []string{"metadata", "spec"},
			NoTable:        true,
		},
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
	}
}

func claimState(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch allocated := c.Status.Allocation != nil; {
	case allocated:
		states = append(states, "allocated")
		if len(c.Status.ReservedFor) > 0 {
			states = append(states, "reserved")
		}
	case c.DeletionTimestamp == nil:
		states = append(states, "pending")
	}
	return strings.Join(states, ",")
}

func defaultClaim(spec *resourcev1.ResourceClaimSpec) {
	for i := range spec.Devices.Requests {
		r := &spec.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			defaultAllocation(&e.AllocationMode, &e.Count)
			defaultTolerations(e.Tolerations)
		}
		for n := range r.FirstAvailable {
			s := &r.FirstAvailable[n]
			defaultAllocation(&s.AllocationMode, &s.Count)
			defaultTolerations(s.Tolerations)
		}
	}
}

func defaultAllocation(mode *resourcev1.DeviceAllocationMode, count *int64) {
	if *mode == "" {
		*mode = resourcev1.DeviceAllocationModeExactCount
	}
	if *mode == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
		*count = 1
	}
}

func defaultTolerations(tolerations []resourcev1.DeviceToleration) {
	for i := range tolerations {
		if tolerations[i].Operator == "" {
			tolerations[i].Operator = resourcev1.DeviceTolerationOpEqual
		}
	}
}
