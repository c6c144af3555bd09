// SPDX-License-Identifier: Apache-2.0

// Package volumezone is the plugin VolumeZone: a pod goes where the zone and
// region labels of its bound volumes say that they can be attached.
package volumezone

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "VolumeZone"

// Plugin implements Filter.
type Plugin struct {
	claims  client.Typed[*corev1.PersistentVolumeClaim]
	volumes client.Typed[*corev1.PersistentVolume]
	classes client.Typed[*storagev1.StorageClass]

	conflict *plugin.Status
}

// New returns the plugin.
func New(c client.Interface) *Plugin {
	p := &Plugin{
		claims: client.For[*corev1.PersistentVolumeClaim](c), volumes: client.For[*corev1.PersistentVolume](c),
		classes:  client.For[*storagev1.StorageClass](c),
		conflict: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "node(s) had no available volume zone"),
	}
	p.claims.Informer()
	p.volumes.Informer()
	p.classes.Informer()
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer: only pods without claims share.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	return key, len(c.Pod.Claims) == 0
}

// demand is a label that nodes need one of the values of.
type demand struct {
	key, alias string // the label and its other name
	values     []string
}

// aliases are the topology labels and their beta names.
var aliases = map[string]string{
	corev1.LabelTopologyZone:            corev1.LabelFailureDomainBetaZone,
	corev1.LabelTopologyRegion:          corev1.LabelFailureDomainBetaRegion,
	corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
	corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	pod := c.Pod.Object
	var demands []demand
	for i := range pod.Spec.Volumes {
		name, _ := plugin.ClaimName(pod, &pod.Spec.Volumes[i])
		if name == "" {
			continue
		}
		pv, st := p.volume(pod.Namespace, name)
		if st != nil {
			return plugin.Filter{}, st
		}
		if pv == nil {
			continue
		}
		for _, key := range []string{corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion, corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
			value, ok := pv.Labels[key]
			if !ok {
				continue
			}
			// A volume of several zones joins them by two underscores.
			demands = append(demands, demand{key, aliases[key], strings.Split(value, "__")})
		}
	}
	if len(demands) == 0 {
		return plugin.Filter{}, nil
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		for _, d := range demands {
			value, ok := n.Object.Labels[d.key]
			if !ok {
				value, ok = n.Object.Labels[d.alias]
			}
			if !ok && !zoned(n.Object) {
				continue // a cluster without zones
			}
			if !ok || !slices.Contains(d.values, value) {
				return p.conflict
			}
		}
		return nil
	}}, nil
}

func zoned(node *corev1.Node) bool {
	for key := range aliases {
		if _, ok := node.Labels[key]; ok {
			return true
		}
	}
	return false
}

// volume returns what a claim is bound to, nil when that comes later.
func (p *Plugin) volume(namespace, name string) (*corev1.PersistentVolume, *plugin.Status) {
	unresolvable := func(msg string) *plugin.Status {
		return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, msg)
	}
	pvc, err := p.claims.Cached(namespace, name)
	if err != nil {
		return nil, unresolvable(plugin.NotFound("persistentvolumeclaim", name))
	}
	if pvc.Spec.VolumeName == "" {
		class := storagehelpers.GetPersistentVolumeClaimClass(pvc)
		if class == "" {
			return nil, unresolvable("PersistentVolumeClaim had no pv name and storageClass name")
		}
		sc, err := p.classes.Cached("", class)
		if err != nil {
			return nil, unresolvable(plugin.NotFound("storageclass.storage.k8s.io", class))
		}
		if sc.VolumeBindingMode == nil {
			return nil, unresolvable(fmt.Sprintf("VolumeBindingMode not set for StorageClass %q", class))
		}
		if *sc.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer {
			return nil, nil
		}
		return nil, unresolvable("PersistentVolume had no name")
	}
	pv, err := p.volumes.Cached("", pvc.Spec.VolumeName)
	if err != nil {
		return nil, unresolvable(plugin.NotFound("persistentvolume", pvc.Spec.VolumeName))
	}
	return pv, nil
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.StorageClass, Action: plugin.Add}},
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeLabel}},
		{Event: plugin.Event{Resource: plugin.PersistentVolumeClaim, Action: plugin.Add | plugin.Update}, Worth: func(pod *corev1.Pod, _, after any) bool {
			pvc, ok := after.(*corev1.PersistentVolumeClaim)
			return !ok || plugin.UsesClaim(pod, pvc)
		}},
		{Event: plugin.Event{Resource: plugin.PersistentVolume, Action: plugin.Add | plugin.Update}},
	}
}
