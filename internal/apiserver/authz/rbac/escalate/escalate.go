// SPDX-License-Identifier: Apache-2.0

// Package escalate keeps users from giving away more rights than they have:
// who writes a role must hold all its rules, or the verb "escalate"; who binds
// one must hold the rules of the role, or the verb "bind".
//
// The API server runs it behind all admission plug-ins, since those may still
// change what is granted. It reads roles through the RBAC authorizer's index
// and is on whatever authorizers there are.
package escalate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/request"
)

// Rules are what roles allow; *rbac.Authorizer is one.
type Rules interface {
	// Rules returns the rules of a user in a namespace. They are good even
	// with an error, which tells of bindings to absent roles.
	Rules(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error)
	// RoleRules returns the rules of the role that a binding in a namespace
	// refers to.
	RoleRules(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
}

// Guard is the check. It implements admission.Mutator, though it changes
// nothing: it has to stand before validation.
type Guard struct {
	Rules      Rules
	Authorizer authorizer.UnconditionalAuthorizer
}

var _ admission.Mutator = (*Guard)(nil)

// Name implements admission.Plugin; upstream has no plug-in of the name.
func (*Guard) Name() string { return "RBACEscalation" }

// Handles implements admission.Plugin.
func (*Guard) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// allRights are what an aggregation rule may gather.
var allRights = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// Mutate implements admission.Mutator; it refuses what grants too much.
func (g *Guard) Mutate(ctx context.Context, a *admission.Attributes) error {
	if a.Resource.Group != rbacv1.GroupName || a.Subresource != "" || a.User == nil ||
		slices.Contains(a.User.GetGroups(), user.SystemPrivilegedGroup) || onlyForCollector(a) {
		return nil
	}
	switch o := a.Object.(type) {
	case *rbacv1.Role:
		return g.role(ctx, a, o.Rules, false)
	case *rbacv1.ClusterRole:
		old, _ := a.Old.(*rbacv1.ClusterRole)
		return g.role(ctx, a, o.Rules, aggregates(o) || aggregates(old))
	case *rbacv1.RoleBinding:
		return g.binding(ctx, a, o.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return g.binding(ctx, a, o.RoleRef)
	}
	return nil
}

func aggregates(r *rbacv1.ClusterRole) bool { return r != nil && r.AggregationRule != nil }

func (g *Guard) role(ctx context.Context, a *admission.Attributes, rules []rbacv1.PolicyRule, gathers bool) error {
	if g.may(ctx, a, "escalate", a.Resource.Group, a.Resource.Resource, request.From(ctx).Name) {
		return nil
	}
	if err := g.holds(ctx, a, rules); err != nil {
		return forbidden(a, err)
	}
	if gathers && g.holds(ctx, a, allRights) != nil {
		return forbidden(a, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

func (g *Guard) binding(ctx context.Context, a *admission.Attributes, ref rbacv1.RoleRef) error {
	switch ref.Kind {
	case "Role":
		if g.may(ctx, a, "bind", ref.APIGroup, "roles", ref.Name) {
			return nil
		}
	case "ClusterRole":
		if g.may(ctx, a, "bind", ref.APIGroup, "clusterroles", ref.Name) {
			return nil
		}
	}
	rules, err := g.Rules.RoleRules(ctx, ref, a.Namespace)
	if err != nil {
		return absent(a, err)
	}
	if err := g.holds(ctx, a, rules); err != nil {
		return forbidden(a, err)
	}
	return nil
}

func forbidden(a *admission.Attributes, err error) error {
	return apierrors.NewForbidden(a.Resource.GroupResource(), a.Object.(api.Object).GetName(), err)
}

// may asks for a verb on roles in the namespace of the request.
func (g *Guard) may(ctx context.Context, a *admission.Attributes, verb, group, resource, name string) bool {
	if g.Authorizer == nil {
		return false
	}
	decision, _, _ := g.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.User, Verb: verb, APIGroup: group, APIVersion: "*", Resource: resource, Name: name,
		Namespace: a.Namespace, ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow
}

// holds says which of the rules the user does not have.
func (g *Guard) holds(ctx context.Context, a *admission.Attributes, rules []rbacv1.PolicyRule) error {
	own, failed := g.Rules.Rules(ctx, a.User, a.Namespace)
	covered, missing := validation.Covers(own, rules)
	if covered {
		return nil
	}
	message := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		a.User.GetName(), a.User.GetGroups(), strings.Join(describe(missing), "\n"))
	if failed != nil {
		message += fmt.Sprintf("; resolution errors: %v", []error{absent(a, failed)})
	}
	return errors.New(message)
}

// absent words that a role is not there as upstream does, which takes the
// request's resource for the role's.
func absent(a *admission.Attributes, err error) error {
	if all, ok := err.(utilerrors.Aggregate); ok { //nolint:errorlint // the index makes it
		var errs []error
		for _, e := range all.Errors() {
			errs = append(errs, absent(a, e))
		}
		return utilerrors.NewAggregate(errs)
	}
	var status apierrors.APIStatus
	if apierrors.IsNotFound(err) && errors.As(err, &status) {
		return apierrors.NewNotFound(a.Resource.GroupResource(), status.Status().Details.Name)
	}
	return err
}

// onlyForCollector says that an update touches only what garbage collection
// needs: nothing is granted by it.
func onlyForCollector(a *admission.Attributes) bool {
	obj, ok := a.Object.(api.Object)
	old, was := a.Old.(api.Object)
	if !ok || !was {
		return false
	}
	same := obj.DeepCopyObject().(api.Object)
	same.SetOwnerReferences(old.GetOwnerReferences())
	same.SetFinalizers(old.GetFinalizers())
	same.SetManagedFields(old.GetManagedFields())
	same.GetObjectKind().SetGroupVersionKind(old.GetObjectKind().GroupVersionKind())
	return apiequality.Semantic.DeepEqual(same, old)
}

// target is what a rule for one resource and at most one name is about.
type target struct {
	schema.GroupResource
	name  string
	named bool
}

// describe words rules, those about the same resource together, in order.
func describe(rules []rbacv1.PolicyRule) []string {
	var rest []rbacv1.PolicyRule
	simple := map[target]*rbacv1.PolicyRule{}
	for i := range rules {
		r := &rules[i]
		if len(r.APIGroups) != 1 || len(r.Resources) != 1 || len(r.ResourceNames) > 1 || len(r.NonResourceURLs) > 0 {
			rest = append(rest, *r)
			continue
		}
		t := target{GroupResource: schema.GroupResource{Group: r.APIGroups[0], Resource: r.Resources[0]}}
		if len(r.ResourceNames) > 0 {
			t.name, t.named = r.ResourceNames[0], true
		}
		if have := simple[t]; have != nil {
			have.Verbs = append(have.Verbs, r.Verbs...)
		} else {
			simple[t] = r.DeepCopy()
		}
	}
	for _, r := range simple {
		rest = append(rest, *r)
	}
	var out []string
	for i := range rest {
		out = append(out, word(&rest[i]))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func word(r *rbacv1.PolicyRule) string {
	var parts []string
	for _, p := range []struct {
		name   string
		values []string
	}{{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs}, {"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs}} {
		if len(p.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", p.name, p.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
