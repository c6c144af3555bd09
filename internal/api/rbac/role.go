// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"kaji/internal/api"
)

func role() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Name: "Role", Resource: "roles", Singular: "role",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: rbacv1.SchemeGroupVersion,
			New:          api.New[rbacv1.Role], NewList: api.NewList[rbacv1.RoleList],
		}},
		Storage: rbacv1.SchemeGroupVersion,
		Prefix:  "/registry/roles",
		New:     api.New[rbacv1.Role], NewList: api.NewList[rbacv1.RoleList],
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}
