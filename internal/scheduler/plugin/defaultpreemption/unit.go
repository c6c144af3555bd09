// SPDX-License-Identifier: Apache-2.0

package defaultpreemption

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/scheduler/podgroup"
	"kaji/internal/scheduler/snapshot"
)

// unit is what is evicted together: a pod, or all pods of a group that must not
// be disrupted in part.
type unit struct {
	pods       []*snapshot.Pod
	priority   int32
	group      bool
	violations int64 // of disruption budgets, set by violations
}

func (u *unit) objects() []*corev1.Pod {
	out := make([]*corev1.Pod, len(u.pods))
	for i, p := range u.pods {
		out[i] = p.Object
	}
	return out
}

// units are what pods below a priority make up. Pods of a group have the group's
// priority.
func (p *Plugin) units(snap *snapshot.Snapshot, pods []*snapshot.Pod, below int32) []*unit {
	var out []*unit
	var seen map[*podgroup.Group]bool
	for _, pod := range pods {
		g := p.groups.Of(pod.Object)
		if g == nil {
			if pod.Priority() < below {
				out = append(out, &unit{pods: []*snapshot.Pod{pod}, priority: pod.Priority()})
			}
			continue
		}
		if g.Priority() >= below {
			continue
		}
		u := &unit{pods: []*snapshot.Pod{pod}, priority: g.Priority(), group: true}
		if g.Indivisible() {
			if seen[g] {
				continue
			}
			if seen == nil {
				seen = map[*podgroup.Group]bool{}
			}
			seen[g] = true
			u.pods = g.Scheduled(snap)
		}
		out = append(out, u)
	}
	return out
}

// importantUnit orders by priority, groups before pods, larger before smaller,
// then by who has run longer.
func importantUnit(a, b *unit) int {
	rank := func(u *unit) int {
		if u.group {
			return 1
		}
		return 0
	}
	if c := cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(rank(b), rank(a)), cmp.Compare(len(b.pods), len(a.pods))); c != 0 {
		return c
	}
	if len(a.pods) == 1 {
		return importantObject(a.pods[0].Object, b.pods[0].Object)
	}
	return a.started().Compare(b.started())
}

// started is when the first of the pods did.
func (u *unit) started() time.Time {
	var first time.Time
	for _, p := range u.pods {
		if t := p.Object.Status.StartTime; t != nil && (first.IsZero() || t.Time.Before(first)) {
			first = t.Time
		}
	}
	return first
}

// lend and withdraw put a unit on its nodes and take it off, within Simulate.
func lend(snap *snapshot.Snapshot, u *unit) {
	for _, p := range u.pods {
		if n := snap.Node(p.NodeName); n != nil {
			snap.Lend(n, p)
		}
	}
}

func withdraw(snap *snapshot.Snapshot, u *unit) {
	for _, p := range u.pods {
		if n := snap.Node(p.NodeName); n != nil {
			snap.Withdraw(n, p)
		}
	}
}
