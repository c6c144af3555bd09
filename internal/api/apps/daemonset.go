// SPDX-License-Identifier: Apache-2.0

package apps

import (
	appsv1 "k8s.io/api/apps/v1"

	"kaji/internal/api"
)

func daemonSet() *api.Kind {
	return &api.Kind{
		Group: appsv1.GroupName, Name: "DaemonSet", Resource: "daemonsets", Singular: "daemonset",
		ShortNames: []string{"ds"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.DaemonSet], NewList: api.NewList[appsv1.DaemonSetList],
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/daemonsets",
		New:     api.New[appsv1.DaemonSet], NewList: api.NewList[appsv1.DaemonSetList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
