// SPDX-License-Identifier: Apache-2.0

// Package priority is the admission plug-in Priority: a new pod gets the value
// and the preemption policy of its PriorityClass, or of the class that is the
// default, a new group of pods the value, and only one class may be the default.
//
// The API server's admission chain calls it.
package priority

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "Priority"

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
func (p *Plugin) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	if a.Is(schedulingv1beta1.GroupName, "podgroups", "") && a.Operation == admission.Create {
		return p.assignGroup(ctx, a)
	}
	if !a.Is("", "pods", "") {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	if a.Operation == admission.Create {
		return p.assign(ctx, a, pod)
	}
	// Whoever leaves out what was assigned does not mean to take it away.
	if old, ok := a.Old.(*corev1.Pod); ok {
		if pod.Spec.Priority == nil {
			pod.Spec.Priority = old.Spec.Priority
		}
		if pod.Spec.PreemptionPolicy == nil {
			pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
		}
	}
	return nil
}

func (p *Plugin) assign(ctx context.Context, a *admission.Attributes, pod *corev1.Pod) error {
	class, err := p.classOf(ctx, a, pod.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	value, policy := int32(0), corev1.PreemptLowerPriority
	if class != nil {
		value, pod.Spec.PriorityClassName = class.Value, class.Name
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	if has := pod.Spec.Priority; has != nil && *has != value {
		return a.Forbidden(fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *has, value))
	}
	pod.Spec.Priority = &value
	if has := pod.Spec.PreemptionPolicy; has != nil && *has != policy {
		return a.Forbidden(fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *has, policy))
	}
	pod.Spec.PreemptionPolicy = &policy
	return nil
}

// assignGroup gives a group of pods its priority.
func (p *Plugin) assignGroup(ctx context.Context, a *admission.Attributes) error {
	group, ok := a.Object.(*schedulingv1beta1.PodGroup)
	if !ok {
		return nil
	}
	class, err := p.classOf(ctx, a, group.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	value := int32(0)
	if class != nil {
		value, group.Spec.PriorityClassName = class.Value, class.Name
	}
	if has := group.Spec.Priority; has != nil && *has != value {
		return a.Forbidden(fmt.Errorf("priority set in the pod group (%d) must match the priority computed (%d) based on the priority class set in the spec", *has, value))
	}
	group.Spec.Priority = &value
	return nil
}

// classOf returns the named class or the default one, nil when there is none.
func (p *Plugin) classOf(ctx context.Context, a *admission.Attributes, name string) (*schedulingv1.PriorityClass, error) {
	if name == "" {
		class, err := p.standard(ctx)
		if err != nil {
			return nil, fmt.Errorf("failed to get default priority class: %w", err)
		}
		return class, nil
	}
	class, found, err := admission.Find[*schedulingv1.PriorityClass](ctx, p.read, schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"), "", name)
	if err != nil {
		return nil, fmt.Errorf("failed to get PriorityClass with name %s: %w", name, err)
	}
	if !found {
		return nil, a.Forbidden(fmt.Errorf("no PriorityClass with name %v was found", name))
	}
	return class, nil
}

// standard returns the class that is the default, nil when none is. Should
// several say so, the one of the lowest value wins.
func (p *Plugin) standard(ctx context.Context) (found *schedulingv1.PriorityClass, err error) {
	err = admission.Each(ctx, p.read, schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"), "", func(c *schedulingv1.PriorityClass) bool {
		if c.GlobalDefault && (found == nil || c.Value < found.Value) {
			found = c
		}
		return true
	})
	return found, err
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if !a.Is(schedulingv1.GroupName, "priorityclasses", "") {
		return nil
	}
	class, ok := a.Object.(*schedulingv1.PriorityClass)
	if !ok || !class.GlobalDefault {
		return nil
	}
	other, err := p.standard(ctx)
	if err != nil {
		return fmt.Errorf("failed to get default priority class: %w", err)
	}
	if other != nil && (a.Operation == admission.Create || other.Name != class.Name) {
		return a.Forbidden(fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", other.Name))
	}
	return nil
}
