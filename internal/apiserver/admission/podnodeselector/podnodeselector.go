// SPDX-License-Identifier: Apache-2.0

// Package podnodeselector is the admission plug-in PodNodeSelector: a namespace's
// annotation, or the configuration for all others, says on which nodes its pods
// run, and the configuration bounds what labels they may ask for.
//
// The API server's admission chain calls it.
package podnodeselector

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled and configured by.
const Name = "PodNodeSelector"

const (
	annotation = "scheduler.alpha.kubernetes.io/node-selector"
	// standard is the configuration's entry for namespaces without annotation.
	standard = "clusterDefaultNodeSelector"
)

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct {
	read      admission.Reader
	selectors map[string]string // by namespace
}

var (
	_ admission.Mutator   = (*Plugin)(nil)
	_ admission.Validator = (*Plugin)(nil)
)

// New returns the plug-in; it reads namespaces from read. The configuration is
// {"podNodeSelectorPluginConfig": {NAMESPACE: SELECTOR}} as YAML or JSON.
func New(read admission.Reader, configuration []byte) (*Plugin, error) {
	var given struct {
		Selectors map[string]string `json:"podNodeSelectorPluginConfig"`
	}
	if err := yaml.Unmarshal(configuration, &given); err != nil {
		return nil, err
	}
	return &Plugin{read: read, selectors: given.Selectors}, nil
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	pod := a.Pod()
	if pod == nil {
		return nil
	}
	selector, err := p.selector(ctx, a.Namespace)
	if err != nil {
		return err
	}
	if labels.Conflicts(selector, pod.Spec.NodeSelector) {
		return conflict(a, pod)
	}
	pod.Spec.NodeSelector = labels.Merge(selector, pod.Spec.NodeSelector)
	return p.Validate(ctx, a)
}

func conflict(a *admission.Attributes, pod *corev1.Pod) error {
	return apierrors.NewForbidden(a.Resource.GroupResource(), pod.Name, errors.New("pod node label selector conflicts with its namespace node label selector"))
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	pod := a.Pod()
	if pod == nil {
		return nil
	}
	selector, err := p.selector(ctx, a.Namespace)
	if err != nil {
		return err
	}
	if labels.Conflicts(selector, pod.Spec.NodeSelector) {
		return conflict(a, pod)
	}
	allowed, err := labels.ConvertSelectorToLabelsMap(p.selectors[a.Namespace])
	if err != nil {
		return err
	}
	for key, value := range pod.Spec.NodeSelector {
		if has, ok := allowed[key]; len(allowed) > 0 && (!ok || has != value) {
			return apierrors.NewForbidden(a.Resource.GroupResource(), pod.Name, errors.New("pod node label selector labels conflict with its namespace whitelist"))
		}
	}
	return nil
}

// selector returns what nodes the pods of a namespace run on.
func (p *Plugin) selector(ctx context.Context, name string) (labels.Set, error) {
	ns, found, err := admission.Find[*corev1.Namespace](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Namespace"), "", name)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if !found {
		return nil, apierrors.NewInternalError(errors.New("namespace " + name + " does not exist"))
	}
	text, ok := ns.Annotations[annotation]
	if !ok {
		text = p.selectors[standard]
	}
	return labels.ConvertSelectorToLabelsMap(text)
}
