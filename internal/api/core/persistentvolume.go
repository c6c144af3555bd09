// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
	"kaji/internal/api/volume"
)

// mountOptionsAnnotation is where mount options were before they were a field.
const mountOptionsAnnotation = "volume.beta.kubernetes.io/mount-options"

func persistentVolume() *api.Kind {
	spec, status := corev1.PersistentVolumeSpec{}.SwaggerDoc(), corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return &api.Kind{
		Name: "PersistentVolume", Resource: "persistentvolumes", Singular: "persistentvolume",
		ShortNames: []string{"pv"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.PersistentVolume], NewList: api.NewList[corev1.PersistentVolumeList],
			Default: api.Default(func(v *corev1.PersistentVolume) {
				if v.Status.Phase == "" {
					v.Status.Phase = corev1.VolumePending
				}
				volume.DefaultPersistentSpec(&v.Spec)
			}),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/persistentvolumes",
		New:     api.New[corev1.PersistentVolume], NewList: api.NewList[corev1.PersistentVolumeList],
		Rules: api.For[*corev1.PersistentVolume]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, v *corev1.PersistentVolume) {
				v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: ptr.To(metav1.Now())}
			},
			PrepareForUpdate: func(_ context.Context, v, old *corev1.PersistentVolume) { v.Status = old.Status },
			Validate:         func(v *corev1.PersistentVolume) field.ErrorList { return validateVolume(v, nil) },
			ValidateUpdate:   validateVolumeUpdate,
			Warnings:         volumeWarnings,
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Capacity", spec["capacity"]),
				table.String("Access Modes", spec["accessModes"]),
				table.String("Reclaim Policy", spec["persistentVolumeReclaimPolicy"]),
				table.String("Status", status["phase"]),
				table.String("Claim", spec["claimRef"]),
				table.String("StorageClass", "StorageClass of the pv"),
				table.String("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
				table.String("Reason", status["reason"]),
				table.Age(),
				table.Wide(table.String("VolumeMode", spec["volumeMode"])),
			},
			Cells: volumeCells,
		}.Rules(),
		Status: &api.Subresource{
			Name:             "status",
			PrepareForUpdate: api.PrepareUpdate(prepareVolumeStatus),
			ValidateUpdate: api.Update(func(v, _ *corev1.PersistentVolume) field.ErrorList {
				return requireVersion(v)
			}),
			ResetFields: []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		ResetFields:              []string{"status"},
	}
}

// requireVersion refuses an update of a status that may be of an older object.
func requireVersion(obj api.Object) field.ErrorList {
	if obj.GetResourceVersion() == "" {
		return field.ErrorList{field.Required(field.NewPath("resourceVersion"), "")}
	}
	return nil
}

// prepareVolumeStatus notes when the phase changes, unless the request says so
// itself.
func prepareVolumeStatus(_ context.Context, v, old *corev1.PersistentVolume) {
	v.Spec = old.Spec
	given, had := v.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime
	switch {
	case v.Status.Phase == old.Status.Phase:
		if given == nil {
			v.Status.LastPhaseTransitionTime = had.DeepCopy()
		}
	case given == nil || had != nil && given.Equal(had):
		v.Status.LastPhaseTransitionTime = ptr.To(metav1.Now())
	}
}

// volumeOptions loosen the check for what old, which may be nil, has stored.
func volumeOptions(v, old *corev1.PersistentVolume) volume.PersistentOptions {
	return volume.PersistentOptions{Name: v.Name, InvalidNodeValues: old != nil && rule.HasInvalidLabelValue(volumeTerms(old))}
}

func validateVolume(v, old *corev1.PersistentVolume) field.ErrorList {
	return volume.ValidatePersistentSpec(&v.Spec, field.NewPath("spec"), volumeOptions(v, old))
}

func validateVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	errs := validateVolume(v, old)
	source := v.Spec.PersistentVolumeSource
	if csi := source.CSI; csi != nil && csi.ControllerExpandSecretRef != nil &&
		old.Spec.CSI != nil && old.Spec.CSI.ControllerExpandSecretRef == nil {
		source.CSI = csi.DeepCopy() // it may be added
		source.CSI.ControllerExpandSecretRef = nil
	}
	if !apiequality.Semantic.DeepEqual(source, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"), fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v",
			diff.Diff(badvalue.Of(old.Spec.PersistentVolumeSource), badvalue.Of(source)))))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Spec.NodeAffinity != nil {
		same := func(a, b *corev1.VolumeNodeAffinity) bool { return apiequality.Semantic.DeepEqual(a, b) }
		errs = append(errs, volume.ValidateNodeAffinityUpdate(v.Spec.NodeAffinity, old.Spec.NodeAffinity, same, field.NewPath("nodeAffinity"))...)
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

func volumeTerms(v *corev1.PersistentVolume) []corev1.NodeSelectorTerm {
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return nil
	}
	return v.Spec.NodeAffinity.Required.NodeSelectorTerms
}

func volumeWarnings(v, old *corev1.PersistentVolume) []string {
	var out []string
	if _, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		out = append(out, fmt.Sprintf(`metadata.annotations[%s]: deprecated since v1.8; use "storageClassName" attribute instead`, corev1.BetaStorageClassAnnotation))
	}
	if _, ok := v.Annotations[mountOptionsAnnotation]; ok {
		out = append(out, fmt.Sprintf(`metadata.annotations[%s]: deprecated since v1.31; use "mountOptions" attribute instead`, mountOptionsAnnotation))
	}
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		out = append(out, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	invalid := old != nil && rule.HasInvalidLabelValue(volumeTerms(old))
	terms := volumeTerms(v)
	for i := range terms {
		out = append(out, podspec.NodeSelectorTermWarnings(&terms[i], invalid, field.NewPath("spec", "nodeAffinity", "required", "nodeSelectorTerms").Index(i))...)
	}
	return append(out, deprecatedVolumeTypes(&v.Spec)...)
}

func deprecatedVolumeTypes(spec *corev1.PersistentVolumeSpec) []string {
	var out []string
	warn := func(used bool, name, message string) {
		if used {
			out = append(out, "spec."+name+": "+message)
		}
	}
	warn(spec.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+")
	warn(spec.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+")
	warn(spec.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+")
	warn(spec.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+")
	warn(spec.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+")
	warn(spec.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+")
	warn(spec.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+")
	return out
}

func volumeCells(v *corev1.PersistentVolume) []any {
	phase := string(v.Status.Phase)
	if v.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	claim := ""
	if ref := v.Spec.ClaimRef; ref != nil {
		claim = ref.Namespace + "/" + ref.Name
	}
	capacity := v.Spec.Capacity[corev1.ResourceStorage]
	return []any{v.Name, capacity.String(), accessModes(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy), phase, claim,
		storageClass(v, ptr.To(v.Spec.StorageClassName)), orUnset(v.Spec.VolumeAttributesClassName), v.Status.Reason,
		table.Since(v.CreationTimestamp), orUnset(v.Spec.VolumeMode)}
}

// storageClass is the class of a volume or claim, which an annotation may say, too.
func storageClass(obj metav1.Object, class *string) string {
	if name, ok := obj.GetAnnotations()[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return ptr.Deref(class, "")
}

func orUnset[T ~string](s *T) string {
	if s == nil {
		return "<unset>"
	}
	return string(*s)
}

// accessModes lists modes in their short forms, each once and in a fixed order.
func accessModes(modes []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		if slices.Contains(modes, m.mode) {
			out = append(out, m.short)
		}
	}
	return strings.Join(out, ",")
}
