// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"kaji/internal/api"
)

func roleBinding() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Name: "RoleBinding", Resource: "rolebindings", Singular: "rolebinding",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: rbacv1.SchemeGroupVersion,
			New:          api.New[rbacv1.RoleBinding], NewList: api.NewList[rbacv1.RoleBindingList],
		}},
		Storage: rbacv1.SchemeGroupVersion,
		Prefix:  "/registry/rolebindings",
		New:     api.New[rbacv1.RoleBinding], NewList: api.NewList[rbacv1.RoleBindingList],
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}
