// SPDX-License-Identifier: Apache-2.0

// Package balancedallocation is the plugin NodeResourcesBalancedAllocation:
// nodes are better the more evenly their resources would be used.
package balancedallocation

import (
	"context"
	"math"

	configv1 "k8s.io/kube-scheduler/config/v1"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "NodeResourcesBalancedAllocation"

// Plugin implements Score.
type Plugin struct {
	snap      *snapshot.Snapshot
	resources []configv1.ResourceSpec
}

// New returns the plugin.
func New(snap *snapshot.Snapshot, args *configv1.NodeResourcesBalancedAllocationArgs) *Plugin {
	return &Plugin{snap, args.Resources}
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	return plugin.SignResources(c.Pod, key), true
}

// Score implements plugin.Scorer. Pods that request none of the resources
// cannot change the balance.
func (p *Plugin) Score(_ context.Context, c *plugin.Cycle, _ []*snapshot.Node) (plugin.Score, *plugin.Status) {
	amounts := plugin.Amounts(p.snap, c.Pod, p.resources, false)
	asks := false
	for i := range amounts {
		asks = asks || amounts[i].Adds() != 0
	}
	if !asks {
		return plugin.Score{}, nil
	}
	return plugin.Score{Node: func(n *snapshot.Node) int64 {
		var sum, squares, first float64
		count := 0
		for i := range amounts {
			requested, capacity := amounts[i].On(n)
			if capacity == 0 {
				continue
			}
			f := min(float64(requested)/float64(capacity), 1)
			if count == 0 {
				first = f
			}
			sum += f
			squares += f * f
			count++
		}
		deviation := 0.0
		switch {
		case count == 2:
			deviation = math.Abs(first-(sum-first)) / 2
		case count > 2:
			mean := sum / float64(count)
			deviation = math.Sqrt(max(squares/float64(count)-mean*mean, 0))
		}
		return int64((1 - deviation) * float64(plugin.MaxScore))
	}}, nil
}
