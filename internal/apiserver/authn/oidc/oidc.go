// SPDX-License-Identifier: Apache-2.0

// Package oidc recognises the tokens of OpenID Connect issuers that an
// AuthenticationConfiguration or the flags --oidc-* name. The wiring builds one
// Authenticator and gives it another configuration when the file changes.
//
// Tokens are verified, and CEL mappings evaluated, by upstream's own package.
// Nothing of it runs unless an issuer is configured.
package oidc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	upstream "k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// Options are the same for all configurations.
type Options struct {
	// Algorithms that tokens may be signed by; all asymmetric ones when nil.
	Algorithms []string
	// OwnIssuers are the cluster's own, which no configuration may name.
	OwnIssuers []string
	// ServerID names this server in metrics.
	ServerID string
}

// Authenticator judges tokens of the issuers configured last. It implements
// authenticator.Token and is safe for concurrent use.
type Authenticator struct {
	options Options

	mu   sync.Mutex // held while a configuration is exchanged
	live atomic.Pointer[issuers]
}

var _ authenticator.Token = (*Authenticator)(nil)

// issuers are those of one configuration; stop ends their background work.
type issuers struct {
	each []upstream.AuthenticatorTokenWithHealthCheck
	stop context.CancelFunc
}

// New returns an authenticator that knows no issuer yet.
func New(options Options) *Authenticator {
	if options.Algorithms == nil {
		options.Algorithms = upstream.AllValidSigningAlgorithms()
	}
	return &Authenticator{options: options}
}

// Use takes a configuration over. Keys are fetched in the background; with
// ready the issuers are exchanged only once all keys are there or ctx ends,
// which is an error and keeps the former ones.
func (a *Authenticator) Use(ctx context.Context, config *apiserver.AuthenticationConfiguration, ready bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	// They live until the next configuration, not until the call returns.
	lifetime, stop := context.WithCancel(context.WithoutCancel(ctx))
	next := &issuers{stop: stop}
	compiler := authenticationcel.NewDefaultCompiler()
	for _, jwt := range config.JWT {
		options := upstream.Options{JWTAuthenticator: jwt, Compiler: compiler, SupportedSigningAlgs: a.options.Algorithms,
			DisallowedIssuers: a.options.OwnIssuers, APIServerID: a.options.ServerID}
		if ca := jwt.Issuer.CertificateAuthority; ca != "" {
			options.CAContentProvider = authority(ca)
		}
		issuer, err := upstream.New(lifetime, options)
		if err != nil {
			stop()
			return err
		}
		next.each = append(next.each, issuer)
	}
	if ready {
		if err := next.wait(ctx); err != nil {
			stop()
			return err
		}
	}
	if former := a.live.Swap(next); former != nil {
		former.stop()
	}
	return nil
}

// authority is a certificate bundle that does not change.
type authority string

func (a authority) CurrentCABundleContent() []byte { return []byte(a) }

// wait returns once every issuer's keys are there.
func (i *issuers) wait(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var failed []error
		for _, issuer := range i.each {
			if err := issuer.HealthCheck(); err != nil {
				failed = append(failed, err)
			}
		}
		if len(failed) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("issuers are not ready: %w", errors.Join(append(failed, ctx.Err())...))
		}
	}
}

// Close ends all background work.
func (a *Authenticator) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if former := a.live.Swap(nil); former != nil {
		former.stop()
	}
}

// AuthenticateToken implements authenticator.Token.
func (a *Authenticator) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	live := a.live.Load()
	if live == nil {
		return nil, false, nil
	}
	var failed []error
	for _, issuer := range live.each {
		response, ok, err := issuer.AuthenticateToken(ctx, token)
		if ok {
			return response, true, nil
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return nil, false, utilerrors.NewAggregate(failed)
}
