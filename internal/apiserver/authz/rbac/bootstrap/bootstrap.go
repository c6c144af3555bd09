// SPDX-License-Identifier: Apache-2.0

// Package bootstrap creates and mends the roles and bindings every cluster
// begins with. The API server's wiring calls Ensure at each start.
//
// policy.jsonl holds them, one object a line. What an administrator added stays;
// what he took away comes back, unless he set the annotation
// rbac.authorization.kubernetes.io/autoupdate to "false".
package bootstrap

import (
	"bytes"
	"context"
	_ "embed" // the policy
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"kaji/internal/client"
)

//go:embed policy.jsonl
var policy []byte

// groups is what the feature gate GenericWorkload adds.
//
//go:embed groups.jsonl
var groups []byte

// parallel bounds the writes under way: they share the store's group commit.
const parallel = 16

// Ensure creates what is missing and mends what differs. It is safe to run on
// several servers at once.
func Ensure(ctx context.Context, c client.Interface) error { return ensureAll(ctx, c, policy) }

// EnsureWithGroups is Ensure with the feature gate GenericWorkload on.
func EnsureWithGroups(ctx context.Context, c client.Interface) error {
	all, err := extend(policy, groups)
	if err != nil {
		return fmt.Errorf("bootstrap policy: %w", err)
	}
	return ensureAll(ctx, c, all)
}

// extend adds objects to a policy; the rules of a role that it has already join
// that role's.
func extend(policy, more []byte) ([]byte, error) {
	rules := map[string][]rbacv1.PolicyRule{}
	var out, rest bytes.Buffer
	for line := range bytes.Lines(more) {
		var role rbacv1.ClusterRole
		if err := json.Unmarshal(line, &role); err != nil {
			return nil, err
		}
		if role.Kind == "ClusterRole" && role.Annotations == nil {
			rules[role.Name] = role.Rules
		} else {
			rest.Write(line)
		}
	}
	for line := range bytes.Lines(policy) {
		var role rbacv1.ClusterRole
		if err := json.Unmarshal(line, &role); err != nil {
			return nil, err
		}
		if extra := rules[role.Name]; role.Kind == "ClusterRole" && extra != nil {
			role.Rules = append(role.Rules, extra...)
			var err error
			if line, err = json.Marshal(&role); err != nil {
				return nil, err
			}
			line = append(line, '\n')
		}
		out.Write(line)
	}
	out.Write(rest.Bytes())
	return out.Bytes(), nil
}

func ensureAll(ctx context.Context, c client.Interface, policy []byte) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for line := range bytes.Lines(policy) {
		var head struct {
			Kind string `json:"kind"`
		}
		if err := json.Unmarshal(line, &head); err != nil {
			return fmt.Errorf("bootstrap policy: %w", err)
		}
		group.Go(func() error {
			switch head.Kind {
			case "ClusterRole":
				return ensure(ctx, client.For[*rbacv1.ClusterRole](c), line, mendClusterRole)
			case "Role":
				return ensure(ctx, client.For[*rbacv1.Role](c), line, mendRole)
			case "ClusterRoleBinding":
				return ensure(ctx, client.For[*rbacv1.ClusterRoleBinding](c), line, mendClusterRoleBinding)
			case "RoleBinding":
				return ensure(ctx, client.For[*rbacv1.RoleBinding](c), line, mendRoleBinding)
			}
			return fmt.Errorf("bootstrap policy: unknown kind %q", head.Kind)
		})
	}
	return group.Wait()
}

// ClusterRoleRules returns the rules a cluster role begins with; nil when there
// is no such role.
func ClusterRoleRules(name string) ([]rbacv1.PolicyRule, error) {
	for line := range bytes.Lines(policy) {
		var role rbacv1.ClusterRole
		if !bytes.Contains(line, []byte(name)) {
			continue
		}
		if err := json.Unmarshal(line, &role); err != nil {
			return nil, fmt.Errorf("bootstrap policy: %w", err)
		}
		if role.Kind == "ClusterRole" && role.Name == name {
			return role.Rules, nil
		}
	}
	return nil, nil
}

// errRoleRef says that a binding refers to another role than it should; that
// cannot be changed in place.
var errRoleRef = errors.New("role reference differs")

// ensure brings one object into being; mend changes a copy of what is there
// and says whether it did.
func ensure[T client.Object](ctx context.Context, objects client.Typed[T], line []byte, mend func(have, want T) (bool, error)) error {
	var want T
	if err := json.Unmarshal(line, &want); err != nil {
		return fmt.Errorf("bootstrap policy: %w", err)
	}
	for {
		err := ensureOnce(ctx, objects, want, mend)
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
			continue // another server is at it
		}
		if err != nil {
			return fmt.Errorf("bootstrap policy: %T %s: %w", want, want.GetName(), err)
		}
		return nil
	}
}

func ensureOnce[T client.Object](ctx context.Context, objects client.Typed[T], want T, mend func(have, want T) (bool, error)) error {
	have, err := objects.Get(ctx, want.GetNamespace(), want.GetName())
	if apierrors.IsNotFound(err) {
		_, err = objects.Create(ctx, want)
		return err
	}
	if err != nil || have.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] == "false" {
		return err
	}
	have = have.DeepCopyObject().(T)
	changed, err := mend(have, want)
	switch {
	case errors.Is(err, errRoleRef):
		uid := have.GetUID()
		if err := objects.Delete(ctx, have.GetNamespace(), have.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		_, err = objects.Create(ctx, want)
		return err
	case changed:
		_, err = objects.Update(ctx, have)
	}
	return err
}

func mendClusterRole(have, want *rbacv1.ClusterRole) (bool, error) {
	changed := mendMeta(&have.ObjectMeta, &want.ObjectMeta)
	if want.AggregationRule == nil {
		// The rules of aggregated roles are the controller's.
		return mendRules(&have.Rules, want.Rules) || changed, nil
	}
	if have.AggregationRule == nil {
		have.AggregationRule = &rbacv1.AggregationRule{}
	}
	for _, s := range want.AggregationRule.ClusterRoleSelectors {
		same := func(o metav1.LabelSelector) bool { return o.String() == s.String() }
		if !slices.ContainsFunc(have.AggregationRule.ClusterRoleSelectors, same) {
			have.AggregationRule.ClusterRoleSelectors = append(have.AggregationRule.ClusterRoleSelectors, s)
			changed = true
		}
	}
	return changed, nil
}

func mendRole(have, want *rbacv1.Role) (bool, error) {
	changed := mendMeta(&have.ObjectMeta, &want.ObjectMeta)
	return mendRules(&have.Rules, want.Rules) || changed, nil
}

func mendClusterRoleBinding(have, want *rbacv1.ClusterRoleBinding) (bool, error) {
	if have.RoleRef != want.RoleRef {
		return false, errRoleRef
	}
	changed := mendMeta(&have.ObjectMeta, &want.ObjectMeta)
	return mendSubjects(&have.Subjects, want.Subjects) || changed, nil
}

func mendRoleBinding(have, want *rbacv1.RoleBinding) (bool, error) {
	if have.RoleRef != want.RoleRef {
		return false, errRoleRef
	}
	changed := mendMeta(&have.ObjectMeta, &want.ObjectMeta)
	return mendSubjects(&have.Subjects, want.Subjects) || changed, nil
}

// mendMeta adds labels and annotations that are missing.
func mendMeta(have, want *metav1.ObjectMeta) bool {
	changed := false
	add := func(to *map[string]string, from map[string]string) {
		for k, v := range from {
			if _, ok := (*to)[k]; !ok {
				if *to == nil {
					*to = map[string]string{}
				}
				(*to)[k], changed = v, true
			}
		}
	}
	add(&have.Labels, want.Labels)
	add(&have.Annotations, want.Annotations)
	return changed
}

// mendRules adds rules for whatever the present ones do not cover.
func mendRules(have *[]rbacv1.PolicyRule, want []rbacv1.PolicyRule) bool {
	covered, missing := validation.Covers(*have, want)
	if covered {
		return false
	}
	*have = append(*have, missing...)
	return true
}

func mendSubjects(have *[]rbacv1.Subject, want []rbacv1.Subject) bool {
	changed := false
	for _, s := range want {
		if !slices.Contains(*have, s) {
			*have, changed = append(*have, s), true
		}
	}
	return changed
}
