// SPDX-License-Identifier: Apache-2.0

// Package rbac decides requests by Roles and bindings. The authorization chain
// calls it for every request, the self-subject reviews ask it for a user's
// rules, and the escalation checks build on the same index.
//
// The index is fed from the cache's events and brought up to date at the
// beginning of every decision, so that a binding taken away bites on the next
// request; a decision looks only at the bindings of the user and its groups.
package rbac

import (
	"context"
	"errors"
	"fmt"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
)

// Kinds are the four kinds of the group, as the catalog has them.
type Kinds struct {
	Role, RoleBinding, ClusterRole, ClusterRoleBinding *api.Kind
}

// Authorizer implements authorizer.UnconditionalAuthorizer and authorizer.RuleResolver over
// the cache. It is safe for concurrent use.
type Authorizer struct {
	cache *cache.Cache
	kinds Kinds

	mu      sync.RWMutex
	index   *index
	cursors []*feed // nil until the first decision
}

// feed is the event stream of one kind.
type feed struct {
	kind   *api.Kind
	cursor *cache.Cursor
}

// New returns an authorizer; nothing is read before the first decision.
func New(c *cache.Cache, kinds Kinds) *Authorizer {
	return &Authorizer{cache: c, kinds: kinds, index: newIndex()}
}

// current brings the index up to date and returns it locked for reading.
func (a *Authorizer) current(ctx context.Context) (*index, func(), error) {
	a.mu.RLock()
	if a.cursors != nil && !a.pending() {
		return a.index, a.mu.RUnlock, nil
	}
	a.mu.RUnlock()
	a.mu.Lock()
	err := a.follow(ctx)
	a.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	a.mu.RLock()
	return a.index, a.mu.RUnlock, nil
}

func (a *Authorizer) pending() bool {
	for _, f := range a.cursors {
		select {
		case <-f.cursor.Ready():
			return true
		default:
		}
	}
	return false
}

// follow applies all events there are; a.mu is held for writing.
func (a *Authorizer) follow(ctx context.Context) error {
	if a.cursors == nil {
		return a.load(ctx)
	}
	for _, f := range a.cursors {
		for {
			event, err := f.cursor.TryNext()
			if errors.Is(err, cache.ErrEnded) || errors.Is(err, cache.ErrTooOld) {
				return a.load(ctx)
			}
			if err != nil {
				return err
			}
			if event == nil {
				break
			}
			if event.Prev != nil {
				a.index.remove(event.Prev.Object)
			}
			if !event.Deleted {
				a.index.add(event.Entry.Object)
			}
		}
	}
	return nil
}

// load builds the index anew.
func (a *Authorizer) load(ctx context.Context) error {
	a.cursors = nil
	fresh := newIndex()
	var cursors []*feed
	for _, kind := range []*api.Kind{a.kinds.Role, a.kinds.RoleBinding, a.kinds.ClusterRole, a.kinds.ClusterRoleBinding} {
		snapshot, err := a.cache.Snapshot(ctx, kind)
		if err != nil {
			return fmt.Errorf("reading %s: %w", kind.Resource, err)
		}
		for entry := range snapshot.All("", "") {
			fresh.add(entry.Object)
		}
		cursors = append(cursors, &feed{kind, a.cache.Cursor(snapshot)})
	}
	a.index, a.cursors = fresh, cursors
	return nil
}

// Authorize implements authorizer.UnconditionalAuthorizer.
func (a *Authorizer) Authorize(ctx context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	ix, unlock, err := a.current(ctx)
	if err != nil {
		return authorizer.DecisionNoOpinion, "", err
	}
	defer unlock()
	reason, failed := "", []error(nil)
	ix.visit(at.GetUser(), at.GetNamespace(), func(b *binding, key subjectKey, rules []rule, err error) bool {
		if err != nil {
			failed = append(failed, err)
			return true
		}
		for i := range rules {
			if rules[i].allows(at) {
				reason = b.allows(b.subject(key))
				return false
			}
		}
		return true
	})
	if reason != "" {
		return authorizer.DecisionAllow, reason, nil
	}
	if len(failed) > 0 {
		reason = fmt.Sprintf("RBAC: %v", utilerrors.NewAggregate(failed))
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// Rules returns the rules that hold for a user in a namespace (none for the
// cluster's), as written in the roles. The error tells of bindings to absent
// roles; the rules are good nevertheless.
func (a *Authorizer) Rules(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	ix, unlock, err := a.current(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out []rbacv1.PolicyRule
	var failed []error
	ix.visit(u, namespace, func(_ *binding, _ subjectKey, rules []rule, err error) bool {
		if err != nil {
			failed = append(failed, err)
		}
		for i := range rules {
			out = append(out, *rules[i].PolicyRule)
		}
		return true
	})
	return out, utilerrors.NewAggregate(failed)
}

// RulesFor implements authorizer.RuleResolver.
func (a *Authorizer) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := a.Rules(ctx, u, namespace)
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	for i := range rules {
		r := &rules[i]
		if len(r.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
		}
		if len(r.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	return resources, paths, false, err
}

// RoleRules returns the rules of the role a binding in a namespace (none for
// cluster bindings) refers to.
func (a *Authorizer) RoleRules(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	if ref.Kind == "Role" && namespace == "" { // the answer to whoever asks for a Role there
		return nil, apierrors.NewBadRequest("Namespace parameter required.")
	}
	ix, unlock, err := a.current(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	rules, err := ix.rules(ref, namespace)
	if err != nil {
		return nil, err
	}
	out := make([]rbacv1.PolicyRule, len(rules))
	for i := range rules {
		out[i] = *rules[i].PolicyRule
	}
	return out, nil
}

func missing(resource, name string) error {
	return apierrors.NewNotFound(rbacv1.Resource(resource), name)
}

var (
	_ authorizer.UnconditionalAuthorizer = (*Authorizer)(nil)
	_ authorizer.RuleResolver            = (*Authorizer)(nil)
)
