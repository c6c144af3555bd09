// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func limitRange() *api.Kind {
	return &api.Kind{
		Name: "LimitRange", Resource: "limitranges", Singular: "limitrange",
		ShortNames: []string{"limits"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.LimitRange], NewList: api.NewList[corev1.LimitRangeList],
			Default: api.Default(func(l *corev1.LimitRange) {
				for i := range l.Spec.Limits {
					defaultLimit(&l.Spec.Limits[i])
				}
			}),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/limitranges",
		New:     api.New[corev1.LimitRange], NewList: api.NewList[corev1.LimitRangeList],
		Rules: api.For[*corev1.LimitRange]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, l *corev1.LimitRange) {
				if l.Name == "" && l.GenerateName == "" {
					l.Name = string(uuid.NewUUID()) // a limit range may be made without a name
				}
			},
			Validate:       validateLimitRange,
			ValidateUpdate: func(l, _ *corev1.LimitRange) field.ErrorList { return validateLimitRange(l) },
			Columns:        []metav1.TableColumnDefinition{table.Name(), table.CreatedAt()},
			Cells: func(l *corev1.LimitRange) []any {
				return []any{l.Name, l.CreationTimestamp.UTC().Format("2006-01-02T15:04:05Z07:00")}
			},
		}.Rules(),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
	}
}

// defaultLimit settles, for containers, the default limit and request that the
// others imply.
func defaultLimit(l *corev1.LimitRangeItem) {
	if l.Type == corev1.LimitTypeContainer {
		if l.Default == nil {
			l.Default = corev1.ResourceList{}
		}
		if l.DefaultRequest == nil {
			l.DefaultRequest = corev1.ResourceList{}
		}
		fillIn(l.Default, l.Max)
		fillIn(l.DefaultRequest, l.Default)
		fillIn(l.DefaultRequest, l.Min)
	}
	for _, list := range []corev1.ResourceList{l.Max, l.Min, l.Default, l.DefaultRequest, l.MaxLimitRequestRatio} {
		rule.RoundUp(list)
	}
}

func fillIn(list, from corev1.ResourceList) {
	for name, q := range from {
		if _, ok := list[name]; !ok {
			list[name] = q.DeepCopy()
		}
	}
}

func validateLimitRange(l *corev1.LimitRange) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.LimitType]()
	for i := range l.Spec.Limits {
		limit, p := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, validateLimitType(limit.Type, p.Child("type"))...)
		if seen.Has(limit.Type) {
			errs = append(errs, field.Duplicate(p.Child("type"), limit.Type))
		}
		seen.Insert(limit.Type)
		errs = append(errs, validateLimit(limit, p)...)
	}
	return errs
}

func validateLimitType(t corev1.LimitType, p *field.Path) field.ErrorList {
	if errs := rule.Messages(p, t, validation.IsQualifiedName(string(t))); len(errs) > 0 {
		return errs
	}
	switch t {
	case corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim:
		return nil
	}
	if strings.Contains(string(t), "/") {
		return nil
	}
	return field.ErrorList{field.Invalid(p, t, "must be a standard limit type or fully qualified")}
}

func validateLimit(l *corev1.LimitRangeItem, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[corev1.ResourceName]()
	list := func(name string, resources corev1.ResourceList) {
		for _, resource := range rule.SortedKeys(resources) {
			names.Insert(resource)
			p := p.Child(name).Key(string(resource))
			if l.Type == corev1.LimitTypePod || l.Type == corev1.LimitTypeContainer {
				errs = append(errs, rule.ContainerResourceName(resource, p)...)
			} else {
				errs = append(errs, rule.ResourceName(resource, p)...)
			}
		}
	}
	list("max", l.Max)
	list("min", l.Min)
	defaults, defaultRequests := l.Default, l.DefaultRequest
	if l.Type == corev1.LimitTypePod {
		if len(defaults) > 0 {
			errs = append(errs, field.Forbidden(p.Child("default"), "may not be specified when `type` is 'Pod'"))
		}
		if len(defaultRequests) > 0 {
			errs = append(errs, field.Forbidden(p.Child("defaultRequest"), "may not be specified when `type` is 'Pod'"))
		}
		defaults, defaultRequests = nil, nil
	} else {
		list("default", defaults)
		list("defaultRequest", defaultRequests)
	}
	if l.Type == corev1.LimitTypePersistentVolumeClaim {
		_, hasMin := l.Min[corev1.ResourceStorage]
		_, hasMax := l.Max[corev1.ResourceStorage]
		if !hasMin && !hasMax {
			errs = append(errs, field.Required(p.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	list("maxLimitRequestRatio", l.MaxLimitRequestRatio)
	for _, name := range sets.List(names) {
		b := bounds{
			min: amountOf("min", l.Min, name), max: amountOf("max", l.Max, name),
			limit: amountOf("default", defaults, name), request: amountOf("default request", defaultRequests, name),
			ratio: amountOf("ratio", l.MaxLimitRequestRatio, name),
		}
		errs = append(errs, b.validate(name, p)...)
	}
	return errs
}

// amount is one bound of a resource, and what it is called in messages.
type amount struct {
	resource.Quantity
	what string
	set  bool
}

func amountOf(what string, list corev1.ResourceList, name corev1.ResourceName) amount {
	q, ok := list[name]
	return amount{q, what, ok}
}

// bounds are all bounds of one resource.
type bounds struct{ min, max, limit, request, ratio amount }

func (b *bounds) validate(name corev1.ResourceName, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := func(list string) *field.Path { return p.Child(list).Key(string(name)) }
	ordered := func(low, high amount, p *field.Path, shown resource.Quantity, highName string) {
		if low.set && high.set && low.Cmp(high.Quantity) > 0 {
			errs = append(errs, field.Invalid(p, shown, fmt.Sprintf("%s value %s is greater than %s value %s", low.what, low.String(), highName, high.String())))
		}
	}
	ordered(b.min, b.max, at("min"), b.min.Quantity, "max")
	ordered(b.min, b.request, at("defaultRequest"), b.request.Quantity, "default request")
	ordered(b.request, b.max, at("defaultRequest"), b.request.Quantity, "max")
	ordered(b.request, b.limit, at("defaultRequest"), b.request.Quantity, "default limit")
	ordered(b.min, b.limit, at("default"), b.min.Quantity, "default")
	ordered(b.limit, b.max, at("default"), b.max.Quantity, "max")
	if b.ratio.set {
		errs = append(errs, b.validateRatio(at("maxLimitRequestRatio"))...)
	}
	if !rule.MayOvercommit(name) && b.limit.set && b.request.set && b.limit.Cmp(b.request.Quantity) != 0 {
		errs = append(errs, field.Invalid(at("defaultRequest"), b.request.Quantity,
			fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", b.limit.String(), b.request.String(), name)))
	}
	return errs
}

func (b *bounds) validateRatio(p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if b.ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		errs = append(errs, field.Invalid(p, b.ratio.Quantity, fmt.Sprintf("ratio %s is less than 1", b.ratio.String())))
	}
	if !b.min.set || !b.max.set {
		return errs
	}
	ratio, low, high := float64(b.ratio.Value()), b.min.Value(), b.max.Value()
	if b.ratio.Value() < resource.MaxMilliValue && low < resource.MaxMilliValue && high < resource.MaxMilliValue {
		ratio, low, high = float64(b.ratio.MilliValue())/1000, b.min.MilliValue(), b.max.MilliValue()
	}
	if limit := float64(high) / float64(low); ratio > limit {
		errs = append(errs, field.Invalid(p, b.ratio.Quantity, fmt.Sprintf("ratio %s is greater than max/min = %f", b.ratio.String(), limit)))
	}
	return errs
}
