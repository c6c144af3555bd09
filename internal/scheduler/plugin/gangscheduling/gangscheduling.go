// SPDX-License-Identifier: Apache-2.0

// Package gangscheduling is the plugin GangScheduling: pods of a gang wait until
// as many of them are there as its minCount says, and none of them is bound
// before so many have nodes. It is enabled by the feature gate GenericWorkload.
package gangscheduling

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/podgroup"
)

// Name is the plugin's name.
const Name = "GangScheduling"

// patience is how long a pod with a node waits for the rest of its gang.
const patience = 5 * time.Minute

// Plugin implements PreEnqueue, Permit and the judgement of groups.
type Plugin struct {
	h      plugin.Handle
	groups *podgroup.Groups
}

// New returns the plugin; groups is nil when the gate is off.
func New(h plugin.Handle, groups *podgroup.Groups) *Plugin { return &Plugin{h: h, groups: groups} }

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// PreEnqueue implements plugin.PreEnqueuer.
func (p *Plugin) PreEnqueue(pod *corev1.Pod) *plugin.Status {
	key, in := podgroup.KeyOf(pod)
	if !in || p.groups == nil {
		return nil
	}
	g := p.groups.Get(key)
	if g == nil || g.Object == nil {
		return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, fmt.Sprintf("waiting for pods's pod group %q to appear in scheduling queue", key.Name))
	}
	if g.Gang() && g.Len() < g.MinCount() {
		return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "waiting for minCount pods from a gang to appear in scheduling queue")
	}
	return nil
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	joins := func(pod *corev1.Pod, _, after any) bool {
		added, ok := after.(*corev1.Pod)
		if !ok {
			return true
		}
		mine, in := podgroup.KeyOf(pod)
		its, too := podgroup.KeyOf(added)
		return in && too && mine == its
	}
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.UnscheduledPod, Action: plugin.Add}, Worth: joins},
		{Event: plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Add}, Worth: joins},
		{Event: plugin.Event{Resource: plugin.PodGroup, Action: plugin.Add}, Worth: func(pod *corev1.Pod, _, after any) bool {
			return belongs(pod, after)
		}},
		{Event: plugin.Event{Resource: plugin.PodGroup, Action: plugin.Update}, Worth: func(pod *corev1.Pod, before, after any) bool {
			return belongs(pod, after) && fewer(before, after)
		}},
	}
}

func belongs(pod *corev1.Pod, group any) bool {
	key, in := podgroup.KeyOf(pod)
	g, ok := group.(*schedulingv1beta1.PodGroup)
	return in && ok && key == podgroup.Key{Namespace: g.Namespace, Name: g.Name}
}

// fewer says whether less pods are needed than before.
func fewer(before, after any) bool {
	b, ok := before.(*schedulingv1beta1.PodGroup)
	a, too := after.(*schedulingv1beta1.PodGroup)
	if !ok || !too {
		return true
	}
	old, now := b.Spec.SchedulingPolicy.Gang, a.Spec.SchedulingPolicy.Gang
	return old != nil && now != nil && now.MinCount < old.MinCount
}

// Permit implements plugin.Permitter: it counts pods that have a node, bound or
// not.
func (p *Plugin) Permit(_ context.Context, c *plugin.Cycle, _ string) (*plugin.Status, time.Duration) {
	g := p.groups.Of(c.Pod.Object)
	if _, in := podgroup.KeyOf(c.Pod.Object); !in || p.groups == nil {
		return nil, 0
	}
	if g == nil {
		key, _ := podgroup.KeyOf(c.Pod.Object)
		return plugin.AsStatus(Name, fmt.Errorf("failed to get podGroup %s/%s: podgroup.scheduling.k8s.io %q not found", key.Namespace, key.Name, key.Name)), 0
	}
	if !g.Gang() {
		return nil, 0
	}
	scheduled := g.Scheduled(c.Snapshot)
	if len(scheduled) < g.MinCount() {
		return plugin.NewStatus(Name, plugin.Wait, "waiting for minCount pods from a gang to be scheduled"), patience
	}
	var allowed []types.UID
	for _, member := range scheduled {
		allowed = append(allowed, member.UID())
	}
	for _, uid := range allowed {
		p.h.Allow(uid, Name)
	}
	return nil, 0
}

// Feasible implements plugin.GroupJudge.
func (p *Plugin) Feasible(g *podgroup.Group, scheduled, remaining int) *plugin.Status {
	switch need := g.MinCount(); {
	case scheduled+remaining < need:
		return plugin.NewStatus(Name, plugin.Unschedulable, fmt.Sprintf("minCount (%d) cannot be satisfied: %d scheduled, %d remaining", need, scheduled, remaining))
	case scheduled < need:
		return plugin.NewStatus(Name, plugin.Wait, fmt.Sprintf("minCount (%d) is not yet satisfied: %d scheduled, %d remaining", need, scheduled, remaining))
	}
	return nil
}
