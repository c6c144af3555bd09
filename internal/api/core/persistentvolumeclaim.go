// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
	"kaji/internal/api/volume"
)

func persistentVolumeClaim() *api.Kind {
	spec, status := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	return &api.Kind{
		Name: "PersistentVolumeClaim", Resource: "persistentvolumeclaims", Singular: "persistentvolumeclaim",
		ShortNames: []string{"pvc"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.PersistentVolumeClaim], NewList: api.NewList[corev1.PersistentVolumeClaimList],
			Default: api.Default(volume.DefaultClaim),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/persistentvolumeclaims",
		New:     api.New[corev1.PersistentVolumeClaim], NewList: api.NewList[corev1.PersistentVolumeClaimList],
		Rules: api.For[*corev1.PersistentVolumeClaim]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, c *corev1.PersistentVolumeClaim) {
				c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
				volume.NormalizeClaim(&c.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, c, old *corev1.PersistentVolumeClaim) {
				c.Status = old.Status
				volume.NormalizeClaim(&c.Spec, &old.Spec)
			},
			Validate: func(c *corev1.PersistentVolumeClaim) field.ErrorList {
				return volume.ValidateClaimSpec(&c.Spec, field.NewPath("spec"), volume.ClaimOptions{})
			},
			ValidateUpdate: validateClaimUpdate,
			Warnings:       claimWarnings,
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Status", status["phase"]),
				table.String("Volume", spec["volumeName"]),
				table.String("Capacity", status["capacity"]),
				table.String("Access Modes", status["accessModes"]),
				table.String("StorageClass", "StorageClass of the pvc"),
				table.String("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
				table.Age(),
				table.Wide(table.String("VolumeMode", spec["volumeMode"])),
			},
			Cells: claimCells,
		}.Rules(),
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, c, old *corev1.PersistentVolumeClaim) {
				c.Spec = old.Spec
				if old.Status.HealthStatus == nil {
					c.Status.HealthStatus = nil // behind a closed gate
				}
			}),
			ValidateUpdate: api.Update(validateClaimStatus),
			ResetFields:    []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		ResetFields:              []string{"status"},
	}
}

func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := volume.ValidateClaimSpec(&c.Spec, field.NewPath("spec"), volume.ClaimOptionsFor(&old.Spec))
	errs = append(errs, validateClaimChange(c, old)...)

	size := field.NewPath("spec", "resources", "requests", "storage")
	now, was, bound := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage], old.Status.Capacity[corev1.ResourceStorage]
	// An expansion that failed may be taken back, as far as the volume has not grown.
	if now.Cmp(was) < 0 && now.Cmp(bound) <= 0 {
		errs = append(errs, field.Forbidden(size, "field can not be less than status.capacity"))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(c.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Status.CurrentVolumeAttributesClassName != nil && !ptr.Equal(c.Spec.VolumeAttributesClassName, old.Spec.VolumeAttributesClassName) {
		class := field.NewPath("spec", "volumeAttributesClassName")
		const applied = " is forbidden when status.currentVolumeAttributesClassName is not nil"
		switch name := c.Spec.VolumeAttributesClassName; {
		case name == nil:
			errs = append(errs, field.Forbidden(class, "update to nil"+applied))
		case *name == "":
			errs = append(errs, field.Forbidden(class, "update to empty string"+applied))
		}
	}
	return errs
}

// validateClaimChange refuses changes of the spec: a claim once made may be
// bound, given a class where it had none and, when bound, grow and change its
// attributes.
func validateClaimChange(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	after, before := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	if before.VolumeName == "" {
		before.VolumeName = after.VolumeName
	}
	class, annotated := old.Annotations[corev1.BetaStorageClassAnnotation]
	nowClass, stillAnnotated := c.Annotations[corev1.BetaStorageClassAnnotation]
	named := before.StorageClassName == nil && after.StorageClassName != nil && (!annotated || *after.StorageClassName == class)
	if named {
		after.StorageClassName = nil
	}
	if moved := named && annotated && (!stillAnnotated || nowClass == class); !moved && nowClass != class {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations", corev1.BetaStorageClassAnnotation), nowClass, apivalidation.FieldImmutableErrorMsg))
	}
	if c.Status.Phase == corev1.ClaimBound {
		if after.Resources.Requests != nil {
			after.Resources.Requests[corev1.ResourceStorage] = before.Resources.Requests[corev1.ResourceStorage]
		}
		after.VolumeAttributesClassName = before.VolumeAttributesClassName
	}
	if !apiequality.Semantic.DeepEqual(after, before) {
		errs = append(errs, field.Forbidden(field.NewPath("spec"), fmt.Sprintf("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v",
			diff.Diff(badvalue.Of(before), badvalue.Of(after)))))
	}
	return errs
}

func validateClaimStatus(c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := requireVersion(c)
	if len(c.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	status, p := &c.Status, field.NewPath("status")
	for _, name := range rule.SortedKeys(status.Capacity) {
		errs = append(errs, rule.BasicQuantity(status.Capacity[name], p.Child("capacity").Key(string(name)))...)
	}
	known := sets.New(corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
		corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible)
	for _, name := range rule.SortedKeys(status.AllocatedResourceStatuses) {
		p := p.Child("allocatedResourceStatuses")
		errs = append(errs, validateClaimResource(name, p)...)
		if !known.Has(status.AllocatedResourceStatuses[name]) {
			errs = append(errs, field.NotSupported(p, name, sets.List(known)))
		}
	}
	for _, name := range rule.SortedKeys(status.AllocatedResources) {
		p, q := p.Child("allocatedResources"), status.AllocatedResources[name]
		if bad := validateClaimResource(name, p); len(bad) > 0 {
			errs = append(errs, bad...)
		} else if bad := rule.BasicQuantity(q, p.Key(string(name))); len(bad) > 0 {
			errs = append(errs, bad...)
		} else {
			errs = append(errs, rule.Quantity(corev1.ResourceStorage, q, p.Key(string(name)))...)
		}
	}
	return errs
}

// validateClaimResource accepts storage and the extended resources of drivers.
func validateClaimResource(name corev1.ResourceName, p *field.Path) field.ErrorList {
	if errs := rule.QualifiedName(string(name), p); len(errs) > 0 {
		return errs
	}
	if rule.IsNative(name) && name != corev1.ResourceStorage {
		return field.ErrorList{field.NotSupported(p, name, []corev1.ResourceName{corev1.ResourceStorage})}
	}
	return nil
}

func claimWarnings(c, _ *corev1.PersistentVolumeClaim) []string {
	var out []string
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		out = append(out, fmt.Sprintf(`metadata.annotations[%s]: deprecated since v1.8; use "storageClassName" attribute instead`, corev1.BetaStorageClassAnnotation))
	}
	return append(out, volume.ClaimWarnings(&c.Spec, field.NewPath("spec"))...)
}

func claimCells(c *corev1.PersistentVolumeClaim) []any {
	phase := string(c.Status.Phase)
	if c.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	capacity, modes := "", ""
	if c.Spec.VolumeName != "" {
		storage := c.Status.Capacity[corev1.ResourceStorage]
		capacity, modes = storage.String(), accessModes(c.Status.AccessModes)
	}
	return []any{c.Name, phase, c.Spec.VolumeName, capacity, modes, storageClass(c, c.Spec.StorageClassName),
		orUnset(c.Spec.VolumeAttributesClassName), table.Since(c.CreationTimestamp), orUnset(c.Spec.VolumeMode)}
}
