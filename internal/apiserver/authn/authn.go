// SPDX-License-Identifier: Apache-2.0

// Package authn says who sends a request: by client certificate, bearer token
// or the headers of a trusted front proxy. The API server's handler chain calls
// the one authenticator that New builds.
//
// It decides nothing about what a user may do, and it never logs a credential.
package authn

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Config lists the ways to be recognised; those left empty are off.
type Config struct {
	// RequestHeader trusts the headers of a front proxy.
	RequestHeader *RequestHeader
	// ClientCA returns the authorities that sign client certificates, or nil.
	// It is called for every handshake that brings a certificate, so that a
	// changed bundle takes effect at once.
	ClientCA func() *x509.CertPool
	// Tokens judge bearer tokens, tried in order.
	Tokens []authenticator.Token
	// Anonymous lets requests without credentials pass as system:anonymous; it
	// is asked for each request's path. Nil lets none pass.
	Anonymous func(path string) bool
	// Audiences are those of the API server itself.
	Audiences authenticator.Audiences
}

// New returns the authenticator of a configuration. Its order is upstream's:
// front proxy, certificate, tokens, and anonymous only for requests that bring
// no credential at all or none that anybody judges.
func New(c Config) authenticator.Request {
	chain := &chain{anonymous: c.Anonymous, audiences: c.Audiences}
	if c.RequestHeader != nil {
		chain.ways = append(chain.ways, c.RequestHeader)
	}
	if c.ClientCA != nil {
		chain.ways = append(chain.ways, certificates{c.ClientCA})
	}
	if len(c.Tokens) > 0 {
		chain.ways = append(chain.ways, bearer{tokens: c.Tokens})
	}
	return chain
}

type chain struct {
	ways      []authenticator.Request
	anonymous func(path string) bool
	audiences authenticator.Audiences
}

// AuthenticateRequest implements authenticator.Request.
func (c *chain) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if len(c.audiences) > 0 {
		r = r.WithContext(authenticator.WithAudiences(r.Context(), c.audiences))
	}
	var failed []error
	for _, way := range c.ways {
		response, ok, err := way.AuthenticateRequest(r)
		if ok {
			return &authenticator.Response{User: authenticated(response.User), Audiences: response.Audiences}, true, nil
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return nil, false, utilerrors.NewAggregate(failed)
	}
	if c.anonymous == nil || !c.anonymous(r.URL.Path) {
		return nil, false, nil
	}
	return &authenticator.Response{
		User:      &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}},
		Audiences: c.audiences,
	}, true, nil
}

// authenticated adds the group of all who were recognised.
func authenticated(u user.Info) user.Info {
	if u.GetName() == user.Anonymous {
		return u
	}
	groups := u.GetGroups()
	for _, g := range groups {
		if g == user.AllAuthenticated || g == user.AllUnauthenticated {
			return u
		}
	}
	return &user.DefaultInfo{
		Name: u.GetName(), UID: u.GetUID(), Extra: u.GetExtra(),
		Groups: append(groups[:len(groups):len(groups)], user.AllAuthenticated),
	}
}

// Union tries tokens in order until one recognises the token. An error is
// returned only when none does.
func Union(tokens ...authenticator.Token) authenticator.Token {
	return authenticator.TokenFunc(func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
		var failed []error
		for _, t := range tokens {
			response, ok, err := t.AuthenticateToken(ctx, token)
			if ok {
				return response, true, nil
			}
			if err != nil {
				failed = append(failed, err)
			}
		}
		return nil, false, utilerrors.NewAggregate(failed)
	})
}

// errInvalidToken is what a bearer token nobody recognises gets.
var errInvalidToken = errors.New("invalid bearer token")
