// SPDX-License-Identifier: Apache-2.0

package apps

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// defaultTemplate fills the absent fields of a pod template.
func defaultTemplate(*corev1.PodTemplateSpec) {}

// validateTemplate checks a pod template; old is nil on create.
func validateTemplate(template, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	return nil
}

// templateWarnings warns of what a pod template uses; old is nil on create.
func templateWarnings(template, old *corev1.PodTemplateSpec) []string { return nil }

// defaultClaim fills the absent fields of a claim template.
func defaultClaim(*corev1.PersistentVolumeClaim) {}

// validateClaimSpec checks a claim template.
func validateClaimSpec(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	return nil
}

// claimWarnings warns of what a claim template uses.
func claimWarnings(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) []string { return nil }
