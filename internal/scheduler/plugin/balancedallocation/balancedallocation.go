// SPDX-License-Identifier: Apache-2.0

// Package balancedallocation is the plugin NodeResourcesBalancedAllocation:
// nodes are better the more the pod would even out how their resources are used.
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
	return plugin.SignResources(c.Pod, key)
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
		with, without := balance(n, amounts, true), balance(n, amounts, false)
		// What the pod makes better or worse: half of the scale is neither.
		return plugin.MaxScore/2 + (plugin.MaxScore/2+with-without)/2
	}}, nil
}

// balance says how evenly a node's resources are used, with the pod or without:
// MaxScore when all are used alike.
func balance(n *snapshot.Node, amounts []plugin.Amount, with bool) int64 {
	var sum, first float64
	fractions := make([]float64, 0, 4)
	for i := range amounts {
		requested, capacity := amounts[i].On(n)
		if capacity == 0 {
			continue
		}
		if !with {
			requested -= amounts[i].Adds()
		}
		f := min(float64(requested)/float64(capacity), 1)
		if len(fractions) == 0 {
			first = f
		}
		sum += f
		fractions = append(fractions, f)
	}
	deviation := 0.0
	switch {
	case len(fractions) == 2:
		deviation = math.Abs((first - fractions[1]) / 2)
	case len(fractions) > 2:
		mean := sum / float64(len(fractions))
		var squares float64
		for _, f := range fractions {
			squares += (f - mean) * (f - mean)
		}
		deviation = math.Sqrt(squares / float64(len(fractions)))
	}
	return int64((1 - deviation) * float64(plugin.MaxScore))
}
