// SPDX-License-Identifier: Apache-2.0

// Package structured builds the chain of authorizers from an
// AuthorizationConfiguration, or from the flags that say the same, and exchanges
// it when the file changes. It also makes the authorizers that ask a webhook.
//
// The wiring hands over the authorizers there is one of each (Node, RBAC, …).
package structured

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"

	"kaji/internal/apiserver/authz"
)

// modeWebhook is the one type that may stand in a chain several times.
const modeWebhook = "Webhook"

// types are all there are.
var types = []string{"AlwaysAllow", "AlwaysDeny", "Node", "RBAC", modeWebhook}

// Load reads an AuthorizationConfiguration of any version there is, strictly,
// and says what is wrong with it by the field's path.
func Load(data []byte) (*apiserver.AuthorizationConfiguration, error) {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	obj, err := runtime.Decode(codecs.UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	config, ok := obj.(*apiserver.AuthorizationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected AuthorizationConfiguration, got %T", obj)
	}
	errs := validation.ValidateAuthorizationConfiguration(authorizationcel.NewDefaultCompiler(), nil, config, sets.New(types...), sets.New(modeWebhook))
	return config, errs.ToAggregate()
}

// Flags are the chain as --authorization-mode and --authorization-webhook-*
// name it.
type Flags struct {
	Modes                          []string
	WebhookConfigFile              string
	WebhookVersion                 string
	AuthorizedTTL, UnauthorizedTTL time.Duration
}

// Config is the configuration that says the same.
func (f Flags) Config() (*apiserver.AuthorizationConfiguration, error) {
	config := &apiserver.AuthorizationConfiguration{}
	for _, mode := range f.Modes {
		a := apiserver.AuthorizerConfiguration{Type: apiserver.AuthorizerType(mode), Name: strings.ToLower(mode)}
		switch mode {
		case modeWebhook:
			if f.WebhookConfigFile == "" {
				return nil, fmt.Errorf("authorization-mode Webhook's authorization config file not passed")
			}
			a.Name = "default"
			a.Webhook = &apiserver.WebhookConfiguration{
				AuthorizedTTL: metav1.Duration{Duration: f.AuthorizedTTL}, UnauthorizedTTL: metav1.Duration{Duration: f.UnauthorizedTTL},
				CacheAuthorizedRequests: true, CacheUnauthorizedRequests: true,
				Timeout: metav1.Duration{Duration: 30 * time.Second}, FailurePolicy: apiserver.FailurePolicyNoOpinion,
				SubjectAccessReviewVersion: f.WebhookVersion,
				ConnectionInfo:             apiserver.WebhookConnectionInfo{Type: apiserver.AuthorizationWebhookConnectionInfoTypeKubeConfigFile, KubeConfigFile: &f.WebhookConfigFile},
			}
		case "ABAC":
			return nil, fmt.Errorf("authorization-mode ABAC is not supported; use RBAC")
		}
		config.Authorizers = append(config.Authorizers, a)
	}
	return config, nil
}

// Builtin returns the one authorizer of a type, with what knows a user's rules
// (may be nil).
type Builtin func(kind string) (authorizer.UnconditionalAuthorizer, authorizer.RuleResolver, error)

// Authorizer asks the chain configured last. It is safe for concurrent use.
type Authorizer struct {
	Builtin Builtin
	// Metrics counts decisions; nil counts none.
	Metrics *authz.Metrics

	live atomic.Pointer[chain]
}

type chain struct {
	authorizer.Authorizer
	rules authorizer.RuleResolver
}

var (
	_ authorizer.Authorizer   = (*Authorizer)(nil)
	_ authorizer.RuleResolver = (*Authorizer)(nil)
)

// Use takes a configuration over, or returns why it cannot be and keeps the
// former one.
func (a *Authorizer) Use(config *apiserver.AuthorizationConfiguration) error {
	var named []authz.Named
	var resolvers []authorizer.RuleResolver
	for i := range config.Authorizers {
		c := &config.Authorizers[i]
		var next authorizer.UnconditionalAuthorizer
		var rules authorizer.RuleResolver
		var err error
		if c.Type == modeWebhook {
			next, err = newWebhook(c)
			rules = noRules{"webhook authorizer"}
		} else {
			next, rules, err = a.Builtin(string(c.Type))
		}
		if err != nil {
			return fmt.Errorf("authorizer %s: %w", c.Name, err)
		}
		named = append(named, authz.Named{Type: string(c.Type), Name: c.Name, Authorizer: next})
		if rules != nil {
			resolvers = append(resolvers, rules)
		}
	}
	a.live.Store(&chain{authz.Chain(a.Metrics, named...), authz.Rules(resolvers...)})
	return nil
}

// Authorize implements authorizer.Authorizer.
func (a *Authorizer) Authorize(ctx context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	return a.live.Load().Authorize(ctx, attrs)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, attrs authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return a.live.Load().ConditionsAwareAuthorize(ctx, attrs)
}

// EvaluateConditions implements authorizer.Authorizer.
func (a *Authorizer) EvaluateConditions(ctx context.Context, decision authorizer.ConditionsAwareDecision, data authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return a.live.Load().EvaluateConditions(ctx, decision, data)
}

// RulesFor implements authorizer.RuleResolver.
func (a *Authorizer) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return a.live.Load().rules.RulesFor(ctx, u, namespace)
}

// noRules is an authorizer that cannot list what it would allow.
type noRules struct{ what string }

func (n noRules) RulesFor(context.Context, user.Info, string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return nil, nil, true, fmt.Errorf("%s does not support user rule resolution", n.what)
}
