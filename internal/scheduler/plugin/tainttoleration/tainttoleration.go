// SPDX-License-Identifier: Apache-2.0

// Package tainttoleration is the plugin TaintToleration: taints keep pods away
// that do not tolerate them, and PreferNoSchedule taints count against a node.
package tainttoleration

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "TaintToleration"

// Plugin implements Filter and Score.
type Plugin struct{ untolerated *plugin.Status }

// New returns the plugin.
func New() *Plugin {
	return &Plugin{plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) had untolerated taint(s)")}
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	for i := range c.Pod.Object.Spec.Tolerations {
		t := &c.Pod.Object.Spec.Tolerations[i]
		for _, s := range [...]string{t.Key, string(t.Operator), t.Value, string(t.Effect)} {
			key = append(append(key, s...), 0)
		}
	}
	return key, true
}

func tolerated(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	for i := range tolerations {
		if tolerations[i].ToleratesTaint(klog.Logger{}, taint, true) {
			return true
		}
	}
	return false
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	tolerations := c.Pod.Object.Spec.Tolerations
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		for i := range n.HardTaints {
			if !tolerated(tolerations, &n.HardTaints[i]) {
				return p.untolerated
			}
		}
		return nil
	}}, nil
}

// Score implements plugin.Scorer: fewer intolerable taints are better.
func (p *Plugin) Score(_ context.Context, c *plugin.Cycle, _ []*snapshot.Node) (plugin.Score, *plugin.Status) {
	var soft []corev1.Toleration
	for _, t := range c.Pod.Object.Spec.Tolerations {
		if t.Effect == "" || t.Effect == corev1.TaintEffectPreferNoSchedule {
			soft = append(soft, t)
		}
	}
	return plugin.Score{
		Node: func(n *snapshot.Node) int64 {
			var count int64
			for i := range n.SoftTaints {
				if !tolerated(soft, &n.SoftTaints[i]) {
					count++
				}
			}
			return count
		},
		Normalize: func(scores []int64) { plugin.Normalize(scores, true) },
	}, nil
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeTaint}, Worth: func(pod *corev1.Pod, before, after any) bool {
			node, ok := after.(*corev1.Node)
			return ok && fits(pod, node) && (before == nil || !fits(pod, before.(*corev1.Node)))
		}},
		{Event: plugin.Event{Resource: plugin.TargetPod, Action: plugin.UpdatePodToleration}},
	}
}

func fits(pod *corev1.Pod, node *corev1.Node) bool {
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerated(pod.Spec.Tolerations, t) {
			return false
		}
	}
	return true
}
