// SPDX-License-Identifier: Apache-2.0

package apps

import (
	appsv1 "k8s.io/api/apps/v1"

	"kaji/internal/api"
)

func controllerRevision() *api.Kind {
	return &api.Kind{
		Group: appsv1.GroupName, Name: "ControllerRevision", Resource: "controllerrevisions", Singular: "controllerrevision",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.ControllerRevision], NewList: api.NewList[appsv1.ControllerRevisionList],
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/controllerrevisions",
		New:     api.New[appsv1.ControllerRevision], NewList: api.NewList[appsv1.ControllerRevisionList],
		AllowUnconditionalUpdate: true,
	}
}
