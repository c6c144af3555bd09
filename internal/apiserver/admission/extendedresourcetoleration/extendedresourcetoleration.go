// SPDX-License-Identifier: Apache-2.0

// Package extendedresourcetoleration is the admission plug-in
// ExtendedResourceToleration: nodes with special hardware can be tainted with the
// name of the resource, and pods that ask for it tolerate that by themselves.
//
// The API server's admission chain calls it.
package extendedresourcetoleration

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/admission/toleration"
)

// Name is what the plug-in is enabled by.
const Name = "ExtendedResourceToleration"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{}

var _ admission.Mutator = Plugin{}

// Name implements admission.Plugin.
func (Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Mutate implements admission.Mutator.
func (Plugin) Mutate(_ context.Context, a *admission.Attributes) error {
	pod := a.Pod()
	if pod == nil {
		return nil
	}
	var names []string
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			for name := range containers[i].Resources.Requests {
				if extended(name) {
					names = append(names, string(name))
				}
			}
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		toleration.Add(&pod.Spec, corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	return nil
}

// extended says whether a resource is none of Kubernetes' own.
func extended(name corev1.ResourceName) bool {
	s := string(name)
	if !strings.Contains(s, "/") || strings.Contains(s, corev1.ResourceDefaultNamespacePrefix) || strings.HasPrefix(s, corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	// It has to be a name with the prefix of quotas before it, too.
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+s)) == 0
}
