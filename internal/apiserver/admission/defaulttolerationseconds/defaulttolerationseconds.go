// SPDX-License-Identifier: Apache-2.0

// Package defaulttolerationseconds is the admission plug-in
// DefaultTolerationSeconds: a pod that does not say how long it stays on a node
// that is not ready, or cannot be reached, stays there for a while.
//
// The API server's admission chain calls it.
package defaulttolerationseconds

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "DefaultTolerationSeconds"

// Config configures the plug-in.
type Config struct {
	// NotReady and Unreachable are how long pods stay, in seconds; nil means
	// upstream's 300.
	NotReady, Unreachable *int64
}

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ notReady, unreachable int64 }

var _ admission.Mutator = (*Plugin)(nil)

// New returns the plug-in.
func New(cfg Config) *Plugin {
	p := &Plugin{notReady: 300, unreachable: 300}
	if cfg.NotReady != nil {
		p.notReady = *cfg.NotReady
	}
	if cfg.Unreachable != nil {
		p.unreachable = *cfg.Unreachable
	}
	return p
}

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(_ context.Context, a *admission.Attributes) error {
	if !a.Is("", "pods", "") {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	notReady, unreachable := tolerates(pod, corev1.TaintNodeNotReady), tolerates(pod, corev1.TaintNodeUnreachable)
	if !notReady {
		stay(pod, corev1.TaintNodeNotReady, p.notReady)
	}
	if !unreachable {
		stay(pod, corev1.TaintNodeUnreachable, p.unreachable)
	}
	return nil
}

// tolerates says whether the pod says itself what it does about a taint.
func tolerates(pod *corev1.Pod, key string) bool {
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}

func stay(pod *corev1.Pod, key string, seconds int64) {
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
		Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
	})
}
