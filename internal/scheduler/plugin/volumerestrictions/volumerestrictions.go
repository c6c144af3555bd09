// SPDX-License-Identifier: Apache-2.0

// Package volumerestrictions is the plugin VolumeRestrictions: disks that can
// be attached once are, and claims for a single pod have one.
package volumerestrictions

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "VolumeRestrictions"

// Plugin implements Filter.
type Plugin struct {
	claims client.Typed[*corev1.PersistentVolumeClaim]

	disk, single *plugin.Status
}

// New returns the plugin.
func New(c client.Interface) *Plugin {
	p := &Plugin{
		claims: client.For[*corev1.PersistentVolumeClaim](c),
		disk:   plugin.NewStatus(Name, plugin.Unschedulable, "node(s) had no available disk"),
		single: plugin.NewStatus(Name, plugin.Unschedulable, "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"),
	}
	p.claims.Informer()
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer: only pods without disks and claims share.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	return key, len(c.Pod.Claims) == 0 && !slices.ContainsFunc(c.Pod.Object.Spec.Volumes, exclusive)
}

// exclusive says whether a volume is a disk that pods may have to take turns at.
func exclusive(v corev1.Volume) bool {
	return v.GCEPersistentDisk != nil || v.AWSElasticBlockStore != nil || v.RBD != nil || v.ISCSI != nil
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	pod := c.Pod.Object
	var disks []corev1.Volume
	for _, v := range pod.Spec.Volumes {
		if exclusive(v) {
			disks = append(disks, v)
		}
	}
	var single []string
	for i := range pod.Spec.Volumes {
		src := pod.Spec.Volumes[i].PersistentVolumeClaim
		if src == nil {
			continue
		}
		pvc, err := p.claims.Cached(pod.Namespace, src.ClaimName)
		if err != nil {
			return plugin.Filter{}, plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, plugin.NotFound("persistentvolumeclaim", src.ClaimName))
		}
		if slices.Contains(pvc.Spec.AccessModes, corev1.ReadWriteOncePod) {
			single = append(single, pod.Namespace+"/"+src.ClaimName)
		}
	}
	if len(disks)+len(single) == 0 {
		return plugin.Filter{}, nil
	}
	snap := c.Snapshot
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		for i := range disks {
			for _, other := range n.Pods {
				if conflicts(&disks[i], other.Object) {
					return p.disk
				}
			}
		}
		for _, key := range single {
			if snap.ClaimUsers(key) > 0 {
				return p.single
			}
		}
		return nil
	}}, nil
}

// conflicts says whether a pod uses the disk in a way that excludes others.
func conflicts(v *corev1.Volume, pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		o := &pod.Spec.Volumes[i]
		switch {
		case v.GCEPersistentDisk != nil && o.GCEPersistentDisk != nil:
			if v.GCEPersistentDisk.PDName == o.GCEPersistentDisk.PDName && !(v.GCEPersistentDisk.ReadOnly && o.GCEPersistentDisk.ReadOnly) {
				return true
			}
		case v.AWSElasticBlockStore != nil && o.AWSElasticBlockStore != nil:
			if v.AWSElasticBlockStore.VolumeID == o.AWSElasticBlockStore.VolumeID {
				return true
			}
		case v.ISCSI != nil && o.ISCSI != nil:
			if v.ISCSI.IQN == o.ISCSI.IQN && !(v.ISCSI.ReadOnly && o.ISCSI.ReadOnly) {
				return true
			}
		case v.RBD != nil && o.RBD != nil:
			if v.RBD.RBDPool == o.RBD.RBDPool && v.RBD.RBDImage == o.RBD.RBDImage && !(v.RBD.ReadOnly && o.RBD.ReadOnly) &&
				slices.ContainsFunc(v.RBD.CephMonitors, func(m string) bool { return slices.Contains(o.RBD.CephMonitors, m) }) {
				return true
			}
		}
	}
	return false
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Delete}, Worth: func(pod *corev1.Pod, before, _ any) bool {
			gone, ok := before.(*corev1.Pod)
			return !ok || shares(pod, gone)
		}},
		{Event: plugin.Event{Resource: plugin.PersistentVolumeClaim, Action: plugin.Add | plugin.Update}, Worth: func(pod *corev1.Pod, _, after any) bool {
			pvc, ok := after.(*corev1.PersistentVolumeClaim)
			return !ok || plugin.UsesClaim(pod, pvc)
		}},
	}
}

// shares says whether two pods use the same claim or exclude each other at a disk.
func shares(a, b *corev1.Pod) bool {
	for i := range a.Spec.Volumes {
		v := &a.Spec.Volumes[i]
		if exclusive(*v) && conflicts(v, b) {
			return true
		}
		if v.PersistentVolumeClaim != nil && a.Namespace == b.Namespace && slices.ContainsFunc(b.Spec.Volumes, func(o corev1.Volume) bool {
			return o.PersistentVolumeClaim != nil && o.PersistentVolumeClaim.ClaimName == v.PersistentVolumeClaim.ClaimName
		}) {
			return true
		}
	}
	return false
}
