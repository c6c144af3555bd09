// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api"
	machine "kaji/internal/apiserver"
	"kaji/internal/apiserver/authz/node"
	"kaji/internal/apiserver/authz/rbac"
	"kaji/internal/apiserver/authz/rbac/bootstrap"
	"kaji/internal/apiserver/authz/structured"
	"kaji/internal/apiserver/reload"
)

// authorization reads which authorizers there are to be, from the file or the
// flags.
func (t *trust) authorization(o *Options) error {
	a := &o.Authorization
	if a.ConfigFile == "" {
		var err error
		t.authorizers, err = structured.Flags{Modes: a.Modes, WebhookConfigFile: a.WebhookConfigFile, WebhookVersion: a.WebhookVersion,
			AuthorizedTTL: a.WebhookAuthorizedTTL, UnauthorizedTTL: a.WebhookUnauthorizedTTL}.Config()
		return err
	}
	data, err := os.ReadFile(a.ConfigFile)
	if err != nil {
		return fmt.Errorf("--authorization-config: %w", err)
	}
	if t.authorizers, err = structured.Load(data); err != nil {
		return fmt.Errorf("--authorization-config %s: %w", a.ConfigFile, err)
	}
	metrics := reload.NewMetrics("authorization_config_controller", "authorization configuration", serverID())
	t.collectors = append(t.collectors, metrics.Collectors()...)
	t.follow(data, &reload.Follower{Path: a.ConfigFile, Metrics: metrics, Logger: t.log, Apply: func(_ context.Context, data []byte) error {
		changed, err := structured.Load(data)
		if err != nil {
			return err
		}
		return t.Authorizer.Use(changed)
	}})
	return nil
}

// uses says whether an authorizer of a type is in the chain.
func uses(config *apiserver.AuthorizationConfiguration, kind string) bool {
	for i := range config.Authorizers {
		if string(config.Authorizers[i].Type) == kind {
			return true
		}
	}
	return false
}

// attach builds the authorizers over the server's cache.
func (t *trust) attach(s *machine.Server) error {
	kind := func(gv schema.GroupVersion, resource string) *api.Kind {
		if served := s.Kinds().Resource(gv.WithResource(resource)); served != nil {
			return served.Kind
		}
		return nil
	}
	of := func(resource string) *api.Kind { return kind(rbacv1.SchemeGroupVersion, resource) }
	roles := rbac.New(s.Cache(), rbac.Kinds{Role: of("roles"), RoleBinding: of("rolebindings"),
		ClusterRole: of("clusterroles"), ClusterRoleBinding: of("clusterrolebindings")})
	t.guard.Rules, t.guard.Authorizer = roles, t
	rules, err := bootstrap.ClusterRoleRules("system:node")
	if err != nil {
		return err
	}
	nodes := node.New(s.Cache(), node.Kinds{
		Pod: kind(corev1.SchemeGroupVersion, "pods"), PersistentVolume: kind(corev1.SchemeGroupVersion, "persistentvolumes"),
		PersistentVolumeClaim: kind(corev1.SchemeGroupVersion, "persistentvolumeclaims"),
		VolumeAttachment:      kind(storagev1.SchemeGroupVersion, "volumeattachments"),
		ResourceClaim:         kind(resourcev1.SchemeGroupVersion, "resourceclaims"),
		PodCertificateRequest: kind(certificatesv1.SchemeGroupVersion, "podcertificaterequests"),
	}, rules)
	t.Authorizer.Builtin = func(kind string) (authorizer.UnconditionalAuthorizer, authorizer.RuleResolver, error) {
		switch kind {
		case "AlwaysAllow":
			return always(authorizer.DecisionAllow), always(authorizer.DecisionAllow), nil
		case "AlwaysDeny":
			return always(authorizer.DecisionNoOpinion), nil, nil
		case "Node":
			return nodes, nodes, nil
		case "RBAC":
			return roles, roles, nil
		}
		return nil, nil, fmt.Errorf("authorization-mode %q is not a valid mode", kind)
	}
	return t.Authorizer.Use(t.authorizers)
}

// always allows or refuses everything.
type always authorizer.Decision

// Authorize implements authorizer.UnconditionalAuthorizer.
func (a always) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	if authorizer.Decision(a) == authorizer.DecisionAllow {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "Everything is forbidden.", nil
}

// RulesFor implements authorizer.RuleResolver.
func (a always) RulesFor(context.Context, user.Info, string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	all := []string{"*"}
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: all, APIGroups: all, Resources: all}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: all, NonResourceURLs: all}}, false, nil
}
