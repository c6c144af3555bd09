// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"fmt"
	"strings"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func workload() *api.Kind {
	return &api.Kind{
		Group: schedulingv1beta1.GroupName, Name: "Workload", Resource: "workloads", Singular: "workload",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: schedulingv1beta1.SchemeGroupVersion, OptIn: true,
			New: api.New[schedulingv1beta1.Workload], NewList: api.NewList[schedulingv1beta1.WorkloadList],
		}},
		Storage: schedulingv1beta1.SchemeGroupVersion,
		Prefix:  "/registry/workloads",
		New:     api.New[schedulingv1beta1.Workload], NewList: api.NewList[schedulingv1beta1.WorkloadList],
		Rules: api.For[*schedulingv1beta1.Workload]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, w *schedulingv1beta1.Workload) {
				dropGatedTemplates(&w.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, w, old *schedulingv1beta1.Workload) {
				dropGatedTemplates(&w.Spec, old.Spec.PodGroupTemplates)
			},
			Validate: func(w *schedulingv1beta1.Workload) field.ErrorList { return validateWorkload(&w.Spec, nil) },
			ValidateUpdate: func(w, old *schedulingv1beta1.Workload) field.ErrorList {
				return validateWorkload(&w.Spec, &old.Spec)
			},
			Columns: []metav1.TableColumnDefinition{table.Name(), table.Age()},
			Cells: func(w *schedulingv1beta1.Workload) []any {
				return []any{w.Name, table.Since(w.CreationTimestamp)}
			},
		}.Rules(),
	}
}

// dropGatedTemplates is dropGated for templates.
func dropGatedTemplates(spec *schedulingv1beta1.WorkloadSpec, old []schedulingv1beta1.PodGroupTemplate) {
	spec.CompositePodGroupTemplates = nil
	for i := range spec.PodGroupTemplates {
		t, had := &spec.PodGroupTemplates[i], schedulingv1beta1.PodGroupTemplate{}
		if i < len(old) {
			had = old[i]
		}
		if had.SchedulingConstraints == nil {
			t.SchedulingConstraints = nil
		}
		if len(had.ResourceClaims) == 0 {
			t.ResourceClaims = nil
		}
		if had.PreemptionPolicy == nil {
			t.PreemptionPolicy = nil
		}
	}
}

func validateWorkload(spec, old *schedulingv1beta1.WorkloadSpec) field.ErrorList {
	p := field.NewPath("spec")
	errs := samePriority(spec, p)
	if old != nil {
		errs = append(errs, rule.Unchanged(spec.ControllerRef, old.ControllerRef, p.Child("controllerRef"))...)
	} else if ref := spec.ControllerRef; ref != nil {
		errs = append(errs, validateController(ref, p.Child("controllerRef"))...)
	}
	templates := p.Child("podGroupTemplates")
	switch n := len(spec.PodGroupTemplates); {
	case n == 0 && old == nil:
		errs = append(errs, field.Invalid(p, "", "must specify one of: `podGroupTemplates`, `compositePodGroupTemplates`"))
	case n > schedulingv1beta1.WorkloadMaxPodGroupTemplates:
		return append(errs, field.TooMany(templates, n, schedulingv1beta1.WorkloadMaxPodGroupTemplates))
	}
	before := map[string]*schedulingv1beta1.PodGroupTemplate{}
	if old != nil {
		for i := range old.PodGroupTemplates {
			before[old.PodGroupTemplates[i].Name] = &old.PodGroupTemplates[i]
		}
	}
	seen := map[string]bool{}
	for i := range spec.PodGroupTemplates {
		t, at := &spec.PodGroupTemplates[i], templates.Index(i)
		if seen[t.Name] {
			errs = append(errs, field.Duplicate(at, *t))
		}
		seen[t.Name] = true
		if old != nil && before[t.Name] == nil {
			errs = append(errs, field.Forbidden(at, "item may not be added"))
			continue
		}
		errs = append(errs, validateTemplate(t, before[t.Name], at)...)
	}
	for name := range before {
		if !seen[name] {
			errs = append(errs, field.Forbidden(templates, "item may not be removed"))
		}
	}
	return errs
}

// samePriority requires one priority of all templates.
func samePriority(spec *schedulingv1beta1.WorkloadSpec, p *field.Path) field.ErrorList {
	for i := range spec.PodGroupTemplates {
		t, first := &spec.PodGroupTemplates[i], &spec.PodGroupTemplates[0]
		if t.PriorityClassName != first.PriorityClassName || !apiequality.Semantic.DeepEqual(t.Priority, first.Priority) {
			return field.ErrorList{field.Invalid(p, nil, "detected multiple priority configurations")}
		}
	}
	return nil
}

func validateController(ref *schedulingv1beta1.TypedLocalObjectReference, p *field.Path) field.ErrorList {
	segment := func(value string, p *field.Path) field.ErrorList {
		return rule.Messages(p, value, path.IsValidPathSegmentName(value))
	}
	var errs field.ErrorList
	if ref.APIGroup != "" {
		errs = append(errs, rule.Subdomain(ref.APIGroup, p.Child("apiGroup"))...)
	}
	errs = append(errs, name(ref.Kind, p.Child("kind"), segment)...)
	return append(errs, name(ref.Name, p.Child("name"), segment)...)
}

// validateTemplate judges a template; old is nil for a new one.
func validateTemplate(t, old *schedulingv1beta1.PodGroupTemplate, p *field.Path) field.ErrorList {
	if old == nil {
		errs := name(t.Name, p.Child("name"), rule.Label)
		errs = append(errs, validatePolicy(&t.SchedulingPolicy, nil, p.Child("schedulingPolicy"))...)
		errs = append(errs, validateDisruption(t.DisruptionMode, p.Child("disruptionMode"))...)
		return append(errs, validateGroupPriority(t.PriorityClassName, t.Priority, p)...)
	}
	errs := validatePolicy(&t.SchedulingPolicy, &old.SchedulingPolicy, p.Child("schedulingPolicy"))
	for _, f := range []struct {
		value, old any
		name       string
	}{
		{t.SchedulingConstraints, old.SchedulingConstraints, "schedulingConstraints"},
		{t.ResourceClaims, old.ResourceClaims, "resourceClaims"},
		{t.DisruptionMode, old.DisruptionMode, "disruptionMode"},
		{t.PriorityClassName, old.PriorityClassName, "priorityClassName"},
		{t.Priority, old.Priority, "priority"},
		{t.PreemptionPolicy, old.PreemptionPolicy, "preemptionPolicy"},
	} {
		errs = append(errs, rule.Unchanged(f.value, f.old, p.Child(f.name))...)
	}
	return errs
}

// validatePolicy requires one policy, which stays what it was; old is nil for a
// new one.
func validatePolicy(s, old *schedulingv1beta1.PodGroupSchedulingPolicy, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if old == nil || (s.Basic != nil) != (old.Basic != nil) || (s.Gang != nil) != (old.Gang != nil) {
		errs = oneOf(p, member{"basic", s.Basic != nil}, member{"gang", s.Gang != nil})
	}
	if old != nil && (s.Basic != nil) != (old.Basic != nil) {
		errs = append(errs, rule.Frozen(p.Child("basic")))
	}
	gang := p.Child("gang")
	switch {
	case old != nil && s.Gang != nil && old.Gang == nil:
		return append(errs, field.Invalid(gang, nil, "field cannot be set once created"))
	case old != nil && s.Gang == nil && old.Gang != nil:
		return append(errs, field.Invalid(gang, nil, "field cannot be cleared once set"))
	case s.Gang == nil || old != nil && s.Gang.MinCount == old.Gang.MinCount:
	case s.Gang.MinCount == 0:
		errs = append(errs, field.Required(gang.Child("minCount"), ""))
	case s.Gang.MinCount < 1:
		errs = append(errs, field.Invalid(gang.Child("minCount"), s.Gang.MinCount, "must be greater than or equal to 1"))
	}
	return errs
}

func validateDisruption(m *schedulingv1beta1.DisruptionMode, p *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	return oneOf(p, member{"single", m.Single != nil}, member{"all", m.All != nil})
}

func validateGroupPriority(class string, priority *int32, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if class != "" {
		errs = rule.Subdomain(class, p.Child("priorityClassName"))
	}
	if priority != nil && *priority > maxUserPriority {
		errs = append(errs, field.Invalid(p.Child("priority"), *priority, fmt.Sprintf("must be less than or equal to %d", maxUserPriority)))
	}
	return errs
}

type member struct {
	name string
	set  bool
}

// oneOf requires exactly one member of a union.
func oneOf(p *field.Path, members ...member) field.ErrorList {
	var all, set []string
	for _, m := range members {
		name := "`" + m.name + "`"
		all = append(all, name)
		if m.set {
			set = append(set, m.name)
		}
	}
	switch len(set) {
	case 0:
		return field.ErrorList{field.Invalid(p, "", "must specify one of: "+strings.Join(all, ", "))}
	case 1:
		return nil
	}
	return field.ErrorList{field.Invalid(p, "{"+strings.Join(set, ", ")+"}", "must specify exactly one of: "+strings.Join(all, ", "))}
}
