// SPDX-License-Identifier: Apache-2.0

// Package nodeaffinity is the plugin NodeAffinity: pods choose nodes by
// nodeSelector and node affinity, required and preferred.
package nodeaffinity

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "NodeAffinity"

// Plugin implements Filter and Score.
type Plugin struct {
	added          *nodeaffinity.NodeSelector
	addedPreferred *nodeaffinity.PreferredSchedulingTerms

	mismatch, enforced *plugin.Status
}

// New returns the plugin.
func New(args *configv1.NodeAffinityArgs) (*Plugin, error) {
	p := &Plugin{
		mismatch: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) didn't match Pod's node affinity/selector"),
		enforced: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) didn't match scheduler-enforced node affinity"),
	}
	if args == nil || args.AddedAffinity == nil {
		return p, nil
	}
	var err error
	if r := args.AddedAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		if p.added, err = nodeaffinity.NewNodeSelector(r); err != nil {
			return nil, err
		}
	}
	if t := args.AddedAffinity.PreferredDuringSchedulingIgnoredDuringExecution; len(t) > 0 {
		if p.addedPreferred, err = nodeaffinity.NewPreferredSchedulingTerms(t); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	spec := &c.Pod.Object.Spec
	if len(spec.NodeSelector) > 0 {
		names := make([]string, 0, len(spec.NodeSelector))
		for k := range spec.NodeSelector {
			names = append(names, k)
		}
		slices.Sort(names)
		for _, k := range names {
			key = append(append(append(append(key, k...), '='), spec.NodeSelector[k]...), 0)
		}
	}
	if a := affinityOf(c.Pod.Object); a != nil {
		data, err := a.Marshal()
		if err != nil {
			return key, false
		}
		key = append(append(key, 1), data...)
	}
	return key, true
}

func affinityOf(pod *corev1.Pod) *corev1.NodeAffinity {
	if pod.Spec.Affinity == nil {
		return nil
	}
	return pod.Spec.Affinity.NodeAffinity
}

func requires(pod *corev1.Pod) bool {
	a := affinityOf(pod)
	return len(pod.Spec.NodeSelector) > 0 || a != nil && a.RequiredDuringSchedulingIgnoredDuringExecution != nil
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	if !requires(c.Pod.Object) && p.added == nil {
		return plugin.Filter{}, nil
	}
	only, st := p.named(c.Pod.Object)
	if st != nil {
		return plugin.Filter{}, st
	}
	required := nodeaffinity.GetRequiredNodeAffinity(c.Pod.Object)
	return plugin.Filter{Only: only, Node: func(n *snapshot.Node) *plugin.Status {
		if p.added != nil && !p.added.Match(n.Object) {
			return p.enforced
		}
		if ok, _ := required.Match(n.Object); !ok {
			return p.mismatch
		}
		return nil
	}}, nil
}

// named returns the only nodes that can match, when every term asks for
// certain names, as the pods of DaemonSets do.
func (p *Plugin) named(pod *corev1.Pod) ([]string, *plugin.Status) {
	a := affinityOf(pod)
	if a == nil || a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil, nil
	}
	terms := a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) == 0 {
		return nil, nil
	}
	names := []string{}
	for _, t := range terms {
		var own []string
		given := false
		for _, r := range t.MatchFields {
			if r.Key != "metadata.name" || r.Operator != corev1.NodeSelectorOpIn {
				continue
			}
			if !given {
				own, given = slices.Clone(r.Values), true
			} else {
				own = slices.DeleteFunc(own, func(s string) bool { return !slices.Contains(r.Values, s) })
			}
		}
		if !given {
			return nil, nil
		}
		names = append(names, own...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return nil, plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "pod affinity terms conflict")
	}
	return names, nil
}

// Score implements plugin.Scorer.
func (p *Plugin) Score(_ context.Context, c *plugin.Cycle, _ []*snapshot.Node) (plugin.Score, *plugin.Status) {
	var own *nodeaffinity.PreferredSchedulingTerms
	if a := affinityOf(c.Pod.Object); a != nil && len(a.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		var err error
		if own, err = nodeaffinity.NewPreferredSchedulingTerms(a.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
			return plugin.Score{}, plugin.AsStatus(Name, err)
		}
	}
	if own == nil && p.addedPreferred == nil {
		return plugin.Score{}, nil
	}
	return plugin.Score{
		Node: func(n *snapshot.Node) int64 {
			var v int64
			if own != nil {
				v += own.Score(n.Object)
			}
			if p.addedPreferred != nil {
				v += p.addedPreferred.Score(n.Object)
			}
			return v
		},
		Normalize: func(scores []int64) { plugin.Normalize(scores, false) },
	}, nil
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeLabel}, Worth: func(pod *corev1.Pod, before, after any) bool {
			node, ok := after.(*corev1.Node)
			return ok && p.fits(pod, node) && (before == nil || !p.fits(pod, before.(*corev1.Node)))
		}},
	}
}

func (p *Plugin) fits(pod *corev1.Pod, node *corev1.Node) bool {
	if p.added != nil && !p.added.Match(node) {
		return false
	}
	ok, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
	return ok
}
