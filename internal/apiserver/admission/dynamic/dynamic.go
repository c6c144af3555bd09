// SPDX-License-Identifier: Apache-2.0

// Package dynamic are the admission plug-ins that users define: mutating and
// validating webhooks and admission policies. They are upstream's own plug-ins
// (k8s.io/apiserver), fed with the server's own objects through a few thin
// adapters, so that rules, ordering and messages are theirs.
//
// The API server adds the two plug-ins, one that mutates and one that
// validates, to its admission chain. Nothing is constructed before the first
// configuration exists: a cluster without any pays two look-ups a write.
package dynamic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	upstream "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/util/webhook"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/request"
	"kaji/internal/client"
)

// Names of the plug-ins, in the order they run.
const (
	MutatingPolicy    = "MutatingAdmissionPolicy"
	MutatingWebhook   = "MutatingAdmissionWebhook"
	ValidatingPolicy  = "ValidatingAdmissionPolicy"
	ValidatingWebhook = "ValidatingAdmissionWebhook"
)

// Config configures the plug-ins. All but Disabled, Configurations, Services,
// Reinvoke and Logger are needed.
type Config struct {
	Cache *cache.Cache
	Kinds *request.Kinds
	// Client is the API server itself; its informers must have been started.
	Client client.Interface
	// Schemas are the OpenAPI documents, for policies that apply.
	Schemas Schemas
	// Authorizer answers the variable authorizer of expressions.
	Authorizer authorizer.Authorizer
	// Disabled names plug-ins that are left out.
	Disabled []string
	// Configurations are those of the plug-ins by name, such as the
	// credentials of a WebhookAdmissionConfiguration.
	Configurations map[string][]byte
	// Services finds the Services of webhooks; nil means their names in DNS.
	Services webhook.ServiceResolver
	// Reinvoke are the mutating plug-ins before these; they run again when a
	// webhook that asks for it changed an object.
	Reinvoke admission.Chain
	Logger   *slog.Logger
}

// Plugins are the two halves of the package. They are safe for concurrent use.
type Plugins struct {
	cfg Config

	done chan struct{} // closed when Run ends

	mutating, validating half
}

// half is the mutating or the validating plug-ins.
type half struct {
	plugins []string // of upstream, enabled ones in order
	watched []schema.GroupResource

	once  sync.Once
	chain upstream.Interface
	err   error
}

// New returns the plug-ins. They work while Run does.
func New(cfg Config) *Plugins {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Plugins{cfg: cfg, done: make(chan struct{})}
	add := func(h *half, plugin, resource string) {
		if !slices.Contains(cfg.Disabled, plugin) {
			h.plugins = append(h.plugins, plugin)
			h.watched = append(h.watched, schema.GroupResource{Group: admissionregistrationv1.GroupName, Resource: resource})
		}
	}
	add(&p.mutating, MutatingPolicy, "mutatingadmissionpolicybindings")
	add(&p.mutating, MutatingWebhook, "mutatingwebhookconfigurations")
	add(&p.validating, ValidatingPolicy, "validatingadmissionpolicybindings")
	add(&p.validating, ValidatingWebhook, "validatingwebhookconfigurations")
	return p
}

// Run ends what the plug-ins have running when ctx ends.
func (p *Plugins) Run(ctx context.Context) error {
	<-ctx.Done()
	close(p.done)
	return ctx.Err()
}

// Mutator returns the plug-in that changes objects.
func (p *Plugins) Mutator() admission.Mutator { return mutator{p} }

// Validator returns the plug-in that refuses them.
func (p *Plugins) Validator() admission.Validator { return validator{p} }

// idle says that no configuration of the half exists.
func (p *Plugins) idle(ctx context.Context, h *half) (bool, error) {
	for _, gr := range h.watched {
		kind := p.kind(gr)
		if kind == nil {
			continue
		}
		at, err := p.cfg.Cache.Snapshot(ctx, kind)
		if err != nil {
			return false, err
		}
		if at.Len() > 0 {
			return false, nil
		}
	}
	return true, nil
}

func (p *Plugins) kind(gr schema.GroupResource) *api.Kind {
	if s := p.cfg.Kinds.Resource(gr.WithVersion("v1")); s != nil {
		return s.Kind
	}
	return nil
}

// chainOf returns a half's upstream plug-ins, constructed at first use.
func (p *Plugins) chainOf(h *half) (upstream.Interface, error) {
	h.once.Do(func() { h.chain, h.err = p.build(h) })
	return h.chain, h.err
}

// handled are the operations both plug-ins want to see.
func handled(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update || op == admission.Delete || op == admission.Connect
}

type mutator struct{ p *Plugins }

// Name implements admission.Plugin.
func (m mutator) Name() string { return MutatingWebhook }

// Handles implements admission.Plugin.
func (m mutator) Handles(op admission.Operation) bool { return handled(op) }

// Mutate implements admission.Mutator.
func (m mutator) Mutate(ctx context.Context, a *admission.Attributes) error {
	if idle, err := m.p.idle(ctx, &m.p.mutating); idle || err != nil {
		return err
	}
	chain, err := m.p.chainOf(&m.p.mutating)
	if err != nil {
		return fmt.Errorf("admission webhooks and policies: %w", err)
	}
	admit, ok := chain.(upstream.MutationInterface)
	if !ok {
		return errors.New("admission chain does not mutate")
	}
	return admit.Admit(withAttributes(ctx, a), attributesOf(ctx, a), &objects{m.p.cfg.Kinds})
}

type validator struct{ p *Plugins }

// Name implements admission.Plugin.
func (v validator) Name() string { return ValidatingWebhook }

// Handles implements admission.Plugin.
func (v validator) Handles(op admission.Operation) bool { return handled(op) }

// Validate implements admission.Validator.
func (v validator) Validate(ctx context.Context, a *admission.Attributes) error {
	if idle, err := v.p.idle(ctx, &v.p.validating); idle || err != nil {
		return err
	}
	chain, err := v.p.chainOf(&v.p.validating)
	if err != nil {
		return fmt.Errorf("admission webhooks and policies: %w", err)
	}
	validate, ok := chain.(upstream.ValidationInterface)
	if !ok {
		return errors.New("admission chain does not validate")
	}
	return validate.Validate(ctx, attributesOf(ctx, a), &objects{v.p.cfg.Kinds})
}
