// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"kaji/internal/api"
)

func clusterRoleBinding() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Name: "ClusterRoleBinding", Resource: "clusterrolebindings", Singular: "clusterrolebinding",
		Versions: []api.Version{{
			GroupVersion: rbacv1.SchemeGroupVersion,
			New:          api.New[rbacv1.ClusterRoleBinding], NewList: api.NewList[rbacv1.ClusterRoleBindingList],
		}},
		Storage: rbacv1.SchemeGroupVersion,
		Prefix:  "/registry/clusterrolebindings",
		New:     api.New[rbacv1.ClusterRoleBinding], NewList: api.NewList[rbacv1.ClusterRoleBindingList],
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}
