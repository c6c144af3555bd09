// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
)

// binding is never stored: creating one assigns a pod to a node.
func binding() *api.Kind {
	return &api.Kind{
		Name: "Binding", Resource: "bindings", Singular: "binding",
		Namespaced: true,
		Verbs:      []string{"create"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Binding],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/bindings",
		New:     api.New[corev1.Binding],
		Rules:   api.For[*corev1.Binding]{Validate: validateBinding}.Rules(),
	}
}

func validateBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	return errs
}
