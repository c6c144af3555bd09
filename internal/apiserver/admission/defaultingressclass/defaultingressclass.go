// SPDX-License-Identifier: Apache-2.0

// Package defaultingressclass is the admission plug-in DefaultIngressClass: a new
// Ingress that names no class gets the one that is marked as the default.
//
// The API server's admission chain calls it.
package defaultingressclass

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "DefaultIngressClass"

// annotation named the class before Ingresses had a field for it.
const annotation = "kubernetes.io/ingress.class"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ read admission.Reader }

var _ admission.Mutator = (*Plugin)(nil)

// New returns the plug-in; it reads classes from read.
func New(read admission.Reader) *Plugin { return &Plugin{read: read} }

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	if !a.Is(networkingv1.GroupName, "ingresses", "") {
		return nil
	}
	ingress, ok := a.Object.(*networkingv1.Ingress)
	if !ok || ingress.Spec.IngressClassName != nil {
		return nil
	}
	if _, named := ingress.Annotations[annotation]; named {
		return nil
	}
	class, err := p.standard(ctx)
	if err != nil {
		return a.Forbidden(err)
	}
	if class != "" {
		ingress.Spec.IngressClassName = &class
	}
	return nil
}

// standard returns the default class, "" when there is none: of several the
// youngest, and among those the first by name.
func (p *Plugin) standard(ctx context.Context) (string, error) {
	var best *networkingv1.IngressClass
	err := admission.Each(ctx, p.read, networkingv1.SchemeGroupVersion.WithKind("IngressClass"), "", func(c *networkingv1.IngressClass) bool {
		if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" && (best == nil || best.CreationTimestamp.Before(&c.CreationTimestamp)) {
			best = c
		}
		return true
	})
	if err != nil || best == nil {
		return "", err
	}
	return best.Name, nil
}
