// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"

	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"
)

// DefaultPlugins returns what is enabled in a profile that says nothing, in
// upstream's order and with upstream's weights.
func DefaultPlugins() *configv1.Plugins {
	weight := func(name string, w int32) configv1.Plugin { return configv1.Plugin{Name: name, Weight: ptr.To(w)} }
	return &configv1.Plugins{MultiPoint: configv1.PluginSet{Enabled: []configv1.Plugin{
		{Name: "SchedulingGates"},
		{Name: "PrioritySort"},
		{Name: "NodeName"},
		{Name: "NodeUnschedulable"},
		weight("TaintToleration", 3),
		weight("NodeAffinity", 2),
		{Name: "NodePorts"},
		weight("NodeResourcesFit", 1),
		{Name: "VolumeRestrictions"},
		{Name: "NodeVolumeLimits"},
		{Name: "VolumeBinding"},
		{Name: "VolumeZone"},
		weight("PodTopologySpread", 2),
		weight("InterPodAffinity", 2),
		weight("DynamicResources", 2),
		{Name: "DefaultPreemption"},
		weight("NodeResourcesBalancedAllocation", 1),
		weight("ImageLocality", 1),
		{Name: "DefaultBinder"},
		{Name: "NodeDeclaredFeatures"},
	}}}
}

// EnableGroups adds the plugin of the feature gate GenericWorkload to profiles
// that do not turn it off.
func EnableGroups(profiles []Profile) {
	const name = "GangScheduling"
	for i := range profiles {
		set := &profiles[i].Plugins.MultiPoint
		has := slices.ContainsFunc(set.Enabled, func(p configv1.Plugin) bool { return p.Name == name })
		off := slices.ContainsFunc(set.Disabled, func(p configv1.Plugin) bool { return p.Name == name || p.Name == "*" })
		if !has && !off {
			set.Enabled = append(slices.Clip(set.Enabled), configv1.Plugin{Name: name})
		}
	}
}

// merge lays what a profile says over the defaults.
func merge(base, own *configv1.Plugins) *configv1.Plugins {
	if own == nil {
		return base
	}
	for _, s := range []struct{ base, own *configv1.PluginSet }{
		{&base.MultiPoint, &own.MultiPoint},
		{&base.PreEnqueue, &own.PreEnqueue},
		{&base.QueueSort, &own.QueueSort},
		{&base.PreFilter, &own.PreFilter},
		{&base.Filter, &own.Filter},
		{&base.PostFilter, &own.PostFilter},
		{&base.PreScore, &own.PreScore},
		{&base.Score, &own.Score},
		{&base.Reserve, &own.Reserve},
		{&base.Permit, &own.Permit},
		{&base.PreBind, &own.PreBind},
		{&base.Bind, &own.Bind},
		{&base.PostBind, &own.PostBind},
		{&base.PodGroupPostFilter, &own.PodGroupPostFilter},
	} {
		*s.base = mergeSet(*s.base, *s.own)
	}
	return base
}

// mergeSet keeps the order of the defaults; a default that is configured anew
// keeps its place, everything else follows.
func mergeSet(base, own configv1.PluginSet) configv1.PluginSet {
	off := map[string]bool{}
	for _, p := range own.Disabled {
		off[p.Name] = true
	}
	given := map[string]configv1.Plugin{}
	for _, p := range own.Enabled {
		given[p.Name] = p
	}
	var out configv1.PluginSet
	out.Disabled = own.Disabled
	placed := map[string]bool{}
	if !off["*"] {
		for _, p := range base.Enabled {
			if off[p.Name] {
				continue
			}
			if again, ok := given[p.Name]; ok {
				p = again
				placed[p.Name] = true
			}
			out.Enabled = append(out.Enabled, p)
		}
	}
	for _, p := range own.Enabled {
		if !placed[p.Name] {
			out.Enabled = append(out.Enabled, p)
		}
	}
	return out
}
