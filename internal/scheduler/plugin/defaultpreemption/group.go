// SPDX-License-Identifier: Apache-2.0

package defaultpreemption

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// PostFilterGroup implements plugin.GroupPostFilterer: everything of lower
// priority is thought away; if the group can be placed then, as much as fits
// beside it stays.
func (p *Plugin) PostFilterGroup(ctx context.Context, c *plugin.GroupCycle) (map[types.UID]string, *plugin.Status) {
	nodes, victims, st := p.preemptForGroup(ctx, c)
	p.h.PreemptedByGroup(st.CodeOf(), victims)
	return nodes, st
}

func (p *Plugin) preemptForGroup(ctx context.Context, c *plugin.GroupCycle) (map[types.UID]string, int, *plugin.Status) {
	refuse := func(code plugin.Code, message string) *plugin.Status {
		return plugin.NewStatus(Name, code, "pod group preemption: "+message)
	}
	if pol := c.Pods[0].Object.Spec.PreemptionPolicy; pol != nil && *pol == corev1.PreemptNever {
		return nil, 0, refuse(plugin.Unschedulable, "not eligible due to preemptionPolicy=Never.")
	}
	if p.underWay(c) {
		nodes := map[types.UID]string{}
		for _, pod := range c.Pods {
			nodes[pod.UID()] = nominated(c.Snapshot, pod)
		}
		return nodes, 0, refuse(plugin.Success, "ongoing preemption on nominated nodes")
	}
	var running []*snapshot.Pod
	for _, n := range c.Snapshot.Slots() {
		if n != nil {
			running = append(running, n.Pods...)
		}
	}
	lower := p.units(c.Snapshot, running, c.Group.Priority())
	if len(lower) == 0 {
		return nil, 0, refuse(plugin.UnschedulableAndUnresolvable, "No preemption victims found for incoming preemptor")
	}
	slices.SortFunc(lower, importantUnit)
	places, victims, st := p.groupVictims(ctx, c, lower)
	if !st.OK() {
		return nil, 0, refuse(st.Code, st.Message())
	}
	who := &preemptor{kind: "podgroup", uid: c.Group.Object.UID, node: "cluster", scheduler: c.Pods[0].Object.Spec.SchedulerName, related: c.Group.Object}
	for _, pod := range c.Pods {
		who.pods = append(who.pods, pod.UID())
	}
	p.evict(who, victims, nil)
	nodes := map[types.UID]string{}
	for _, place := range places {
		nodes[place.Cycle.Pod.UID()] = place.Node.Name
	}
	return nodes, len(victims), refuse(plugin.Success, fmt.Sprintf("found a placement for podgroup, preempting %d victims", len(victims)))
}

// nominated is the node that a pod is nominated for, also when its status does
// not say it yet.
func nominated(snap *snapshot.Snapshot, pod *snapshot.Pod) string {
	if n := pod.Object.Status.NominatedNodeName; n != "" {
		return n
	}
	if p := snap.Nominations()[pod.UID()]; p != nil {
		return p.Nominated
	}
	return ""
}

// underWay says whether pods that were preempted for the group are still ending.
func (p *Plugin) underWay(c *plugin.GroupCycle) bool {
	for uid := range p.evicted {
		if c.Snapshot.Pod(uid) == nil {
			delete(p.evicted, uid)
		}
	}
	for _, pod := range c.Pods {
		n := c.Snapshot.Node(nominated(c.Snapshot, pod))
		if n == nil {
			continue
		}
		for _, victim := range n.Pods {
			priority := victim.Priority()
			if g := p.groups.Of(victim.Object); g != nil {
				priority = g.Priority()
			}
			_, evicted := p.evicted[victim.UID()]
			if priority < c.Group.Priority() && (evicted || terminating(victim.Object)) {
				return true
			}
		}
	}
	return false
}

// groupVictims finds whom to evict, and where the group goes then. The snapshot
// is changed for real and restored: the group's pods are looked for as usual.
func (p *Plugin) groupVictims(ctx context.Context, c *plugin.GroupCycle, lower []*unit) (places []plugin.GroupPlace, victims []*corev1.Pod, st *plugin.Status) {
	homes := map[*snapshot.Pod]string{}
	gone := map[*unit]bool{}
	remove := func(u *unit) {
		gone[u] = true
		for _, pod := range u.pods {
			homes[pod] = pod.NodeName
			c.Snapshot.Displace(pod)
		}
	}
	restore := func(u *unit) {
		delete(gone, u)
		for _, pod := range u.pods {
			c.Snapshot.Place(homes[pod], pod)
		}
	}
	for _, u := range lower {
		remove(u)
	}
	defer func() {
		for _, u := range lower {
			if gone[u] {
				restore(u)
			}
		}
	}()
	if places, st = c.Try(ctx); !st.OK() {
		return nil, nil, st
	}
	violating, free := violations(lower, p.budgets.CachedList("", nil))
	for _, u := range append(violating, free...) {
		restore(u)
		if fit(ctx, c, places) {
			continue
		}
		remove(u)
	}
	for _, u := range lower {
		if gone[u] {
			victims = append(victims, u.objects()...)
		}
	}
	return places, victims, nil
}

// fit says whether the pods fit where they were placed, each beside those before.
func fit(ctx context.Context, c *plugin.GroupCycle, places []plugin.GroupPlace) bool {
	var assumed []plugin.GroupPlace
	defer func() {
		for _, place := range slices.Backward(assumed) {
			c.Forget(place)
		}
	}()
	for _, place := range places {
		if place.Cycle.Fits(ctx, place.Node) != nil || !c.Assume(place).OK() {
			return false
		}
		assumed = append(assumed, place)
	}
	return true
}
