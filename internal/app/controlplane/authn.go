// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"kaji/internal/apiserver/authn"
	"kaji/internal/apiserver/authn/bootstraptoken"
	"kaji/internal/apiserver/authn/oidc"
	"kaji/internal/apiserver/authn/serviceaccount"
	"kaji/internal/apiserver/authn/webhook"
	"kaji/internal/apiserver/reload"
)

// issuersReady bounds how long new issuers of a changed file may take.
const issuersReady = time.Minute

// authenticate puts together who is recognised.
func (t *trust) authenticate(ctx context.Context, o *Options, objects serviceaccount.Objects) error {
	a := &o.Authentication
	tokens, err := t.ownTokens(o, objects)
	if err != nil {
		return err
	}
	config, err := t.issuers(ctx, o)
	if err != nil {
		return err
	}
	if t.oidc != nil {
		tokens = append(tokens, t.oidc)
	}
	if a.WebhookConfigFile != "" {
		hook, err := webhook.New(a.WebhookConfigFile, a.WebhookVersion, t.audiences, a.WebhookCacheTTL)
		if err != nil {
			return fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
		}
		tokens = append(tokens, hook)
	}
	t.authenticator = authn.New(authn.Config{
		ClientCA: func() *x509.CertPool { return t.keys.ClientCAs.get() },
		RequestHeader: &authn.RequestHeader{ClientCA: func() *x509.CertPool { return t.keys.ProxyCAs.get() }, AllowedNames: a.RequestHeaderNames,
			UsernameHeaders: a.RequestHeaderUsers, UIDHeaders: a.RequestHeaderUIDs,
			GroupHeaders: a.RequestHeaderGroups, ExtraHeaderPrefixes: a.RequestHeaderExtraPrefix},
		Tokens: tokens, Audiences: t.audiences, Anonymous: t.anonymous(o, config),
	})
	return nil
}

// anonymous says who may come without a credential. Where everything is
// allowed nobody may.
func (t *trust) anonymous(o *Options, config *apiserver.AuthenticationConfiguration) func(path string) bool {
	enabled := o.Authentication.Anonymous
	var paths []string
	if config != nil && config.Anonymous != nil {
		enabled = config.Anonymous.Enabled
		for _, c := range config.Anonymous.Conditions {
			paths = append(paths, c.Path)
		}
	}
	if !enabled || uses(t.authorizers, "AlwaysAllow") {
		return nil
	}
	return func(path string) bool { return len(paths) == 0 || slices.Contains(paths, path) }
}

// ownTokens are the sorts of tokens the cluster itself makes or lists.
func (t *trust) ownTokens(o *Options, objects serviceaccount.Objects) ([]authenticator.Token, error) {
	var tokens []authenticator.Token
	if path := o.Authentication.TokenFile; path != "" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--token-auth-file: %w", err)
		}
		defer file.Close()
		static, err := authn.TokenFile(file)
		if err != nil {
			return nil, fmt.Errorf("--token-auth-file %s: %w", path, err)
		}
		tokens = append(tokens, authenticator.WrapAudienceAgnosticToken(t.audiences, static))
	}
	accounts := serviceaccount.NewValidator(o.ServiceAccount.Issuers, t.keys.Verifying, t.audiences, objects)
	accounts.Used, accounts.Metrics = t.legacy.used, serviceaccount.NewMetrics()
	t.collectors = append(t.collectors, accounts.Metrics.Collectors()...)
	tokens = append(tokens, accounts)
	if o.Authentication.BootstrapToken {
		nodes := &bootstraptoken.Authenticator{Objects: bootstraptoken.Objects(objects), Logger: t.log}
		tokens = append(tokens, authenticator.WrapAudienceAgnosticToken(t.audiences, nodes))
	}
	return tokens, nil
}

// issuers reads which OpenID issuers are trusted, from the file or the flags,
// and returns the file's configuration.
func (t *trust) issuers(ctx context.Context, o *Options) (*apiserver.AuthenticationConfiguration, error) {
	a := &o.Authentication
	switch {
	case a.ConfigFile != "":
		data, err := os.ReadFile(a.ConfigFile)
		if err != nil {
			return nil, fmt.Errorf("--authentication-config: %w", err)
		}
		config, err := loadAuthentication(data, o)
		if err != nil {
			return nil, fmt.Errorf("--authentication-config %s: %w", a.ConfigFile, err)
		}
		t.oidc = oidc.New(oidc.Options{OwnIssuers: o.ServiceAccount.Issuers, ServerID: serverID()})
		metrics := reload.NewMetrics("authentication_config_controller", "authentication configuration", serverID())
		t.collectors = append(t.collectors, metrics.Collectors()...)
		t.follow(data, &reload.Follower{Path: a.ConfigFile, Metrics: metrics, Logger: t.log, Apply: func(ctx context.Context, data []byte) error {
			changed, err := loadAuthentication(data, o)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, issuersReady)
			defer cancel()
			return t.oidc.Use(ctx, changed, true)
		}})
		return config, t.oidc.Use(ctx, config, false)
	case a.OIDC.IssuerURL != "":
		config, err := oidc.Flags{IssuerURL: a.OIDC.IssuerURL, ClientID: a.OIDC.ClientID, CAFile: a.OIDC.CAFile,
			UsernameClaim: a.OIDC.UsernameClaim, UsernamePrefix: a.OIDC.UsernamePrefix,
			GroupsClaim: a.OIDC.GroupsClaim, GroupsPrefix: a.OIDC.GroupsPrefix, RequiredClaims: a.OIDC.RequiredClaims}.Config()
		if err != nil {
			return nil, err
		}
		if err := oidc.Validate(config, o.ServiceAccount.Issuers); err != nil {
			return nil, fmt.Errorf("--oidc-*: %w", err)
		}
		t.oidc = oidc.New(oidc.Options{OwnIssuers: o.ServiceAccount.Issuers, ServerID: serverID(), Algorithms: a.OIDC.SigningAlgorithms})
		return nil, t.oidc.Use(ctx, config, false)
	}
	return nil, nil
}

func loadAuthentication(data []byte, o *Options) (*apiserver.AuthenticationConfiguration, error) {
	config, err := oidc.Load(data)
	if err != nil {
		return nil, err
	}
	if config.Anonymous != nil && o.anonymousSet {
		return nil, errors.New("--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file")
	}
	return config, oidc.Validate(config, o.ServiceAccount.Issuers)
}
