// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func resourceQuota() *api.Kind {
	return &api.Kind{
		Name: "ResourceQuota", Resource: "resourcequotas", Singular: "resourcequota",
		ShortNames: []string{"quota"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ResourceQuota], NewList: api.NewList[corev1.ResourceQuotaList],
			Default: api.Default(func(q *corev1.ResourceQuota) {
				rule.RoundUp(q.Spec.Hard)
				rule.RoundUp(q.Status.Hard)
				rule.RoundUp(q.Status.Used)
			}),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/resourcequotas",
		New:     api.New[corev1.ResourceQuota], NewList: api.NewList[corev1.ResourceQuotaList],
		Rules: api.For[*corev1.ResourceQuota]{
			ValidateName:     apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} },
			PrepareForUpdate: func(_ context.Context, q, old *corev1.ResourceQuota) { q.Status = old.Status },
			Validate: func(q *corev1.ResourceQuota) field.ErrorList {
				return validateQuotaSpec(&q.Spec, field.NewPath("spec"))
			},
			ValidateUpdate: func(q, old *corev1.ResourceQuota) field.ErrorList {
				errs := validateQuotaSpec(&q.Spec, field.NewPath("spec"))
				if !sets.New(q.Spec.Scopes...).Equal(sets.New(old.Spec.Scopes...)) {
					errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), q.Spec.Scopes, apivalidation.FieldImmutableErrorMsg))
				}
				return errs
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
				table.String("Limit", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
				table.Age(),
			},
			Cells: quotaCells,
		}.Rules(),
		Status: &api.Subresource{
			Name:             "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, q, old *corev1.ResourceQuota) { q.Spec = old.Spec }),
			ValidateUpdate: api.Update(func(q, _ *corev1.ResourceQuota) field.ErrorList {
				path := field.NewPath("status")
				errs := validateQuotaList(q.Status.Hard, path.Child("hard"))
				return append(errs, validateQuotaList(q.Status.Used, path.Child("used"))...)
			}),
			ResetFields: []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		ResetFields:              []string{"status"},
	}
}

func validateQuotaList(list corev1.ResourceList, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range rule.SortedKeys(list) {
		errs = append(errs, rule.QuotaResourceName(name, p.Key(string(name)))...)
		errs = append(errs, rule.Quantity(name, list[name], p.Key(string(name)))...)
	}
	return errs
}

func validateQuotaSpec(spec *corev1.ResourceQuotaSpec, p *field.Path) field.ErrorList {
	errs := validateQuotaList(spec.Hard, p.Child("hard"))
	if len(spec.Scopes) > 0 {
		scopes := p.Child("scopes")
		for _, scope := range spec.Scopes {
			if !knownScope(scope) {
				errs = append(errs, field.Invalid(scopes, spec.Scopes, "unsupported scope"))
			}
			errs = append(errs, validateScopeResources(scope, spec.Hard, spec.Scopes, scopes)...)
		}
		errs = append(errs, validateScopePairs(sets.New(spec.Scopes...), spec.Scopes, scopes)...)
	}
	if spec.ScopeSelector != nil {
		errs = append(errs, validateScopeSelector(spec, p.Child("scopeSelector", "matchExpressions"))...)
	}
	return errs
}

func validateScopeSelector(spec *corev1.ResourceQuotaSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	scopes := sets.New[corev1.ResourceQuotaScope]()
	for _, req := range spec.ScopeSelector.MatchExpressions {
		if !knownScope(req.ScopeName) {
			errs = append(errs, field.Invalid(p.Child("scopeName"), req.ScopeName, "unsupported scope"))
		}
		errs = append(errs, validateScopeResources(req.ScopeName, spec.Hard, badvalue.Of(spec.ScopeSelector), p)...)
		switch req.ScopeName {
		case corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeTerminating,
			corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			if req.Operator != corev1.ScopeSelectorOpExists {
				errs = append(errs, field.Invalid(p.Child("operator"), req.Operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "+
					"ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
			}
		}
		switch req.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(req.Values) == 0 {
				errs = append(errs, field.Required(p.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(req.Values) != 0 {
				errs = append(errs, field.Invalid(p.Child("values"), req.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
			}
		default:
			errs = append(errs, field.Invalid(p.Child("operator"), req.Operator, "not a valid selector operator"))
		}
		scopes.Insert(req.ScopeName)
	}
	return append(errs, validateScopePairs(scopes, spec.Scopes, p)...)
}

func knownScope(scope corev1.ResourceQuotaScope) bool {
	switch scope {
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort,
		corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
		corev1.ResourceQuotaScopeVolumeAttributesClass:
		return true
	}
	return false
}

// validateScopeResources requires the resources bounded to be ones the scope can tell apart.
func validateScopeResources(scope corev1.ResourceQuotaScope, hard corev1.ResourceList, shown any, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range rule.SortedKeys(hard) {
		if rule.IsStandardQuota(name) && !scopeCounts(scope, name) {
			errs = append(errs, field.Invalid(p, shown, "unsupported scope applied to resource"))
		}
	}
	return errs
}

func scopeCounts(scope corev1.ResourceQuotaScope, name corev1.ResourceName) bool {
	switch scope {
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return isPodQuota(name)
	case corev1.ResourceQuotaScopeBestEffort:
		return name == corev1.ResourcePods
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage
	}
	return true
}

func isPodQuota(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourcePods:
		return true
	}
	return false
}

func validateScopePairs(scopes sets.Set[corev1.ResourceQuotaScope], shown []corev1.ResourceQuotaScope, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if scopes.HasAll(corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort) {
		errs = append(errs, field.Invalid(p, shown, "conflicting scopes"))
	}
	if scopes.HasAll(corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating) {
		errs = append(errs, field.Invalid(p, shown, "conflicting scopes"))
	}
	return errs
}

func quotaCells(q *corev1.ResourceQuota) []any {
	var requests, limits []string
	names := slices.Sorted(maps.Keys(q.Status.Hard))
	for _, name := range names {
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		cell := fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String())
		if strings.HasPrefix(string(name), "limits") {
			limits = append(limits, cell)
		} else {
			requests = append(requests, cell)
		}
	}
	return []any{q.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), table.Since(q.CreationTimestamp)}
}
