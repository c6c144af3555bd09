// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func replicationController() *api.Kind {
	return &api.Kind{
		Name: "ReplicationController", Resource: "replicationcontrollers", Singular: "replicationcontroller",
		ShortNames: []string{"rc"},
		Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ReplicationController], NewList: api.NewList[corev1.ReplicationControllerList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/controllers",
		New:     api.New[corev1.ReplicationController], NewList: api.NewList[corev1.ReplicationControllerList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
