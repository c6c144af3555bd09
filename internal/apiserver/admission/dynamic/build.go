// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"bytes"
	"context"
	"io"

	"k8s.io/apimachinery/pkg/runtime/schema"
	upstream "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	webhookinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/resolve"
)

// inTree is the name under which the plug-ins of the server stand in the chain
// that webhooks may have run again.
const inTree = "InTree"

// build constructs a half's upstream plug-ins and starts them.
func (p *Plugins) build(h *half) (upstream.Interface, error) {
	known := upstream.NewPlugins()
	mutatingpolicy.Register(known)
	mutatingwebhook.Register(known)
	validatingpolicy.Register(known)
	validatingwebhook.Register(known)
	known.Register(inTree, func(io.Reader) (upstream.Interface, error) { return again{p.cfg.Reinvoke}, nil })
	names := h.plugins
	if h == &p.mutating {
		names = append([]string{inTree}, names...)
	}
	return known.NewFromPlugins(names, configurations(p.cfg.Configurations), &wiring{p}, nil)
}

// configurations gives plug-ins their own.
type configurations map[string][]byte

// ConfigFor implements upstream's ConfigProvider.
func (c configurations) ConfigFor(name string) (io.Reader, error) {
	if given := c[name]; len(given) > 0 {
		return bytes.NewReader(given), nil
	}
	return nil, nil
}

// excluded are the resources that no webhook or policy sees: answers to them
// are what webhooks may need to be authenticated and authorized themselves.
func excluded() []schema.GroupResource {
	return []schema.GroupResource{
		{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"},
		{Group: "authentication.k8s.io", Resource: "tokenreviews"},
		{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"},
		{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
	}
}

// maxAnswer bounds the answer of a webhook, in bytes: a patch is no longer than
// a few objects, and those are at most 3 MiB long.
const maxAnswer = 16 << 20

// wiring gives each plug-in what it asks for.
type wiring struct{ p *Plugins }

// Initialize implements upstream's PluginInitializer.
func (w *wiring) Initialize(plugin upstream.Interface) {
	cfg := &w.p.cfg
	if wants, ok := plugin.(initializer.WantsFeatures); ok {
		wants.InspectFeatureGates(utilfeature.DefaultFeatureGate)
	}
	if wants, ok := plugin.(initializer.WantsDrainedNotification); ok {
		wants.SetDrainedNotification(w.p.done)
	}
	if wants, ok := plugin.(initializer.WantsExternalKubeClientSet); ok {
		wants.SetExternalKubeClientSet(&clientset{client: cfg.Client, schemas: cfg.Schemas})
	}
	if wants, ok := plugin.(initializer.WantsExternalKubeInformerFactory); ok {
		wants.SetExternalKubeInformerFactory(&factory{client: cfg.Client})
	}
	if wants, ok := plugin.(initializer.WantsDynamicClient); ok {
		wants.SetDynamicClient(anyResource{client: cfg.Client})
	}
	if wants, ok := plugin.(initializer.WantsRESTMapper); ok {
		wants.SetRESTMapper(&mapper{kinds: cfg.Kinds})
	}
	if wants, ok := plugin.(initializer.WantsUnconditionalAuthorizer); ok {
		wants.SetUnconditionalAuthorizer(cfg.Authorizer)
	}
	if wants, ok := plugin.(initializer.WantsExcludedAdmissionResources); ok {
		wants.SetExcludedAdmissionResources(excluded())
	}
	if wants, ok := plugin.(webhookinit.WantsAuthenticationInfoResolverWrapper); ok {
		wants.SetAuthenticationInfoResolverWrapper(resolve.Guard(maxAnswer))
	}
	if wants, ok := plugin.(webhookinit.WantsServiceResolver); ok && cfg.Services != nil {
		wants.SetServiceResolver(cfg.Services)
	}
}

// again runs the server's own mutating plug-ins when a webhook asks for them
// to be run again. In the first pass they have run already.
type again struct{ chain admission.Chain }

// Handles implements upstream's admission.Interface.
func (a again) Handles(upstream.Operation) bool { return len(a.chain) > 0 }

// Admit implements upstream's admission.MutationInterface.
func (a again) Admit(ctx context.Context, attr upstream.Attributes, _ upstream.ObjectInterfaces) error {
	own := attributesFrom(ctx)
	if own == nil || !attr.GetReinvocationContext().IsReinvoke() {
		return nil
	}
	return a.chain.Mutate(ctx, own)
}
