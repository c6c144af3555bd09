// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"kaji/internal/apiserver/authn/oidc"
	"kaji/internal/apiserver/authn/serviceaccount"
	"kaji/internal/apiserver/authz"
	"kaji/internal/apiserver/authz/rbac/escalate"
	"kaji/internal/apiserver/authz/structured"
	"kaji/internal/apiserver/impersonate"
	"kaji/internal/apiserver/reload"
	"kaji/internal/apiserver/review"
	"kaji/internal/apiserver/verb"
	"kaji/internal/client"
	"kaji/internal/lifecycle"
)

// trust is who may do what. It is an authorizer itself: the authorizers read
// the server's cache, which exists only once the server does.
type trust struct {
	*structured.Authorizer
	log           *slog.Logger
	authorizers   *apiserver.AuthorizationConfiguration
	audiences     authenticator.Audiences
	authenticator authenticator.Request
	issuer        *serviceaccount.Issuer
	keys          *Keys
	oidc          *oidc.Authenticator // nil without OpenID issuers
	legacy        *legacyTokens
	guard         *escalate.Guard
	impersonation *impersonate.Metrics
	collectors    []prometheus.Collector
	files         []followed
}

// followed is a file whose changes are taken over.
type followed struct {
	*reload.Follower
	applied []byte
}

func newTrust(ctx context.Context, o *Options, keys *Keys, objects serviceaccount.Objects, log *slog.Logger) (*trust, error) {
	t := &trust{log: log, audiences: o.Authentication.APIAudiences, keys: keys, legacy: newLegacyTokens(),
		guard: &escalate.Guard{}, impersonation: impersonate.NewMetrics()}
	decisions := authz.NewMetrics()
	t.Authorizer = &structured.Authorizer{Metrics: decisions}
	t.collectors = append(decisions.Collectors(), t.impersonation.Collectors()...)
	if len(t.audiences) == 0 {
		t.audiences = o.ServiceAccount.Issuers[:1]
	}
	if err := t.authorization(o); err != nil {
		return nil, err
	}
	if err := t.authenticate(ctx, o, objects); err != nil {
		return nil, err
	}
	var err error
	t.issuer, err = serviceaccount.NewIssuer(serviceaccount.Issuer{URL: o.ServiceAccount.Issuers[0], Audiences: t.audiences,
		MaxExpiration: o.ServiceAccount.MaxExpiration, Extend: o.ServiceAccount.ExtendExpiration, Objects: objects}, keys.Signing)
	if err != nil {
		t.close()
	}
	return t, err
}

// follow has a file's changes taken over while the server runs.
func (t *trust) follow(applied []byte, f *reload.Follower) {
	t.files = append(t.files, followed{f, applied})
}

// run adds what is to run beside the server.
func (t *trust) run(group *lifecycle.Group, self client.Interface) {
	for _, f := range t.files {
		group.Go("reload of "+f.Path, func(ctx context.Context) error { return f.Run(ctx, f.applied) })
	}
	group.Go("legacy tokens", func(ctx context.Context) error { return t.legacy.run(ctx, self) })
}

// close ends what New started.
func (t *trust) close() {
	if t.oidc != nil {
		t.oidc.Close()
	}
}

// serverID names this server in metrics, by its host's name as upstream does.
func serverID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	sum := sha256.Sum256([]byte(host))
	return "apiserver-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

func (t *trust) usesRBAC() bool { return uses(t.authorizers, "RBAC") }

// impersonate is the station where requests become another user's.
func (t *trust) impersonate() func(http.Handler) http.Handler {
	return impersonate.Station(impersonate.Config{Authorizer: t, Metrics: t.impersonation})
}

// reviews answers the kinds that ask about users and rights.
func (t *trust) reviews() map[schema.GroupResource]verb.Virtual {
	return review.Config{Authenticator: t.authenticator, Audiences: t.audiences, Authorizer: t, Rules: t}.Virtual()
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
