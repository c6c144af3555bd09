// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"kaji/internal/api"
)

func clusterRole() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Name: "ClusterRole", Resource: "clusterroles", Singular: "clusterrole",
		Versions: []api.Version{{
			GroupVersion: rbacv1.SchemeGroupVersion,
			New:          api.New[rbacv1.ClusterRole], NewList: api.NewList[rbacv1.ClusterRoleList],
		}},
		Storage: rbacv1.SchemeGroupVersion,
		Prefix:  "/registry/clusterroles",
		New:     api.New[rbacv1.ClusterRole], NewList: api.NewList[rbacv1.ClusterRoleList],
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}
