// SPDX-License-Identifier: Apache-2.0

// Package declaredfeatures is the admission plug-in
// NodeDeclaredFeatureValidator: a change of a running pod that only some nodes
// can carry out is refused where the pod's node has not declared the feature.
// What needs which feature is upstream's library.
//
// The API server's admission chain calls it.
package declaredfeatures

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	versionutil "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-base/version"
	features "k8s.io/component-helpers/nodedeclaredfeatures"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "NodeDeclaredFeatureValidator"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct {
	read    admission.Reader
	version *versionutil.Version
}

var _ admission.Validator = (*Plugin)(nil)

// New returns the plug-in; it reads nodes from read.
func New(read admission.Reader) (*Plugin, error) {
	v, err := versionutil.Parse(version.Get().String())
	if err != nil {
		return nil, fmt.Errorf("failed to parse version: %w", err)
	}
	return &Plugin{read: read, version: v}, nil
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op == admission.Update }

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if !a.Is("", "pods", "") && !a.Is("", "pods", "resize") {
		return nil
	}
	pod, is := a.Object.(*corev1.Pod)
	old, was := a.Old.(*corev1.Pod)
	// The generation tells whether the pod is to be anything else.
	if !is || !was || pod.Spec.NodeName == "" || pod.Generation == old.Generation {
		return nil
	}
	needs, err := features.DefaultFramework.InferForPodUpdate(
		&features.PodInfo{Spec: &old.Spec, Status: &old.Status}, &features.PodInfo{Spec: &pod.Spec, Status: &pod.Status}, p.version)
	if err != nil {
		return a.Forbidden(fmt.Errorf("failed to infer pod capability requirements: %w", err))
	}
	if needs.IsEmpty() {
		return nil
	}
	node, found, err := admission.Find[*corev1.Node](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Node"), "", pod.Spec.NodeName)
	if err != nil {
		return a.Forbidden(fmt.Errorf("failed to get node %q: %w", pod.Spec.NodeName, err))
	}
	if !found {
		return a.Forbidden(fmt.Errorf("node %q not found", pod.Spec.NodeName))
	}
	result, err := features.DefaultFramework.MatchNode(needs, node)
	if err != nil {
		return a.Forbidden(fmt.Errorf("failed to match pod requirements against node %q: %w", node.Name, err))
	}
	if !result.IsMatch {
		return a.Forbidden(fmt.Errorf("pod update requires features %s which are not available on node %q", strings.Join(result.UnsatisfiedRequirements, ", "), node.Name))
	}
	return nil
}
