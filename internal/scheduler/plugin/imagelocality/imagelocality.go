// SPDX-License-Identifier: Apache-2.0

// Package imagelocality is the plugin ImageLocality: nodes are better that
// already have the pod's images, weighed by how many nodes have them.
package imagelocality

import (
	"context"
	"encoding/binary"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "ImageLocality"

// Images smaller than the lower bound do not matter; per container, larger
// ones than the upper bound count as that.
const (
	mb              = 1024 * 1024
	minThreshold    = 23 * mb
	maxPerContainer = 1000 * mb
)

// Plugin implements Score.
type Plugin struct{ snap *snapshot.Snapshot }

// New returns the plugin.
func New(snap *snapshot.Snapshot) *Plugin { return &Plugin{snap} }

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// spread is an image of the pod and what a node that has it gains.
type spread struct {
	name  string
	gains int64
}

func (p *Plugin) images(pod *corev1.Pod) []spread {
	var out []spread
	collect := func(list []corev1.Container) {
		for i := range list {
			name := normalized(list[i].Image)
			if img := p.snap.Image(name); img != nil {
				out = append(out, spread{name, int64(float64(img.Size) * float64(img.Nodes) / float64(p.snap.Len()))})
			}
		}
	}
	collect(pod.Spec.InitContainers)
	collect(pod.Spec.Containers)
	for i := range pod.Spec.Volumes {
		if src := pod.Spec.Volumes[i].Image; src != nil {
			name := normalized(src.Reference)
			if img := p.snap.Image(name); img != nil {
				out = append(out, spread{name, int64(float64(img.Size) * float64(img.Nodes) / float64(p.snap.Len()))})
			}
		}
	}
	return out
}

// normalized adds the tag that an image without one means.
func normalized(name string) string {
	if strings.LastIndex(name, ":") <= strings.LastIndex(name, "/") {
		return name + ":latest"
	}
	return name
}

// Sign implements plugin.Signer. The signature holds the gains, which change
// with the nodes: pods are alike only as long as those stay.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	images := p.images(c.Pod.Object)
	for _, s := range images {
		key = binary.AppendVarint(append(append(key, s.name...), 0), s.gains)
	}
	if len(images) > 0 {
		key = binary.AppendVarint(key, containers(c.Pod.Object))
	}
	return key, true
}

func containers(pod *corev1.Pod) int64 {
	n := len(pod.Spec.InitContainers) + len(pod.Spec.Containers)
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Image != nil {
			n++
		}
	}
	return int64(n)
}

// Score implements plugin.Scorer.
func (p *Plugin) Score(_ context.Context, c *plugin.Cycle, _ []*snapshot.Node) (plugin.Score, *plugin.Status) {
	images := p.images(c.Pod.Object)
	if len(images) == 0 {
		return plugin.Score{}, nil
	}
	most := maxPerContainer * containers(c.Pod.Object)
	return plugin.Score{Node: func(n *snapshot.Node) int64 {
		var sum int64
		for i := range images {
			if n.HasImage(images[i].name) {
				sum += images[i].gains
			}
		}
		sum = min(max(sum, minThreshold), most)
		return plugin.MaxScore * (sum - minThreshold) / (most - minThreshold)
	}}, nil
}
