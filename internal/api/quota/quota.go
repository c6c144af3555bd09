// SPDX-License-Identifier: Apache-2.0

// Package quota measures what objects use of a ResourceQuota: which names of a
// quota a resource falls under, which scopes an object is in, and how much of
// each name it takes. The admission plug-in charges by it and the controller
// recounts by it, so that both always agree; neither rule stands anywhere else.
//
// It reads and writes nothing. It follows upstream's evaluators
// (k8s.io/kubernetes pkg/quota/v1/evaluator/core) to the letter: what a pod is
// charged is what people budget for.
package quota

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
)

// Scope is one scope of a quota, Exists for those without an operator.
type Scope = corev1.ScopedResourceSelectorRequirement

// Write is one write of an object, as evaluators judge whether it is charged.
type Write struct {
	// Create says that the object is new; it is updated otherwise.
	Create      bool
	Subresource string
	// Object is what is to be stored, Old what is (nil for Create).
	Object, Old runtime.Object
}

// Evaluator measures the objects of one resource. Make them with New; they are
// immutable.
type Evaluator struct {
	// Resource is what it measures.
	Resource schema.GroupResource

	measures  func(corev1.ResourceName) bool
	charges   func(Write) bool
	frees     func(old, now runtime.Object) bool
	inScope   func(Scope, runtime.Object) (bool, error)
	constrain func(required []corev1.ResourceName, obj runtime.Object) error
	usage     func(runtime.Object) (corev1.ResourceList, error)
}

// Measures says whether the objects use any of what a quota calls name.
func (e *Evaluator) Measures(name corev1.ResourceName) bool { return e.measures(name) }

// Charges says whether a write can change what is used.
func (e *Evaluator) Charges(w Write) bool { return e.charges(w) }

// Frees says whether an update calls for a recount: it frees something, or
// moves the object to other scopes.
func (e *Evaluator) Frees(old, now runtime.Object) bool { return e.frees != nil && e.frees(old, now) }

// Usage is how much an object takes of every name it falls under.
func (e *Evaluator) Usage(obj runtime.Object) (corev1.ResourceList, error) { return e.usage(obj) }

// Constrain refuses an object that does not say how much it takes of the
// required names.
func (e *Evaluator) Constrain(required []corev1.ResourceName, obj runtime.Object) error {
	if e.constrain == nil {
		return nil
	}
	return e.constrain(required, obj)
}

// InScopes returns those of the scopes an object is in.
func (e *Evaluator) InScopes(scopes []Scope, obj runtime.Object) ([]Scope, error) {
	if e.inScope == nil {
		return nil, nil
	}
	var in []Scope
	for _, s := range scopes {
		ok, err := e.inScope(s, obj)
		if err != nil {
			return nil, fmt.Errorf("error on matching scope %v: %w", s, err)
		}
		if ok {
			in = append(in, s)
		}
	}
	return in, nil
}

// Uncovered returns those of the limited scopes that are not among the covered.
func (e *Evaluator) Uncovered(limited, covered []Scope) []Scope {
	if e.inScope == nil {
		return nil
	}
	var left []Scope
	for _, l := range limited {
		if !hasScope(covered, l.ScopeName) {
			left = append(left, l)
		}
	}
	return left
}

func hasScope(scopes []Scope, name corev1.ResourceQuotaScope) bool {
	for _, s := range scopes {
		if s.ScopeName == name {
			return true
		}
	}
	return false
}

// Names returns those of a quota's names the objects use, sorted.
func (e *Evaluator) Names(hard corev1.ResourceList) []corev1.ResourceName {
	var names []corev1.ResourceName
	for _, name := range Names(hard) {
		if e.measures(name) {
			names = append(names, name)
		}
	}
	return names
}

// Matches says whether a quota limits an object: it has one of its names, and
// the object is in all of its scopes.
func (e *Evaluator) Matches(q *corev1.ResourceQuota, obj runtime.Object) (bool, error) {
	scopes := Scopes(q)
	in, err := e.InScopes(scopes, obj)
	if err != nil {
		return false, err
	}
	return len(in) == len(scopes) && len(e.Names(q.Status.Hard)) > 0, nil
}

// Count sums what the objects in a quota's scopes take of names.
func (e *Evaluator) Count(q *corev1.ResourceQuota, names []corev1.ResourceName, objects []runtime.Object) (corev1.ResourceList, error) {
	sum := corev1.ResourceList{}
	for _, name := range names {
		sum[name] = resource.Quantity{Format: resource.DecimalSI}
	}
	scopes := Scopes(q)
	for _, obj := range objects {
		in, err := e.InScopes(scopes, obj)
		if err != nil {
			return nil, err
		}
		if len(in) < len(scopes) {
			continue
		}
		usage, err := e.usage(obj)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if u, ok := usage[name]; ok {
				total := sum[name]
				total.Add(u)
				sum[name] = total
			}
		}
	}
	return sum, nil
}

// Scopes returns all scopes of a quota.
func Scopes(q *corev1.ResourceQuota) []Scope {
	var scopes []Scope
	for _, s := range q.Spec.Scopes {
		scopes = append(scopes, Scope{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		scopes = append(scopes, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return scopes
}

// matchesValue says whether a scope with an operator selects a value, that of
// the scope's name; an empty one is none.
func matchesValue(s Scope, value string) (bool, error) {
	operators := map[corev1.ScopeSelectorOperator]selection.Operator{
		corev1.ScopeSelectorOpIn: selection.In, corev1.ScopeSelectorOpNotIn: selection.NotIn,
		corev1.ScopeSelectorOpExists: selection.Exists, corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
	}
	op, ok := operators[s.Operator]
	if !ok {
		return false, fmt.Errorf("failed to parse and convert selector: %q is not a valid scope selector operator", s.Operator)
	}
	r, err := labels.NewRequirement(string(s.ScopeName), op, s.Values)
	if err != nil {
		return false, fmt.Errorf("failed to parse and convert selector: %w", err)
	}
	set := labels.Set{}
	if value != "" {
		set[string(s.ScopeName)] = value
	}
	return r.Matches(set), nil
}

// counting measures a resource by the number of its objects alone; alias is a
// second, older name for it, "" for none.
func counting(gr schema.GroupResource, alias corev1.ResourceName) *Evaluator {
	name := CountName(gr)
	return &Evaluator{
		Resource: gr,
		measures: func(n corev1.ResourceName) bool { return n == name || alias != "" && n == alias },
		charges:  func(w Write) bool { return w.Create && w.Subresource == "" },
		usage: func(runtime.Object) (corev1.ResourceList, error) {
			used := corev1.ResourceList{name: one()}
			if alias != "" {
				used[alias] = one()
			}
			return used, nil
		},
	}
}

const countPrefix = "count/"

// CountName is how quotas call the number of a resource's objects, such as
// count/deployments.apps.
func CountName(gr schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName(countPrefix + gr.String())
}

// Counted is the resource that a name such as count/deployments.apps counts.
func Counted(name corev1.ResourceName) (schema.GroupResource, bool) {
	rest, ok := strings.CutPrefix(string(name), countPrefix)
	return schema.ParseGroupResource(rest), ok
}

func one() resource.Quantity { return *resource.NewQuantity(1, resource.DecimalSI) }

func wrongType(want string, got any) error { return fmt.Errorf("expect %s, got %T", want, got) }
