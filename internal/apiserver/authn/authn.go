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
	"fmt"
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
	// It is called for every request that brings a certificate, so that a
	// changed bundle, which is another pool, takes effect at once.
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
	chain.smuggled = []*RequestHeader{{UsernameHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"},
		GroupHeaders: []string{"X-Remote-Group"}, ExtraHeaderPrefixes: []string{"X-Remote-Extra-"}}}
	if c.RequestHeader != nil {
		chain.smuggled = append(chain.smuggled, c.RequestHeader)
		chain.ways = append(chain.ways, c.RequestHeader)
	}
	if c.ClientCA != nil {
		chain.ways = append(chain.ways, &certificates{roots: c.ClientCA})
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
	// smuggled are headers that would name a user to servers behind this one:
	// no request brings them further.
	smuggled []*RequestHeader
}

// AuthenticateRequest implements authenticator.Request.
func (c *chain) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	// A TokenReview asks for other audiences than the server's own.
	audiences, asked := authenticator.AudiencesFrom(r.Context())
	if !asked {
		audiences = c.audiences
		r = r.WithContext(authenticator.WithAudiences(r.Context(), audiences))
	}
	var failed []error
	for _, way := range c.ways {
		response, ok, err := way.AuthenticateRequest(r)
		if ok {
			if !acceptable(audiences, response.Audiences) {
				failed = append(failed, fmt.Errorf("unable to match the audience: %v , accepted: %v", response.Audiences, audiences))
				continue
			}
			c.strip(r)
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
	c.strip(r)
	return &authenticator.Response{
		User:      &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}},
		Audiences: audiences,
	}, true, nil
}

func (c *chain) strip(r *http.Request) {
	for _, h := range c.smuggled {
		h.strip(r.Header)
	}
}

// acceptable says whether a credential is for this server; one without
// audiences is.
func acceptable(own, granted authenticator.Audiences) bool {
	return len(own) == 0 || len(granted) == 0 || len(own.Intersect(granted)) > 0
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
