// SPDX-License-Identifier: Apache-2.0

package apps

import (
	appsv1 "k8s.io/api/apps/v1"

	"kaji/internal/api"
)

func deployment() *api.Kind {
	return &api.Kind{
		Group: appsv1.GroupName, Name: "Deployment", Resource: "deployments", Singular: "deployment",
		ShortNames: []string{"deploy"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.Deployment], NewList: api.NewList[appsv1.DeploymentList],
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/deployments",
		New:     api.New[appsv1.Deployment], NewList: api.NewList[appsv1.DeploymentList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
