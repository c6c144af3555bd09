// SPDX-License-Identifier: Apache-2.0

// Package nodeports is the plugin NodePorts: no two pods of a node occupy the
// same host port.
package nodeports

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "NodePorts"

// Plugin implements Filter.
type Plugin struct{ taken *plugin.Status }

// New returns the plugin.
func New() *Plugin {
	return &Plugin{plugin.NewStatus(Name, plugin.Unschedulable, "node(s) didn't have free ports for the requested pod ports")}
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	for _, port := range c.Pod.Ports {
		key = fmt.Appendf(key, "%s/%s/%d,", port.IP, port.Protocol, port.Port)
	}
	return key, true
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	ports := c.Pod.Ports
	if len(ports) == 0 {
		return plugin.Filter{}, nil
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		if conflict(ports, n.Ports) {
			return p.taken
		}
		return nil
	}}, nil
}

func conflict(want, used []snapshot.HostPort) bool {
	for _, w := range want {
		for _, u := range used {
			if w.Conflicts(u) {
				return true
			}
		}
	}
	return false
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Delete}, Worth: func(pod *corev1.Pod, before, _ any) bool {
			gone, ok := before.(*corev1.Pod)
			return !ok || conflict(snapshot.HostPorts(pod), snapshot.HostPorts(gone))
		}},
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add}},
	}
}
