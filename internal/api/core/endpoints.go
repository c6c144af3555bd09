// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func endpoints() *api.Kind {
	return &api.Kind{
		Name: "Endpoints", Resource: "endpoints", Singular: "endpoints",
		ShortNames: []string{"ep"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Endpoints], NewList: api.NewList[corev1.EndpointsList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/services/endpoints",
		New:     api.New[corev1.Endpoints], NewList: api.NewList[corev1.EndpointsList],
		AllowUnconditionalUpdate: true,
	}
}
