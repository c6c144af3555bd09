// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func pod() *api.Kind {
	return &api.Kind{
		Name: "Pod", Resource: "pods", Singular: "pod",
		ShortNames: []string{"po"},
		Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Pod], NewList: api.NewList[corev1.PodList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/pods",
		New:     api.New[corev1.Pod], NewList: api.NewList[corev1.PodList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
