// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func service() *api.Kind {
	return &api.Kind{
		Name: "Service", Resource: "services", Singular: "service",
		ShortNames: []string{"svc"},
		Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Service], NewList: api.NewList[corev1.ServiceList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/services/specs",
		New:     api.New[corev1.Service], NewList: api.NewList[corev1.ServiceList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
