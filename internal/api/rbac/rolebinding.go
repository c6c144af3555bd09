// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func roleBinding() *api.Kind {
	return &api.Kind{
		Group: rbacv1.GroupName, Name: "RoleBinding", Resource: "rolebindings", Singular: "rolebinding",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: rbacv1.SchemeGroupVersion,
			New:          api.New[rbacv1.RoleBinding], NewList: api.NewList[rbacv1.RoleBindingList],
			Default: api.Default(func(b *rbacv1.RoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
		}},
		Storage: rbacv1.SchemeGroupVersion,
		Prefix:  "/registry/rolebindings",
		New:     api.New[rbacv1.RoleBinding], NewList: api.NewList[rbacv1.RoleBindingList],
		Rules: api.For[*rbacv1.RoleBinding]{
			ValidateName: validateName,
			Validate: func(b *rbacv1.RoleBinding) field.ErrorList {
				return validateBinding(&b.RoleRef, b.Subjects, true)
			},
			ValidateUpdate: func(b, old *rbacv1.RoleBinding) field.ErrorList {
				errs := validateBinding(&b.RoleRef, b.Subjects, true)
				return append(errs, validateSameRole(b.RoleRef, old.RoleRef)...)
			},
			Columns: bindingColumns("roleBinding", rbacv1beta1.RoleBinding{}.SwaggerDoc()["roleRef"]),
			Cells: func(b *rbacv1.RoleBinding) []any {
				return bindingCells(b.Name, &b.RoleRef, b.Subjects, table.Since(b.CreationTimestamp))
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}
