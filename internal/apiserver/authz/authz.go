// SPDX-License-Identifier: Apache-2.0

// Package authz joins the authorizers of the API server; its children are the
// authorizers. The handler chain asks it for every request, the review kinds
// for others' questions.
package authz

import (
	"context"
	"slices"
	"strings"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Named is an authorizer with the name that its reasons are told under, and its
// type, such as "Webhook".
type Named struct {
	Type, Name string
	Authorizer authorizer.UnconditionalAuthorizer
}

// Chain asks authorizers in order until one allows or denies. Members of
// system:masters are allowed everything before any is asked: they can repair
// what locks all others out. metrics may be nil.
func Chain(metrics *Metrics, authorizers ...Named) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetUser() != nil && slices.Contains(a.GetUser().GetGroups(), user.SystemPrivilegedGroup) {
			return authorizer.DecisionAllow, "", nil
		}
		var reasons []string
		var failed []error
		for _, next := range authorizers {
			decision, reason, err := next.Authorizer.Authorize(ctx, a)
			if err != nil {
				failed = append(failed, err)
			}
			if reason != "" {
				reasons = append(reasons, next.Name+": "+reason)
			}
			if decision != authorizer.DecisionNoOpinion {
				metrics.decided(next, decision)
				return decision, reason, err
			}
		}
		return authorizer.DecisionNoOpinion, strings.Join(reasons, "\n"), utilerrors.NewAggregate(failed)
	})
}

// Rules joins the rules that several resolvers know of a user.
func Rules(resolvers ...authorizer.RuleResolver) authorizer.RuleResolver { return rules(resolvers) }

type rules []authorizer.RuleResolver

// RulesFor implements authorizer.RuleResolver.
func (r rules) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	var failed []error
	incomplete := false
	for _, resolver := range r {
		more, morePaths, partly, err := resolver.RulesFor(ctx, u, namespace)
		incomplete = incomplete || partly
		if err != nil {
			failed = append(failed, err)
		}
		resources, paths = append(resources, more...), append(paths, morePaths...)
	}
	return resources, paths, incomplete, utilerrors.NewAggregate(failed)
}
