// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func componentStatus() *api.Kind {
	return &api.Kind{
		Name: "ComponentStatus", Resource: "componentstatuses", Singular: "componentstatus",
		ShortNames: []string{"cs"},
		Verbs:      []string{"get", "list"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ComponentStatus], NewList: api.NewList[corev1.ComponentStatusList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/componentstatuses",
		New:     api.New[corev1.ComponentStatus], NewList: api.NewList[corev1.ComponentStatusList],
	}
}
