// SPDX-License-Identifier: Apache-2.0

package kajitest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api"
	"kaji/internal/apiserver"
	"kaji/internal/apiserver/authz"
	"kaji/internal/apiserver/authz/rbac"
	"kaji/internal/apiserver/authz/rbac/bootstrap"
	"kaji/internal/client/direct"
)

// WithRBAC lets roles decide what users may do: those that every cluster begins with,
// and those that the test writes. Without it everybody may do everything. The
// administrator, whose client Cluster hands out, may in any case.
func WithRBAC() Option { return func(o *options) { o.roles = &roles{} } }

// Denied says what roles refused a user until now, as "verb resource": what an
// operator's role lacks. Without WithRBAC nothing is refused.
func (c *Cluster) Denied(user string) []string {
	if c.roles == nil {
		return nil
	}
	c.roles.mu.Lock()
	defer c.roles.mu.Unlock()
	return slices.Sorted(maps.Keys(c.roles.mu.refused[user]))
}

// roles judges by RBAC once the server's cache is there.
type roles struct {
	judge atomic.Pointer[rbac.Authorizer]

	mu struct {
		sync.Mutex
		refused map[string]map[string]bool // by user
	}
}

// Authorize implements authorizer.UnconditionalAuthorizer.
func (r *roles) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	judge := r.judge.Load()
	if judge == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	decision, reason, err := judge.Authorize(ctx, a)
	if decision != authorizer.DecisionAllow {
		r.refuse(a)
	}
	return decision, reason, err
}

func (r *roles) refuse(a authorizer.Attributes) {
	what := a.GetVerb() + " " + a.GetPath()
	if a.IsResourceRequest() {
		what = a.GetVerb() + " " + schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}.String()
		if sub := a.GetSubresource(); sub != "" {
			what += "/" + sub
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.refused == nil {
		r.mu.refused = map[string]map[string]bool{}
	}
	name := a.GetUser().GetName()
	if r.mu.refused[name] == nil {
		r.mu.refused[name] = map[string]bool{}
	}
	r.mu.refused[name][what] = true
}

func (r *roles) authorizer() authorizer.Authorizer {
	return authz.Chain(nil, authz.Named{Type: "RBAC", Name: "RBAC", Authorizer: r})
}

// attach makes the roles that every cluster has and begins to judge by them.
func (r *roles) attach(ctx context.Context, s *apiserver.Server) error {
	kind := func(resource string) *api.Kind {
		return s.Kinds().Resource(rbacv1.SchemeGroupVersion.WithResource(resource)).Kind
	}
	r.judge.Store(rbac.New(s.Cache(), rbac.Kinds{Role: kind("roles"), RoleBinding: kind("rolebindings"),
		ClusterRole: kind("clusterroles"), ClusterRoleBinding: kind("clusterrolebindings")}))
	ensure := bootstrap.Ensure
	if s.Kinds().Resource(schedulingv1beta1.SchemeGroupVersion.WithResource("podgroups")) != nil {
		ensure = bootstrap.EnsureWithGroups
	}
	return ensure(ctx, direct.New(s.Self(), nil))
}
