// SPDX-License-Identifier: Apache-2.0

package dynamicresources

import (
	"context"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Score implements plugin.Scorer: a node is better where requests that list
// alternatives get an earlier one.
func (p *Plugin) Score(_ context.Context, c *plugin.Cycle, _ []*snapshot.Node) (plugin.Score, *plugin.Status) {
	st, _ := c.State[Name].(*state)
	if st == nil || len(st.claims) == 0 {
		return plugin.Score{}, nil
	}
	return plugin.Score{
		Node:      func(n *snapshot.Node) int64 { return st.preference(st.results[n.Name]) },
		Normalize: func(scores []int64) { plugin.Normalize(scores, false) },
	}, nil
}

// preference adds up the ranks of the alternatives taken.
func (st *state) preference(results []resourcev1.AllocationResult) int64 {
	if len(results) < len(st.pending) || len(st.pending) == 0 {
		return 0
	}
	var score int64
	next := 0
	for _, claim := range st.claims {
		allocation := claim.Status.Allocation
		if allocation == nil {
			allocation = &results[next]
			next++
		}
		taken := sets.New[string]()
		for i := range allocation.Devices.Results {
			taken.Insert(allocation.Devices.Results[i].Request)
		}
		for i := range claim.Spec.Devices.Requests {
			r := &claim.Spec.Devices.Requests[i]
			for rank := range r.FirstAvailable {
				if taken.Has(resourceclaim.CreateSubRequestRef(r.Name, r.FirstAvailable[rank].Name)) {
					score += int64(resourcev1.FirstAvailableDeviceRequestMaxSize - rank)
				}
			}
		}
	}
	return score
}
