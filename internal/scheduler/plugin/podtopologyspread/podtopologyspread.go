// SPDX-License-Identifier: Apache-2.0

// Package podtopologyspread is the plugin PodTopologySpread: alike pods spread
// over zones, hosts or other domains, as their constraints say, or as the
// defaults do for pods of services and controllers.
package podtopologyspread

import (
	"context"
	"math"

	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "PodTopologySpread"

// Plugin implements Filter and Score.
type Plugin struct {
	snap     *snapshot.Snapshot
	owners   owners
	defaults []corev1.TopologySpreadConstraint
	system   bool // the defaults are the system's own
	eligible eligibility

	memo memo

	skewed, unlabelled *plugin.Status
}

// memo are the constraints of the attempt under way.
type memo struct {
	cycle      *plugin.Cycle
	hard, soft []constraint
	all        bool // nodes must have all topology labels
	err        error
}

func (m *memo) keep(c constraint) {
	if c.action == corev1.DoNotSchedule {
		m.hard = append(m.hard, c)
	} else {
		m.soft = append(m.soft, c)
	}
}

// New returns the plugin.
func New(c client.Interface, snap *snapshot.Snapshot, args *configv1.PodTopologySpreadArgs) *Plugin {
	p := &Plugin{
		snap: snap, owners: newOwners(c), defaults: args.DefaultConstraints,
		skewed:     plugin.NewStatus(Name, plugin.Unschedulable, "node(s) didn't match pod topology spread constraints"),
		unlabelled: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) didn't match pod topology spread constraints (missing required label)"),
	}
	if args.DefaultingType == configv1.SystemDefaulting {
		p.system = true
		p.defaults = []corev1.TopologySpreadConstraint{
			{TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 3},
			{TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 5},
		}
	}
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer: only pods without constraints share.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	p.constraints(c)
	return key, len(p.memo.hard)+len(p.memo.soft) == 0 && p.memo.err == nil
}

// constraints works out the pod's constraints, once for each attempt.
func (p *Plugin) constraints(c *plugin.Cycle) {
	m := &p.memo
	if m.cycle == c {
		return
	}
	m.cycle, m.hard, m.soft, m.err = c, nil, nil, nil
	pod := c.Pod.Object
	m.all = len(pod.Spec.TopologySpreadConstraints) > 0 || !p.system
	if len(pod.Spec.TopologySpreadConstraints) > 0 {
		for i := range pod.Spec.TopologySpreadConstraints {
			con, err := p.parse(pod, &pod.Spec.TopologySpreadConstraints[i], nil)
			if err != nil {
				m.err = err
				return
			}
			m.keep(con)
		}
		return
	}
	if len(p.defaults) == 0 {
		return
	}
	selector := p.owners.selector(pod)
	if selector == nil || selector.Empty() {
		return
	}
	for i := range p.defaults {
		con, err := p.parse(pod, &p.defaults[i], selector)
		if err != nil {
			m.err = err
			return
		}
		m.keep(con)
	}
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	p.constraints(c)
	if p.memo.err != nil {
		return plugin.Filter{}, plugin.AsStatus(Name, p.memo.err)
	}
	hard := p.memo.hard
	if len(hard) == 0 {
		return plugin.Filter{}, nil
	}
	p.countAll(c.Pod.Object, hard)
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		for i := range hard {
			con := &hard[i]
			value := con.topology.Of(n)
			if value < 0 {
				return p.unlabelled
			}
			here, least := con.at(n, value)
			if here+con.self-least > con.maxSkew {
				return p.skewed
			}
		}
		return nil
	}}, nil
}

// countAll counts the matching pods of each domain over the eligible nodes
// that have all the labels.
func (p *Plugin) countAll(pod *corev1.Pod, cons []constraint) {
	ok := p.eligible.of(p.snap, pod, cons)
	for i := range cons {
		cons[i].begin(p.snap)
	}
	for _, n := range p.snap.Slots() {
		if n == nil || !labelled(n, cons) {
			continue
		}
		for i := range cons {
			if con := &cons[i]; ok(con, n) {
				con.count(n)
			}
		}
	}
	for i := range cons {
		cons[i].settle()
	}
}

func labelled(n *snapshot.Node, cons []constraint) bool {
	for i := range cons {
		if cons[i].topology.Of(n) < 0 {
			return false
		}
	}
	return true
}

// ignored marks nodes left out of the score, until normalization.
const ignored = -1

// Score implements plugin.Scorer.
func (p *Plugin) Score(_ context.Context, c *plugin.Cycle, feasible []*snapshot.Node) (plugin.Score, *plugin.Status) {
	p.constraints(c)
	if p.memo.err != nil {
		return plugin.Score{}, plugin.AsStatus(Name, p.memo.err)
	}
	soft, all := p.memo.soft, p.memo.all
	if len(soft) == 0 {
		return plugin.Score{}, nil
	}
	for i := range soft {
		soft[i].begin(p.snap)
	}
	counted := 0
	for _, n := range feasible {
		if all && !labelled(n, soft) {
			continue
		}
		counted++
		for i := range soft {
			if con := &soft[i]; !con.byHost {
				if v := con.topology.Of(n); v >= 0 {
					con.see(v)
				} else {
					con.lacking = 1
				}
			}
		}
	}
	byHostOnly := true
	for i := range soft {
		con := &soft[i]
		size := con.domains + con.lacking
		if con.byHost {
			size = counted
		} else {
			byHostOnly = false
		}
		con.weight = math.Log(float64(size + 2))
	}
	if !byHostOnly {
		ok := p.eligible.of(p.snap, c.Pod.Object, soft)
		for _, n := range p.snap.Slots() {
			if n == nil || all && !labelled(n, soft) {
				continue
			}
			for i := range soft {
				if con := &soft[i]; !con.byHost && con.seen(con.topology.Of(n)) && ok(con, n) {
					con.add(n)
				}
			}
		}
	}
	return plugin.Score{
		Node: func(n *snapshot.Node) int64 {
			if all && !labelled(n, soft) {
				return ignored
			}
			var v float64
			for i := range soft {
				con := &soft[i]
				value := con.topology.Of(n)
				if value < 0 {
					continue
				}
				count := con.on(n)
				if !con.byHost {
					count = con.counts[value]
				}
				v += float64(count)*con.weight + float64(con.maxSkew-1)
			}
			return int64(math.Round(v))
		},
		Normalize: normalize,
	}, nil
}

// normalize turns the scores over: fewer matching pods are better.
func normalize(scores []int64) {
	low, high := int64(math.MaxInt64), int64(0)
	for _, s := range scores {
		if s != ignored {
			low, high = min(low, s), max(high, s)
		}
	}
	for i, s := range scores {
		switch {
		case s == ignored:
			scores[i] = 0
		case high == 0:
			scores[i] = plugin.MaxScore
		default:
			scores[i] = plugin.MaxScore * (high + low - s) / high
		}
	}
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Add | plugin.Delete | plugin.UpdatePodLabel}, Worth: p.podHelps},
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.Delete | plugin.UpdateNodeLabel | plugin.UpdateNodeTaint}},
		{Event: plugin.Event{Resource: plugin.TargetPod, Action: plugin.UpdatePodLabel}},
	}
}

// podHelps says whether a change of a placed pod is one of the pods that the
// waiting pod's constraints count.
func (p *Plugin) podHelps(pod *corev1.Pod, before, after any) bool {
	if len(pod.Spec.TopologySpreadConstraints) == 0 {
		return true
	}
	for i := range pod.Spec.TopologySpreadConstraints {
		con, err := p.parse(pod, &pod.Spec.TopologySpreadConstraints[i], nil)
		if err != nil {
			return true
		}
		for _, obj := range []any{before, after} {
			if other, ok := obj.(*corev1.Pod); ok && other != nil && other.Namespace == pod.Namespace && con.selects(other) {
				return true
			}
		}
	}
	return false
}
