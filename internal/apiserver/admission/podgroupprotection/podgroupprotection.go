// SPDX-License-Identifier: Apache-2.0

// Package podgroupprotection is the admission plug-in PodGroupProtection: a new
// PodGroup gets a finalizer, which a controller takes off when no pod of the
// group is left. The kind is there only with the feature gate GenericWorkload.
//
// The API server's admission chain calls it.
package podgroupprotection

import (
	"context"
	"slices"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "PodGroupProtection"

const finalizer = "scheduling.k8s.io/podgroup-protection"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{}

var _ admission.Mutator = Plugin{}

// Name implements admission.Plugin.
func (Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (Plugin) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (Plugin) Mutate(_ context.Context, a *admission.Attributes) error {
	if !a.Is(schedulingv1beta1.GroupName, "podgroups", "") {
		return nil
	}
	if g, ok := a.Object.(*schedulingv1beta1.PodGroup); ok && !slices.Contains(g.Finalizers, finalizer) {
		g.Finalizers = append(g.Finalizers, finalizer)
	}
	return nil
}
