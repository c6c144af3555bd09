// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation/field"

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
		Rules: api.For[*rbacv1.Role]{
			ValidateName: validateName,
			Validate: func(r *rbacv1.Role) field.ErrorList {
				return validatePolicyRules(r.Rules, true)
			},
			ValidateUpdate: func(r, _ *rbacv1.Role) field.ErrorList {
				return validatePolicyRules(r.Rules, true)
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}

// validateName accepts whatever can stand in a URL's path: names of roles may
// hold colons.
func validateName(name string, _ bool) []string {
	return content.IsPathSegmentName(name)
}

func validatePolicyRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i := range rules {
		errs = append(errs, validatePolicyRule(&rules[i], namespaced, field.NewPath("rules").Index(i))...)
	}
	return errs
}

func validatePolicyRule(r *rbacv1.PolicyRule, namespaced bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Verbs) == 0 {
		errs = append(errs, field.Required(path.Child("verbs"), ""))
	}
	if len(r.NonResourceURLs) > 0 {
		where := path.Child("nonResourceURLs")
		if namespaced {
			errs = append(errs, field.Invalid(where, r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
		}
		if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
			errs = append(errs, field.Invalid(where, r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
		}
		return errs
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}
