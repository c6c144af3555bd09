// SPDX-License-Identifier: Apache-2.0

package apps

import (
	appsv1 "k8s.io/api/apps/v1"

	"kaji/internal/api"
)

func statefulSet() *api.Kind {
	return &api.Kind{
		Group: appsv1.GroupName, Name: "StatefulSet", Resource: "statefulsets", Singular: "statefulset",
		ShortNames: []string{"sts"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.StatefulSet], NewList: api.NewList[appsv1.StatefulSetList],
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/statefulsets",
		New:     api.New[appsv1.StatefulSet], NewList: api.NewList[appsv1.StatefulSetList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
