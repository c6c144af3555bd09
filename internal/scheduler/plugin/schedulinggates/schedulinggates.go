// SPDX-License-Identifier: Apache-2.0

// Package schedulinggates is the plugin SchedulingGates: a pod waits until all
// of its gates are removed.
package schedulinggates

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/scheduler/plugin"
)

// Name is the plugin's name.
const Name = "SchedulingGates"

// Plugin implements PreEnqueue.
type Plugin struct{}

// New returns the plugin.
func New() *Plugin { return &Plugin{} }

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// PreEnqueue implements plugin.PreEnqueuer.
func (p *Plugin) PreEnqueue(pod *corev1.Pod) *plugin.Status {
	if len(pod.Spec.SchedulingGates) == 0 {
		return nil
	}
	names := make([]string, len(pod.Spec.SchedulingGates))
	for i, g := range pod.Spec.SchedulingGates {
		names[i] = g.Name
	}
	return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, fmt.Sprintf("waiting for scheduling gates: %v", names))
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{{Event: plugin.Event{Resource: plugin.TargetPod, Action: plugin.UpdatePodSchedulingGatesEliminated}}}
}
