// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
)

// WithVolumeHealth turns the feature gate CSIVolumeHealth on in kinds, which it owns, as
// far as pods go: their status tells what is wrong with their volumes.
func WithVolumeHealth(kinds []*api.Kind) []*api.Kind {
	for _, k := range kinds {
		if k.Group != corev1.GroupName || k.Resource != "pods" || k.Status == nil {
			continue
		}
		status := *k.Status
		prepare, judge := status.PrepareForUpdate, status.ValidateUpdate
		status.PrepareForUpdate = func(ctx context.Context, obj, old api.Object) {
			pod, ok := obj.(*corev1.Pod)
			if !ok {
				prepare(ctx, obj, old)
				return
			}
			told := pod.Status.VolumeHealth
			prepare(ctx, obj, old)
			pod.Status.VolumeHealth = told
		}
		status.ValidateUpdate = func(obj, old api.Object) field.ErrorList {
			errs := judge(obj, old)
			if pod, ok := obj.(*corev1.Pod); ok {
				errs = append(errs, validateVolumeHealth(pod)...)
			}
			return errs
		}
		k.Status = &status
	}
	return kinds
}

func validateVolumeHealth(pod *corev1.Pod) (errs field.ErrorList) {
	names := map[string]bool{}
	for i := range pod.Spec.Volumes {
		names[pod.Spec.Volumes[i].Name] = true
	}
	for i, h := range pod.Status.VolumeHealth {
		path := field.NewPath("status", "volumeHealth").Index(i)
		if h.Name != "" && !names[h.Name] {
			errs = append(errs, field.NotFound(path.Child("name"), h.Name))
		}
		for j, c := range h.HealthConditions {
			for _, why := range metav1validation.IsValidConditionReason(c.Reason) {
				if c.Reason != "" {
					errs = append(errs, field.Invalid(path.Child("healthConditions").Index(j).Child("reason"), c.Reason, why))
				}
			}
		}
	}
	return errs
}
