// SPDX-License-Identifier: Apache-2.0

package batch

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
func templateWarnings(template, old *corev1.PodTemplateSpec, path *field.Path) []string { return nil }
