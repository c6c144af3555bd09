// SPDX-License-Identifier: Apache-2.0

// Package nodetaint is the admission plug-in TaintNodesByCondition: a new node
// is tainted as not ready until the controller of nodes has seen it, so that
// nothing is placed on it before.
//
// The API server's admission chain calls it.
package nodetaint

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "TaintNodesByCondition"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{}

var _ admission.Mutator = Plugin{}

// Name implements admission.Plugin.
func (Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (Plugin) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (Plugin) Mutate(_ context.Context, a *admission.Attributes) error {
	if !a.Is("", "nodes", "") {
		return nil
	}
	node, ok := a.Object.(*corev1.Node)
	if !ok {
		return nil
	}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
		node.Spec.Taints = append(node.Spec.Taints, taint)
	}
	return nil
}
