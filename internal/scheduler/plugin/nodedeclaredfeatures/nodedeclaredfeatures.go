// SPDX-License-Identifier: Apache-2.0

// Package nodedeclaredfeatures is the plugin NodeDeclaredFeatures: a pod that
// needs a feature of the kubelet goes where status.declaredFeatures lists it
// (KEP-5328). Which fields of a pod need which feature is upstream's library's
// to say.
package nodedeclaredfeatures

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
	build "k8s.io/component-base/version"
	ndf "k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "NodeDeclaredFeatures"

// Plugin implements Filter.
type Plugin struct {
	version *version.Version
	lacking *plugin.Status
}

// New returns the plugin. The error says that the program's version is none.
func New() (*Plugin, error) {
	v, err := version.Parse(build.Get().String())
	if err != nil {
		return nil, fmt.Errorf("failed to parse version: %w", err)
	}
	return &Plugin{v, plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) didn't match Pod's required features")}, nil
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

func (p *Plugin) needs(pod *corev1.Pod) (ndf.FeatureSet, error) {
	return ndf.DefaultFramework.InferForPodScheduling(&types.PodInfo{Spec: &pod.Spec}, p.version)
}

// Sign implements plugin.Signer: only pods without needs share. The plugin comes
// last, and what is shared is judged first.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	needs, err := p.needs(c.Pod.Object)
	return key, err == nil && needs.IsEmpty()
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	needs, err := p.needs(c.Pod.Object)
	if err != nil {
		return plugin.Filter{}, plugin.AsStatus(Name, err)
	}
	if needs.IsEmpty() {
		return plugin.Filter{}, nil
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		match, err := ndf.DefaultFramework.MatchNode(needs, n.Object)
		switch {
		case err != nil:
			return plugin.AsStatus(Name, err)
		case !match.IsMatch:
			return p.lacking
		}
		return nil
	}}, nil
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeDeclaredFeature}, Worth: func(_ *corev1.Pod, before, after any) bool {
			was, _ := before.(*corev1.Node)
			is, _ := after.(*corev1.Node)
			return was == nil || is == nil || !slices.Equal(was.Status.DeclaredFeatures, is.Status.DeclaredFeatures)
		}},
		{Event: plugin.Event{Resource: plugin.TargetPod, Action: plugin.Update}, Worth: p.needsOthers},
	}
}

// needsOthers says whether an update changed what the pod needs.
func (p *Plugin) needsOthers(_ *corev1.Pod, before, after any) bool {
	was, ok := before.(*corev1.Pod)
	is, also := after.(*corev1.Pod)
	if !ok || !also {
		return true
	}
	old, oldErr := p.needs(was)
	needs, err := p.needs(is)
	return oldErr != nil || err != nil || !needs.Equal(old)
}
