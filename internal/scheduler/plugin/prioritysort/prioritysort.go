// SPDX-License-Identifier: Apache-2.0

// Package prioritysort is the plugin PrioritySort. Its order, by priority and
// then by the time of waiting, is the queue's own; the plugin exists so that
// configurations may name it.
package prioritysort

// Name is the plugin's name.
const Name = "PrioritySort"

// Plugin marks that the queue's order is wanted.
type Plugin struct{}

// New returns the plugin.
func New() *Plugin { return &Plugin{} }

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }
