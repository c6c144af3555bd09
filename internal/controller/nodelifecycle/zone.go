// SPDX-License-Identifier: Apache-2.0

package nodelifecycle

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/controller/meter"
)

// zoneState says how much of a zone is alive, and so how fast it may be emptied.
type zoneState string

const (
	stateUnseen  zoneState = ""
	stateInitial zoneState = "Initial"
	stateNormal  zoneState = "Normal"
	stateFull    zoneState = "FullDisruption"
	statePartial zoneState = "PartialDisruption"
)

// excluded is the label of nodes whose health says nothing about their zone.
const excluded = "node.kubernetes.io/exclude-disruption"

func zoneOf(node *corev1.Node) string {
	region, zone := node.Labels[corev1.LabelTopologyRegion], node.Labels[corev1.LabelTopologyZone]
	if region == "" && zone == "" {
		return ""
	}
	// Names of either may not hold this separator.
	return region + ":\x00:" + zone
}

// dead counts the nodes that are not ready.
func dead(readiness []*corev1.NodeCondition) (n int) {
	for _, c := range readiness {
		if c == nil || c.Status != corev1.ConditionTrue {
			n++
		}
	}
	return n
}

func (n *Controller) stateOf(readiness []*corev1.NodeCondition) zoneState {
	dead := dead(readiness)
	switch {
	case dead > 0 && dead == len(readiness):
		return stateFull
	case dead > 2 && float64(dead)/float64(len(readiness)) >= n.c.UnhealthyZone:
		return statePartial
	}
	return stateNormal
}

// rateOf is how fast the nodes of a zone may be tainted.
func (n *Controller) rateOf(state zoneState, size int) float64 {
	if state != statePartial {
		return n.c.EvictionRate
	}
	if size > n.c.LargeZone {
		return n.c.SecondaryRate
	}
	return 0
}

// weighZones sets the zones' rates by their health. When no node of any zone is
// alive, it is the control plane that is cut off: then nothing is evicted.
func (n *Controller) weighZones(ctx context.Context, nodes []*corev1.Node, readiness []*corev1.NodeCondition) {
	byZone := map[string][]*corev1.NodeCondition{}
	for i, node := range nodes {
		if _, out := node.Labels[excluded]; !out {
			byZone[zoneOf(node)] = append(byZone[zoneOf(node)], readiness[i])
		}
	}
	states, allFull := map[string]zoneState{}, true
	for zone, list := range byZone {
		states[zone] = n.stateOf(list)
		meter.From(ctx).Zone(zone, len(list), dead(list))
		allFull = allFull && states[zone] == stateFull
	}
	wasFull := true
	for zone, state := range n.zones {
		if _, there := byZone[zone]; !there {
			delete(n.zones, zone)
			continue
		}
		wasFull = wasFull && state == stateFull
	}
	if len(byZone) == 0 || allFull && wasFull {
		return
	}
	if allFull {
		n.log.Warn("no node is ready: evictions stop")
		for _, node := range nodes {
			if err := n.reachable(ctx, node); err != nil {
				n.log.Warn("a node keeps its taints for now", "node", node.Name, "err", err)
			}
		}
		for zone := range n.zones {
			n.tainter.setRate(zone, 0)
			n.zones[zone] = stateFull
		}
		return
	}
	if wasFull {
		n.log.Info("some nodes are ready again: evictions go on")
		n.giveTime()
	}
	for zone, state := range states {
		if wasFull || n.zones[zone] != state {
			n.zones[zone] = state
			n.tainter.setRate(zone, n.rateOf(state, len(byZone[zone])))
		}
	}
}
