// SPDX-License-Identifier: Apache-2.0

package apps

import (
	appsv1 "k8s.io/api/apps/v1"

	"kaji/internal/api"
)

func replicaSet() *api.Kind {
	return &api.Kind{
		Group: appsv1.GroupName, Name: "ReplicaSet", Resource: "replicasets", Singular: "replicaset",
		ShortNames: []string{"rs"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.ReplicaSet], NewList: api.NewList[appsv1.ReplicaSetList],
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/replicasets",
		New:     api.New[appsv1.ReplicaSet], NewList: api.NewList[appsv1.ReplicaSetList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
