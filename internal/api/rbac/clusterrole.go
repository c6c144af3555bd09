// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

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
		Rules: api.For[*rbacv1.ClusterRole]{
			ValidateName: validateName,
			Validate: func(r *rbacv1.ClusterRole) field.ErrorList {
				return validateClusterRole(r, metavalidation.LabelSelectorValidationOptions{})
			},
			ValidateUpdate: func(r, old *rbacv1.ClusterRole) field.ErrorList {
				// Selectors stored before their values were checked may stand.
				var opts metavalidation.LabelSelectorValidationOptions
				opts.AllowInvalidLabelValueInSelector = len(validateAggregation(old.AggregationRule, opts)) > 0
				return validateClusterRole(r, opts)
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}

func validateClusterRole(r *rbacv1.ClusterRole, opts metavalidation.LabelSelectorValidationOptions) field.ErrorList {
	return append(validatePolicyRules(r.Rules, false), validateAggregation(r.AggregationRule, opts)...)
}

func validateAggregation(rule *rbacv1.AggregationRule, opts metavalidation.LabelSelectorValidationOptions) field.ErrorList {
	if rule == nil {
		return nil
	}
	path := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(rule.ClusterRoleSelectors) == 0 {
		return field.ErrorList{field.Required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")}
	}
	var errs field.ErrorList
	for i := range rule.ClusterRoleSelectors {
		selector := &rule.ClusterRoleSelectors[i]
		errs = append(errs, metavalidation.ValidateLabelSelector(selector, opts, path.Index(i))...)
		if parsed, err := metav1.LabelSelectorAsSelector(selector); err != nil {
			errs = append(errs, field.Invalid(path.Index(i), parsed, "invalid label selector."))
		}
	}
	return errs
}
