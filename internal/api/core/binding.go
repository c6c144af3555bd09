// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

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
	}
}
