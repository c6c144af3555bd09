// SPDX-License-Identifier: Apache-2.0

// Package interpodaffinity is the plugin InterPodAffinity: pods go where
// certain other pods are, or where they are not. It judges nodes by counters
// that the snapshot keeps, and never walks over pods.
package interpodaffinity

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "InterPodAffinity"

// Plugin implements Filter and Score.
type Plugin struct {
	snap            *snapshot.Snapshot
	hardWeight      int64
	ignorePreferred bool

	affinity, anti, existing *plugin.Status
}

// New returns the plugin.
func New(snap *snapshot.Snapshot, args *configv1.InterPodAffinityArgs) *Plugin {
	return &Plugin{
		snap: snap, hardWeight: int64(ptr.Deref(args.HardPodAffinityWeight, 1)), ignorePreferred: args.IgnorePreferredTermsOfExistingPods,
		affinity: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) didn't match pod affinity rules"),
		anti:     plugin.NewStatus(Name, plugin.Unschedulable, "node(s) didn't match pod anti-affinity rules"),
		existing: plugin.NewStatus(Name, plugin.Unschedulable, "node(s) didn't satisfy existing pods anti-affinity rules"),
	}
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer: only pods that no term concerns share.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	if c.Pod.Affinity != nil {
		return key, false
	}
	for kind := snapshot.HeldRequiredAnti; kind <= snapshot.HeldPreferred; kind++ {
		if p.snap.HoldsAny(kind) {
			concerned := false
			p.snap.Holding(kind, c.Pod.Object, func(*snapshot.Held) { concerned = true })
			if concerned {
				return key, false
			}
		}
	}
	return key, true
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	var required, anti []*snapshot.Domains
	alone := false // the first pod of a group may choose any node
	var group *snapshot.PodSet
	if a := c.Pod.Affinity; a != nil {
		if len(a.Required) > 0 {
			group = p.snap.PodSet(a.Required...)
			alone = true
			for i := range a.Required {
				required = append(required, p.snap.Domains(group, a.Required[i].TopologyKey))
				alone = alone && p.snap.Matches(&a.Required[i], c.Pod.Object)
			}
		}
		for i := range a.RequiredAnti {
			set := p.snap.PodSet(a.RequiredAnti[i])
			anti = append(anti, p.snap.Domains(set, a.RequiredAnti[i].TopologyKey))
		}
	}
	held := p.held(snapshot.HeldRequiredAnti, c.Pod.Object)
	version := p.snap.HeldVersion()
	if len(required)+len(anti)+len(held) == 0 {
		// As upstream, this passes over the terms of nominated pods: they give
		// way when they find the pod where they wanted to be.
		return plugin.Filter{}, nil
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		if len(required) > 0 && !p.together(n, required, alone) {
			return p.affinity
		}
		for _, d := range anti {
			if d.At(d.Topology.Of(n)) > 0 {
				return p.anti
			}
		}
		// A simulation may have lent a pod that holds terms. Outside of one the
		// list stands: this judgement may be shared, and c be another pod's.
		if v := p.snap.HeldVersion(); v != version && p.snap.Simulating() {
			held, version = p.held(snapshot.HeldRequiredAnti, c.Pod.Object), v
		}
		for _, h := range held {
			if h.At(h.Topology.Of(n)) > 0 {
				return p.existing
			}
		}
		return nil
	}}, nil
}

func (p *Plugin) held(kind snapshot.Kind, pod *corev1.Pod) (out []*snapshot.Held) {
	p.snap.Holding(kind, pod, func(h *snapshot.Held) { out = append(out, h) })
	return out
}

// together says whether every required term has a matching pod in the domain
// of n. When there is none anywhere and the pod matches its own terms, any
// node will do that has the labels.
func (p *Plugin) together(n *snapshot.Node, required []*snapshot.Domains, alone bool) bool {
	all := true
	for _, d := range required {
		value := d.Topology.Of(n)
		if value < 0 {
			return false
		}
		all = all && d.At(value) > 0
	}
	return all || alone && !slices.ContainsFunc(required, func(d *snapshot.Domains) bool { return !d.Empty() })
}

// pull is what one term adds to the nodes of each domain.
type pull struct {
	*snapshot.Domains
	weight int64
}

// Score implements plugin.Scorer.
func (p *Plugin) Score(_ context.Context, c *plugin.Cycle, _ []*snapshot.Node) (plugin.Score, *plugin.Status) {
	var pulls []pull
	add := func(d *snapshot.Domains, weight int64) {
		if weight != 0 && !d.Empty() {
			pulls = append(pulls, pull{d, weight})
		}
	}
	preferred := false
	if a := c.Pod.Affinity; a != nil {
		for i := range a.Preferred {
			add(p.snap.Domains(p.snap.PodSet(a.Preferred[i].Term), a.Preferred[i].TopologyKey), a.Preferred[i].Weight)
		}
		for i := range a.PreferredAnti {
			add(p.snap.Domains(p.snap.PodSet(a.PreferredAnti[i].Term), a.PreferredAnti[i].TopologyKey), -a.PreferredAnti[i].Weight)
		}
		preferred = len(a.Preferred)+len(a.PreferredAnti) > 0
	}
	if preferred || !p.ignorePreferred {
		for _, h := range p.held(snapshot.HeldRequired, c.Pod.Object) {
			add(&h.Domains, p.hardWeight)
		}
		for _, h := range p.held(snapshot.HeldPreferred, c.Pod.Object) {
			add(&h.Domains, h.Weight)
		}
	}
	if len(pulls) == 0 {
		return plugin.Score{}, nil
	}
	return plugin.Score{
		Node: func(n *snapshot.Node) int64 {
			var v int64
			for i := range pulls {
				v += int64(pulls[i].At(pulls[i].Topology.Of(n))) * pulls[i].weight
			}
			return v
		},
		Normalize: func(scores []int64) {
			low, high := slices.Min(scores), slices.Max(scores)
			for i := range scores {
				if high == low {
					scores[i] = 0
					continue
				}
				scores[i] = int64(float64(plugin.MaxScore) * (float64(scores[i]-low) / float64(high-low)))
			}
		},
	}, nil
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Add | plugin.Delete | plugin.UpdatePodLabel}, Worth: p.podHelps},
		{Event: plugin.Event{Resource: plugin.TargetPod, Action: plugin.UpdatePodLabel}},
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeLabel}},
	}
}

// podHelps says whether a change of a placed pod concerns any term between it
// and the waiting pod.
func (p *Plugin) podHelps(pod *corev1.Pod, before, after any) bool {
	waiting, _ := p.snap.NewPod(pod)
	was, _ := before.(*corev1.Pod)
	is, _ := after.(*corev1.Pod)
	selects := func(terms []snapshot.Term, other *corev1.Pod) bool {
		return other != nil && slices.ContainsFunc(terms, func(t snapshot.Term) bool { return p.snap.Matches(&t, other) })
	}
	if a := waiting.Affinity; a != nil {
		// Somebody to be with came, or somebody to avoid left.
		if selects(a.Required, is) && !selects(a.Required, was) || selects(a.RequiredAnti, was) && !selects(a.RequiredAnti, is) {
			return true
		}
	}
	if was != nil && is == nil {
		// A pod that kept this one away left.
		left, _ := p.snap.NewPod(was)
		return left.Affinity != nil && selects(left.Affinity.RequiredAnti, pod)
	}
	return false
}
