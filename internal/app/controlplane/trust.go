// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api"
	"kaji/internal/apiserver"
	"kaji/internal/apiserver/authn"
	"kaji/internal/apiserver/authn/serviceaccount"
	"kaji/internal/apiserver/authz"
	"kaji/internal/apiserver/authz/node"
	"kaji/internal/apiserver/authz/rbac"
	"kaji/internal/apiserver/authz/rbac/bootstrap"
	"kaji/internal/apiserver/authz/rbac/escalate"
	"kaji/internal/apiserver/impersonate"
	"kaji/internal/apiserver/review"
	"kaji/internal/apiserver/verb"
)

// trust is who may do what. It is an authorizer itself: the authorizers read
// the server's cache, which exists only once the server does.
type trust struct {
	authorizer.Authorizer
	modes         []string
	audiences     authenticator.Audiences
	authenticator authenticator.Request
	issuer        *serviceaccount.Issuer
	keys          *Keys
	rules         authorizer.RuleResolver
	guard         *escalate.Guard
	impersonation *impersonate.Metrics
}

func newTrust(o *Options, keys *Keys, objects serviceaccount.Objects) (*trust, error) {
	t := &trust{modes: o.Authorization.Modes, audiences: o.Authentication.APIAudiences, keys: keys,
		guard: &escalate.Guard{}, impersonation: impersonate.NewMetrics()}
	if len(t.audiences) == 0 {
		t.audiences = o.ServiceAccount.Issuers[:1]
	}
	tokens, err := t.tokens(o, objects)
	if err != nil {
		return nil, err
	}
	cfg := authn.Config{
		ClientCA:  func() *x509.CertPool { return keys.ClientCAs },
		Tokens:    tokens,
		Audiences: t.audiences,
		RequestHeader: &authn.RequestHeader{ClientCA: func() *x509.CertPool { return keys.ProxyCAs }, AllowedNames: o.Authentication.RequestHeaderNames,
			UsernameHeaders: o.Authentication.RequestHeaderUsers, UIDHeaders: o.Authentication.RequestHeaderUIDs,
			GroupHeaders: o.Authentication.RequestHeaderGroups, ExtraHeaderPrefixes: o.Authentication.RequestHeaderExtraPrefix},
	}
	if o.Authentication.Anonymous && !slices.Contains(o.Authorization.Modes, "AlwaysAllow") {
		cfg.Anonymous = func(string) bool { return true }
	}
	t.authenticator = authn.New(cfg)
	t.issuer, err = serviceaccount.NewIssuer(serviceaccount.Issuer{URL: o.ServiceAccount.Issuers[0], Audiences: t.audiences,
		MaxExpiration: o.ServiceAccount.MaxExpiration, Extend: o.ServiceAccount.ExtendExpiration, Objects: objects}, keys.Signing)
	return t, err
}

func (t *trust) tokens(o *Options, objects serviceaccount.Objects) ([]authenticator.Token, error) {
	var tokens []authenticator.Token
	if o.Authentication.TokenFile != "" {
		file, err := os.Open(o.Authentication.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-auth-file: %w", err)
		}
		defer file.Close()
		static, err := authn.TokenFile(file)
		if err != nil {
			return nil, fmt.Errorf("--token-auth-file %s: %w", o.Authentication.TokenFile, err)
		}
		tokens = append(tokens, authenticator.WrapAudienceAgnosticToken(t.audiences, static))
	}
	accounts, err := serviceaccount.NewValidator(o.ServiceAccount.Issuers, t.keys.Verifying, t.audiences, objects)
	if err != nil {
		return nil, err
	}
	return append(tokens, accounts), nil
}

func (t *trust) usesRBAC() bool { return slices.Contains(t.modes, "RBAC") }

// attach builds the authorizers over the server's cache.
func (t *trust) attach(s *apiserver.Server) error {
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
	var chain []authz.Named
	add := func(name string, a authorizer.UnconditionalAuthorizer) {
		chain = append(chain, authz.Named{Name: name, Authorizer: a})
	}
	var resolvers []authorizer.RuleResolver
	for _, mode := range t.modes {
		switch mode {
		case "AlwaysAllow":
			add("alwaysallow", always(authorizer.DecisionAllow))
		case "AlwaysDeny":
			add("alwaysdeny", always(authorizer.DecisionNoOpinion))
		case "Node":
			rules, err := bootstrap.ClusterRoleRules("system:node")
			if err != nil {
				return err
			}
			add("node", node.New(s.Cache(), node.Kinds{
				Pod: kind(corev1.SchemeGroupVersion, "pods"), PersistentVolume: kind(corev1.SchemeGroupVersion, "persistentvolumes"),
				PersistentVolumeClaim: kind(corev1.SchemeGroupVersion, "persistentvolumeclaims"),
				VolumeAttachment:      kind(storagev1.SchemeGroupVersion, "volumeattachments"),
				ResourceClaim:         kind(resourcev1.SchemeGroupVersion, "resourceclaims"),
			}, rules))
		case "RBAC":
			add("rbac", roles)
			resolvers = append(resolvers, roles)
		}
	}
	t.Authorizer, t.rules = authz.Chain(chain...), authz.Rules(resolvers...)
	return nil
}

// impersonate is the station where requests become another user's.
func (t *trust) impersonate() func(http.Handler) http.Handler {
	return impersonate.Station(impersonate.Config{Authorizer: t, Metrics: t.impersonation})
}

type always authorizer.Decision

// Authorize implements authorizer.UnconditionalAuthorizer.
func (a always) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	if authorizer.Decision(a) == authorizer.DecisionAllow {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "Everything is forbidden.", nil
}

// reviews answers the kinds that ask about users and rights.
func (t *trust) reviews() map[schema.GroupResource]verb.Virtual {
	return review.Config{Authenticator: t.authenticator, Audiences: t.audiences, Authorizer: t, Rules: t}.Virtual()
}

// RulesFor implements authorizer.RuleResolver with the resolvers attach made.
func (t *trust) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return t.rules.RulesFor(ctx, u, namespace)
}

// routes serves the issuer's discovery documents.
func (t *trust) routes(host string) map[string]http.Handler {
	document := func(contentType string, make func() ([]byte, error)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			data, err := make()
			if err != nil {
				http.Error(w, "the keys cannot be published", http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Cache-Control", "public, max-age=3600")
			// The client may be gone; there is nobody to tell then.
			_, _ = w.Write(data)
		})
	}
	return map[string]http.Handler{
		"/.well-known/openid-configuration": document("application/json", func() ([]byte, error) {
			return serviceaccount.Discovery(t.issuer.URL, "https://"+host+"/openid/v1/jwks", t.keys.Verifying)
		}),
		"/openid/v1/jwks": document("application/jwk-set+json", func() ([]byte, error) { return serviceaccount.KeySet(t.keys.Verifying) }),
	}
}
