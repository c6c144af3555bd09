// SPDX-License-Identifier: Apache-2.0

// Package runtimeclass is the admission plug-in RuntimeClass: a pod that names a
// RuntimeClass gets the overhead, the node selector and the tolerations that the
// class brings, and no pod may claim an overhead of its own.
//
// The API server's admission chain calls it.
package runtimeclass

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation/path"

	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/admission/toleration"
)

// Name is what the plug-in is enabled by.
const Name = "RuntimeClass"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ read admission.Reader }

var (
	_ admission.Mutator   = (*Plugin)(nil)
	_ admission.Validator = (*Plugin)(nil)
)

// New returns the plug-in; it reads classes from read.
func New(read admission.Reader) *Plugin { return &Plugin{read: read} }

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	pod, class, err := p.objects(ctx, a)
	if err != nil || pod == nil || class == nil {
		return err
	}
	if class.Overhead != nil {
		if pod.Spec.Overhead != nil && !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return mismatch(a)
		}
		pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	if err := selectNodes(a, pod, class.Scheduling.NodeSelector); err != nil {
		return err
	}
	pod.Spec.Tolerations = toleration.Merge(pod.Spec.Tolerations, class.Scheduling.DeepCopy().Tolerations)
	return nil
}

func mismatch(a *admission.Attributes) error {
	return a.Forbidden(errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
}

// selectNodes adds the class's node selector to the pod's.
func selectNodes(a *admission.Attributes, pod *corev1.Pod, selector map[string]string) error {
	if pod.Spec.NodeSelector == nil {
		pod.Spec.NodeSelector = maps.Clone(selector)
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(selector)) {
		want := selector[key]
		if has, ok := pod.Spec.NodeSelector[key]; ok && has != want {
			return a.Forbidden(fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, want, key, has))
		}
		pod.Spec.NodeSelector[key] = want
	}
	return nil
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	pod, class, err := p.objects(ctx, a)
	switch {
	case err != nil || pod == nil:
		return err
	case class != nil && class.Overhead != nil:
		if !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return mismatch(a)
		}
	case pod.Spec.Overhead != nil:
		return a.Forbidden(errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	}
	return nil
}

// objects returns the pod, nil when the request is about something else, and
// its class, nil when it names none.
func (p *Plugin) objects(ctx context.Context, a *admission.Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	if !a.Is("", "pods", "") {
		return nil, nil, nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || pod.Spec.RuntimeClassName == nil {
		return pod, nil, nil
	}
	name := *pod.Spec.RuntimeClassName
	if name == "" {
		return nil, nil, errors.New("resource name may not be empty")
	}
	if wrong := path.IsValidPathSegmentName(name); len(wrong) > 0 {
		return nil, nil, fmt.Errorf("invalid resource name %q: %v", name, wrong)
	}
	class, found, err := admission.Find[*nodev1.RuntimeClass](ctx, p.read, nodev1.SchemeGroupVersion.WithKind("RuntimeClass"), "", name)
	if err != nil {
		return nil, nil, err
	}
	if !found {
		return nil, nil, a.Forbidden(fmt.Errorf("pod rejected: RuntimeClass %q not found", name))
	}
	return pod, class, nil
}
