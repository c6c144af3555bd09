// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base32"
	"log/slog"
	"net"
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
	t.issuer = serviceaccount.NewIssuer(serviceaccount.Issuer{URL: o.ServiceAccount.Issuers[0], Audiences: t.audiences,
		MaxExpiration: o.ServiceAccount.MaxExpiration, Extend: o.ServiceAccount.ExtendExpiration, Objects: objects}, keys.Signing)
	return t, nil
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
	group.Go("service account key", func(ctx context.Context) error {
		_, err := t.keys.Signing()
		if err == nil {
			<-ctx.Done()
		}
		return err
	})
	group.Go("legacy tokens", func(ctx context.Context) error { return t.legacy.run(ctx, self) })
}

// close ends what New started.
func (t *trust) close() {
	if t.oidc != nil {
		t.oidc.Close()
	}
}

// serverID names this server in metrics and by a Lease, by its host's name as
// upstream does.
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

// routes serves the issuer's discovery documents. Where nothing else is said the
// keys are where the client found the server, if the server's certificate is for
// that name, and else at host.
func (t *trust) routes(o *Options, host string) map[string]http.Handler {
	document := func(contentType string, make func(r *http.Request, keys []crypto.PublicKey) ([]byte, error)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			keys, err := t.keys.Verifying()
			if err != nil {
				http.Error(w, "the keys cannot be published", http.StatusInternalServerError)
				return
			}
			data, err := make(r, keys)
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
		"/.well-known/openid-configuration": document("application/json", func(r *http.Request, keys []crypto.PublicKey) ([]byte, error) {
			return serviceaccount.Discovery(t.issuer.URL, t.keysAt(o, host, r.Host), keys)
		}),
		"/openid/v1/jwks": document("application/jwk-set+json", func(_ *http.Request, keys []crypto.PublicKey) ([]byte, error) {
			return serviceaccount.KeySet(keys)
		}),
	}
}

func (t *trust) keysAt(o *Options, host, asked string) string {
	if uri := o.ServiceAccount.JWKSURI; uri != "" {
		return uri
	}
	_, port, _ := net.SplitHostPort(host)
	if external := o.Serving.ExternalHostname; external != "" {
		host = net.JoinHostPort(external, port)
	} else if name, _, err := net.SplitHostPort(asked); err == nil {
		if leaf := t.keys.Serving.get().Leaf; leaf != nil && leaf.VerifyHostname(name) == nil {
			host = asked
		}
	}
	return "https://" + host + "/openid/v1/jwks"
}
