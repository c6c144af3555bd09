// SPDX-License-Identifier: Apache-2.0

// Package podsecurity is the admission plug-in PodSecurity: namespaces name the
// Pod Security Standard their pods must meet, be audited for, or be warned of.
// The standards, the labels and every message are those of upstream's library
// (k8s.io/pod-security-admission); this package feeds it with the server's own
// objects and turns its answers into errors, warnings and audit annotations.
//
// The API server's admission chain calls it. It writes nothing, and the checks
// are not even built before a namespace asks for a standard.
package podsecurity

import (
	"context"
	"errors"
	"fmt"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/warning"
	podsecurity "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/admission/api/load"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/request"
)

// Name is what the plug-in is enabled and configured by.
const Name = "PodSecurity"

// Config configures the plug-in. Cache and Kinds are needed.
type Config struct {
	// Cache and Kinds are the server's: namespaces and pods are read there.
	Cache *cache.Cache
	Kinds *request.Kinds
	// Configuration is a PodSecurityConfiguration as YAML or JSON; empty means
	// upstream's defaults: privileged everywhere, no exemptions.
	Configuration []byte
}

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct {
	standards *podsecurity.Admission
	metrics   *recorder
}

var _ admission.Validator = (*Plugin)(nil)

// New returns the plug-in, or an error when the configuration is not valid.
func New(cfg Config) (*Plugin, error) {
	configuration, err := load.LoadFromData(cfg.Configuration)
	if err != nil {
		return nil, err
	}
	p := &Plugin{metrics: newRecorder()}
	objects := reader{cfg.Cache, cfg.Kinds}
	p.standards = &podsecurity.Admission{
		Configuration: configuration, Metrics: p.metrics,
		Evaluator:        &checks{build: sync.OnceValue(buildChecks)},
		PodSpecExtractor: podsecurity.DefaultPodSpecExtractor{},
		NamespaceGetter:  objects, PodLister: objects,
	}
	if err := p.standards.CompleteConfiguration(); err != nil {
		return nil, fmt.Errorf("%s configuration error: %w", Name, err)
	}
	if err := p.standards.ValidateConfiguration(); err != nil {
		return nil, fmt.Errorf("%s invalid: %w", Name, err)
	}
	return p, nil
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	gr := a.Resource.GroupResource()
	if gr != corev1.Resource("namespaces") && !p.standards.PodSpecExtractor.HasPodSpec(gr) {
		return nil
	}
	answer := p.standards.Validate(ctx, attributes{a})
	for _, w := range answer.Warnings {
		warning.AddWarning(ctx, "", w)
	}
	for key, value := range answer.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, psapi.AuditAnnotationPrefix+key, value)
	}
	if answer.Allowed {
		return nil
	}
	return refusal(a, answer.Result)
}

// refusal is a Forbidden with whatever the library says better.
func refusal(a *admission.Attributes, said *metav1.Status) error {
	err := a.Forbidden(errors.New("Not allowed by PodSecurity"))
	var status *apierrors.StatusError
	if said == nil || !errors.As(err, &status) {
		return err
	}
	if said.Message != "" {
		status.ErrStatus.Message = said.Message
	}
	if said.Reason != "" {
		status.ErrStatus.Reason = said.Reason
	}
	if said.Details != nil {
		status.ErrStatus.Details = said.Details
	}
	if said.Code != 0 {
		status.ErrStatus.Code = said.Code
	}
	return status
}

// checks builds the standards' checks at first use.
type checks struct{ build func() policy.Evaluator }

// EvaluatePod implements policy.Evaluator.
func (c *checks) EvaluatePod(lv psapi.LevelVersion, meta *metav1.ObjectMeta, spec *corev1.PodSpec) []policy.CheckResult {
	return c.build().EvaluatePod(lv, meta, spec)
}

func buildChecks() policy.Evaluator {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err) // the library's own checks do not fit together: its tests say otherwise
	}
	return e
}

// attributes are ours as the library sees them.
type attributes struct{ a *admission.Attributes }

func (t attributes) GetName() string                          { return t.a.Name }
func (t attributes) GetNamespace() string                     { return t.a.Namespace }
func (t attributes) GetResource() schema.GroupVersionResource { return t.a.Resource }
func (t attributes) GetKind() schema.GroupVersionKind         { return t.a.Kind }
func (t attributes) GetSubresource() string                   { return t.a.Subresource }
func (t attributes) GetOperation() admissionv1.Operation      { return admissionv1.Operation(t.a.Operation) }
func (t attributes) GetObject() (runtime.Object, error)       { return t.a.Object, nil }
func (t attributes) GetOldObject() (runtime.Object, error)    { return t.a.Old, nil }

func (t attributes) GetUserName() string {
	if t.a.User == nil {
		return ""
	}
	return t.a.User.GetName()
}

// reader reads namespaces and pods from the server's cache.
type reader struct {
	cache *cache.Cache
	kinds *request.Kinds
}

func (r reader) kind(name string) (*api.Kind, error) {
	s := r.kinds.Kind(corev1.SchemeGroupVersion.WithKind(name))
	if s == nil {
		return nil, fmt.Errorf("%s is not served", name)
	}
	return s.Kind, nil
}

// GetNamespace implements the library's NamespaceGetter.
func (r reader) GetNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	kind, err := r.kind("Namespace")
	if err != nil {
		return nil, err
	}
	entry, found, err := r.cache.Get(ctx, kind, "", name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, apierrors.NewNotFound(kind.GroupResource(), name)
	}
	ns, ok := entry.Object.(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("namespace %s is a %T", name, entry.Object)
	}
	return ns, nil
}

// ListPods implements the library's PodLister.
func (r reader) ListPods(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
	kind, err := r.kind("Pod")
	if err != nil {
		return nil, err
	}
	snapshot, err := r.cache.Snapshot(ctx, kind)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for entry := range snapshot.All(namespace, "") {
		if pod, ok := entry.Object.(*corev1.Pod); ok {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}
