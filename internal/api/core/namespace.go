// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func namespace() *api.Kind {
	return &api.Kind{
		Name: "Namespace", Resource: "namespaces", Singular: "namespace",
		ShortNames: []string{"ns"},
		Verbs:      []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Namespace], NewList: api.NewList[corev1.NamespaceList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/namespaces",
		New:     api.New[corev1.Namespace], NewList: api.NewList[corev1.NamespaceList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
