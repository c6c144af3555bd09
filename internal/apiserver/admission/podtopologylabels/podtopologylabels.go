// SPDX-License-Identifier: Apache-2.0

// Package podtopologylabels is the admission plug-in PodTopologyLabels: when a
// pod is bound to a node, or made on one, it gets the labels that say in which
// zone and region the node is.
//
// The API server's admission chain calls it. Labels that are there already stay.
package podtopologylabels

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "PodTopologyLabels"

// copied are the labels of nodes that pods get.
var copied = [...]string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ read admission.Reader }

var _ admission.Mutator = (*Plugin)(nil)

// New returns the plug-in; it reads nodes from read.
func New(read admission.Reader) *Plugin { return &Plugin{read: read} }

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	if a.Resource.Group != "" || a.Resource.Resource != "pods" {
		return nil
	}
	switch obj := a.Object.(type) {
	case *corev1.Pod:
		if a.Subresource == "" && obj.Spec.NodeName != "" {
			return p.label(ctx, obj, obj.Spec.NodeName)
		}
	case *corev1.Binding:
		// Its labels become the pod's.
		if a.Subresource == "binding" && obj.Target.Kind == "Node" {
			return p.label(ctx, obj, obj.Target.Name)
		}
	}
	return nil
}

func (p *Plugin) label(ctx context.Context, obj api.Object, node string) error {
	n, found, err := admission.Find[*corev1.Node](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Node"), "", node)
	if err != nil || !found {
		return err
	}
	labels := obj.GetLabels()
	for _, key := range copied {
		value, ok := n.Labels[key]
		if !ok {
			continue
		}
		if labels == nil {
			labels = map[string]string{}
			obj.SetLabels(labels)
		}
		if _, has := labels[key]; !has {
			labels[key] = value
		}
	}
	return nil
}
