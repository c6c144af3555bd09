// SPDX-License-Identifier: Apache-2.0

package kajitest

import (
	"context"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
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

// roles judges by RBAC once the server's cache is there.
type roles struct {
	judge atomic.Pointer[rbac.Authorizer]
}

// Authorize implements authorizer.UnconditionalAuthorizer.
func (r *roles) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if judge := r.judge.Load(); judge != nil {
		return judge.Authorize(ctx, a)
	}
	return authorizer.DecisionNoOpinion, "", nil
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
	return bootstrap.Ensure(ctx, direct.New(s.Self(), nil))
}
