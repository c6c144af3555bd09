// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func clusterRoleBinding() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Name: "ClusterRoleBinding", Resource: "clusterrolebindings", Singular: "clusterrolebinding",
		Versions: []api.Version{{
			GroupVersion: rbacv1.SchemeGroupVersion,
			New:          api.New[rbacv1.ClusterRoleBinding], NewList: api.NewList[rbacv1.ClusterRoleBindingList],
			Default: api.Default(func(b *rbacv1.ClusterRoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
		}},
		Storage: rbacv1.SchemeGroupVersion,
		Prefix:  "/registry/clusterrolebindings",
		New:     api.New[rbacv1.ClusterRoleBinding], NewList: api.NewList[rbacv1.ClusterRoleBindingList],
		Rules: api.For[*rbacv1.ClusterRoleBinding]{
			ValidateName: validateName,
			Validate: func(b *rbacv1.ClusterRoleBinding) field.ErrorList {
				return validateBinding(&b.RoleRef, b.Subjects, false)
			},
			ValidateUpdate: func(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
				errs := validateBinding(&b.RoleRef, b.Subjects, false)
				return append(errs, validateSameRole(b.RoleRef, old.RoleRef)...)
			},
			Columns: bindingColumns("clusterRoleBinding", rbacv1beta1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"]),
			Cells: func(b *rbacv1.ClusterRoleBinding) []any {
				return bindingCells(b.Name, &b.RoleRef, b.Subjects, table.Since(b.CreationTimestamp))
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}
