// SPDX-License-Identifier: Apache-2.0

// Package antiaffinity is the admission plug-in LimitPodHardAntiAffinityTopology:
// a pod may keep others off its node, but not off a whole zone.
//
// The API server's admission chain calls it.
package antiaffinity

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "LimitPodHardAntiAffinityTopology"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{}

var _ admission.Validator = Plugin{}

// Name implements admission.Plugin.
func (Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.Validator.
func (Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	pod := a.Pod()
	if pod == nil || pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, term := range pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if term.TopologyKey != corev1.LabelHostname {
			return apierrors.NewForbidden(a.Resource.GroupResource(), pod.Name, fmt.Errorf(
				"affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", term.TopologyKey, corev1.LabelHostname))
		}
	}
	return nil
}
