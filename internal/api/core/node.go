// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func node() *api.Kind {
	return &api.Kind{
		Name: "Node", Resource: "nodes", Singular: "node",
		ShortNames: []string{"no"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Node], NewList: api.NewList[corev1.NodeList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/minions",
		New:     api.New[corev1.Node], NewList: api.NewList[corev1.NodeList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
