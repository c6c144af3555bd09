// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"strconv"

	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func podDisruptionBudget() *api.Kind {
	return &api.Kind{
		Group: policyv1.GroupName, Name: "PodDisruptionBudget", Resource: "poddisruptionbudgets", Singular: "poddisruptionbudget",
		ShortNames: []string{"pdb"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: policyv1.SchemeGroupVersion,
			New:          api.New[policyv1.PodDisruptionBudget], NewList: api.NewList[policyv1.PodDisruptionBudgetList],
		}},
		Storage: policyv1.SchemeGroupVersion,
		Prefix:  "/registry/poddisruptionbudgets",
		New:     api.New[policyv1.PodDisruptionBudget], NewList: api.NewList[policyv1.PodDisruptionBudgetList],
		Rules: api.For[*policyv1.PodDisruptionBudget]{
			PrepareForCreate: func(_ context.Context, b *policyv1.PodDisruptionBudget) {
				b.Status = policyv1.PodDisruptionBudgetStatus{}
				b.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, b, old *policyv1.PodDisruptionBudget) {
				b.Status = old.Status
				if !apiequality.Semantic.DeepEqual(b.Spec, old.Spec) {
					b.Generation = old.Generation + 1
				}
			},
			Validate: func(b *policyv1.PodDisruptionBudget) field.ErrorList {
				return validateBudget(&b.Spec, metavalidation.LabelSelectorValidationOptions{})
			},
			ValidateUpdate: func(b, old *policyv1.PodDisruptionBudget) field.ErrorList {
				// A selector stored before its values were checked may stand.
				var opts metavalidation.LabelSelectorValidationOptions
				opts.AllowInvalidLabelValueInSelector = len(metavalidation.ValidateLabelSelector(old.Spec.Selector, opts, nil)) > 0
				return validateBudget(&b.Spec, opts)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Min Available", "The minimum number of pods that must be available."),
				table.String("Max Unavailable", "The maximum number of pods that may be unavailable."),
				table.Integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
				table.Age(),
			},
			Cells: func(b *policyv1.PodDisruptionBudget) []any {
				return []any{b.Name, orNA(b.Spec.MinAvailable), orNA(b.Spec.MaxUnavailable),
					int64(b.Status.DisruptionsAllowed), table.Since(b.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		OwnMetadata: true, PlainFinalizers: true,
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, b, old *policyv1.PodDisruptionBudget) {
				b.Spec = old.Spec
			}),
			ValidateUpdate: api.Update(validateBudgetStatus),
			ResetFields:    []string{"spec"},
		},
	}
}

func orNA(value *intstr.IntOrString) string {
	if value == nil {
		return "N/A"
	}
	return value.String()
}

func validateBudget(spec *policyv1.PodDisruptionBudgetSpec, opts metavalidation.LabelSelectorValidationOptions) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, badvalue.Of(spec), "minAvailable and maxUnavailable cannot be both set"))
	}
	errs = append(errs, validateShare(spec.MinAvailable, path.Child("minAvailable"))...)
	errs = append(errs, validateShare(spec.MaxUnavailable, path.Child("maxUnavailable"))...)
	errs = append(errs, metavalidation.ValidateLabelSelector(spec.Selector, opts, path.Child("selector"))...)
	if policy := spec.UnhealthyPodEvictionPolicy; policy != nil {
		errs = append(errs, rule.OneOf(*policy, path.Child("unhealthyPodEvictionPolicy"), policyv1.IfHealthyBudget, policyv1.AlwaysAllow)...)
	}
	return errs
}

// validateShare accepts a number of pods or a percentage up to 100%.
func validateShare(value *intstr.IntOrString, path *field.Path) field.ErrorList {
	if value == nil {
		return nil
	}
	if value.Type == intstr.Int {
		return apivalidation.ValidateNonnegativeField(int64(value.IntVal), path)
	}
	if messages := validation.IsValidPercent(value.StrVal); len(messages) > 0 {
		return rule.Messages(path, *value, messages)
	}
	if n, _ := strconv.Atoi(value.StrVal[:len(value.StrVal)-1]); n > 100 {
		return field.ErrorList{field.Invalid(path, *value, "must not be greater than 100%")}
	}
	return nil
}

func validateBudgetStatus(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	path := field.NewPath("status")
	errs := metavalidation.ValidateConditions(b.Status.Conditions, path.Child("conditions"))
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(b.Status.DisruptionsAllowed), path.Child("disruptionsAllowed"))...)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(b.Status.CurrentHealthy), path.Child("currentHealthy"))...)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(b.Status.DesiredHealthy), path.Child("desiredHealthy"))...)
	return append(errs, apivalidation.ValidateNonnegativeField(int64(b.Status.ExpectedPods), path.Child("expectedPods"))...)
}
