// SPDX-License-Identifier: Apache-2.0

// Package nodename is the plugin NodeName: a pod that names its node fits on
// that node only.
package nodename

import (
	"context"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "NodeName"

// Plugin implements Filter.
type Plugin struct{ mismatch *plugin.Status }

// New returns the plugin.
func New() *Plugin {
	return &Plugin{plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) didn't match the requested node name")}
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	return append(key, c.Pod.Object.Spec.NodeName...), true
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	want := c.Pod.Object.Spec.NodeName
	if want == "" {
		return plugin.Filter{}, nil
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		if n.Name != want {
			return p.mismatch
		}
		return nil
	}}, nil
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add}}}
}
