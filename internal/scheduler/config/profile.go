// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	configv1 "k8s.io/kube-scheduler/config/v1"
)

// Point is an extension point that plugins are enabled at. PreFilter and
// PreScore are configured with Filter and Score.
type Point int

// The extension points.
const (
	PreEnqueue Point = iota
	QueueSort
	PreFilter
	Filter
	PostFilter
	PreScore
	Score
	Reserve
	Permit
	PreBind
	Bind
	PostBind
	PodGroupPostFilter
	// PlacementFeasible cannot be configured on its own.
	PlacementFeasible
)

// Profile is a profile with everything settled.
type Profile struct {
	Name string
	// PercentageOfNodesToScore is 0 for adaptive.
	PercentageOfNodesToScore int32
	Plugins                  *configv1.Plugins
	// Args are the arguments by plugin, defaulted.
	Args map[string]runtime.Object
}

func (p *Profile) set(point Point) *configv1.PluginSet {
	pl := p.Plugins
	return [...]*configv1.PluginSet{
		PreEnqueue: &pl.PreEnqueue, QueueSort: &pl.QueueSort, PreFilter: &pl.PreFilter, Filter: &pl.Filter,
		PostFilter: &pl.PostFilter, PreScore: &pl.PreScore, Score: &pl.Score, Reserve: &pl.Reserve,
		Permit: &pl.Permit, PreBind: &pl.PreBind, Bind: &pl.Bind, PostBind: &pl.PostBind,
		PodGroupPostFilter: &pl.PodGroupPostFilter, PlacementFeasible: {},
	}[point]
}

// Names returns every plugin that is enabled anywhere.
func (p *Profile) Names() []string {
	var names []string
	add := func(set *configv1.PluginSet) {
		for i := range set.Enabled {
			if !slices.Contains(names, set.Enabled[i].Name) {
				names = append(names, set.Enabled[i].Name)
			}
		}
	}
	add(&p.Plugins.MultiPoint)
	for point := PreEnqueue; point <= PodGroupPostFilter; point++ {
		add(p.set(point))
	}
	return names
}

// Enabled returns the plugins called at a point, in order: those that the
// point itself configures although they are enabled everywhere, then those
// enabled everywhere that implement it, then the point's own.
func (p *Profile) Enabled(point Point, implements func(name string) bool) []string {
	set := p.set(point)
	var own, first, out []string
	multi := func(name string) bool {
		return slices.ContainsFunc(p.Plugins.MultiPoint.Enabled, func(m configv1.Plugin) bool { return m.Name == name })
	}
	for i := range set.Enabled {
		if name := set.Enabled[i].Name; multi(name) {
			first = append(first, name)
		} else {
			own = append(own, name)
		}
	}
	out = append(out, first...)
	disabled := func(name string) bool {
		return slices.ContainsFunc(set.Disabled, func(d configv1.Plugin) bool { return d.Name == name || d.Name == "*" })
	}
	for _, m := range p.Plugins.MultiPoint.Enabled {
		if implements(m.Name) && !slices.Contains(out, m.Name) && !disabled(m.Name) {
			out = append(out, m.Name)
		}
	}
	return append(out, own...)
}

// Weight returns how much a plugin's scores count, 1 when nothing says it.
func (p *Profile) Weight(name string) int64 {
	for _, set := range []*configv1.PluginSet{&p.Plugins.Score, &p.Plugins.MultiPoint} {
		for i := range set.Enabled {
			if pl := &set.Enabled[i]; pl.Name == name && pl.Weight != nil && *pl.Weight != 0 {
				return int64(*pl.Weight)
			}
		}
	}
	return 1
}
