// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/scheduler/podgroup"
	"kaji/internal/scheduler/snapshot"
)

// GroupJudge says whether a group of pods can still be placed: Success when
// what has a node is enough, Wait when more may come, Unschedulable when not.
// Upstream calls the point PlacementFeasible.
type GroupJudge interface {
	Plugin
	Feasible(g *podgroup.Group, scheduled, remaining int) *Status
}

// GroupPostFilterer is asked when a group cannot be placed. It returns the nodes
// that pods are nominated for; it leaves the snapshot as it was.
type GroupPostFilterer interface {
	Plugin
	PostFilterGroup(ctx context.Context, c *GroupCycle) (map[types.UID]string, *Status)
}

// GroupCycle is one attempt to place a group.
type GroupCycle struct {
	Group    *podgroup.Group
	Pods     []*snapshot.Pod // those without a node
	Cycles   []*Cycle        // the attempts for those of them that were tried
	Snapshot *snapshot.Snapshot
	// Try places the pods in the snapshot as it is now, and takes them back.
	Try func(ctx context.Context) ([]GroupPlace, *Status)
	// Assume and Forget put a pod of what Try returned on its node and back.
	Assume func(GroupPlace) *Status
	Forget func(GroupPlace)
}

// GroupPlace is where Try placed a pod. Its cycle's Fits stays valid.
type GroupPlace struct {
	Cycle *Cycle
	Node  *snapshot.Node
}
