// SPDX-License-Identifier: Apache-2.0

// Package nodeunschedulable is the plugin NodeUnschedulable: cordoned nodes
// take only pods that tolerate the taint for it.
package nodeunschedulable

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	v1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "NodeUnschedulable"

// Plugin implements Filter.
type Plugin struct{ cordoned *plugin.Status }

// New returns the plugin.
func New() *Plugin {
	return &Plugin{plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) were unschedulable")}
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

func tolerates(pod *corev1.Pod) bool {
	return v1helper.TolerationsTolerateTaint(klog.Logger{}, pod.Spec.Tolerations,
		&corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}, false)
}

// Sign implements plugin.Signer.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	if tolerates(c.Pod.Object) {
		key = append(key, 't')
	}
	return key, true
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	if tolerates(c.Pod.Object) {
		return plugin.Filter{}, nil
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		if n.Object.Spec.Unschedulable {
			return p.cordoned
		}
		return nil
	}}, nil
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeTaint}, Worth: func(_ *corev1.Pod, _, after any) bool {
			node, ok := after.(*corev1.Node)
			return ok && !node.Spec.Unschedulable
		}},
		{Event: plugin.Event{Resource: plugin.TargetPod, Action: plugin.UpdatePodToleration}, Worth: func(pod *corev1.Pod, _, _ any) bool {
			return tolerates(pod)
		}},
	}
}
