// SPDX-License-Identifier: Apache-2.0

// Package nodevolumelimits is the plugin NodeVolumeLimits: no node gets more
// volumes of a CSI driver than its CSINode says can be attached, and none at all
// where the driver is missing, if it wants that.
package nodevolumelimits

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "NodeVolumeLimits"

// Plugin implements Filter.
type Plugin struct {
	claims      client.Typed[*corev1.PersistentVolumeClaim]
	volumes     client.Typed[*corev1.PersistentVolume]
	classes     client.Typed[*storagev1.StorageClass]
	nodes       client.Typed[*storagev1.CSINode]
	drivers     client.Typed[*storagev1.CSIDriver]
	attachments client.Typed[*storagev1.VolumeAttachment]

	full *plugin.Status
}

const byNode = "scheduler/attachments-by-node"

// New returns the plugin.
func New(c client.Interface) *Plugin {
	p := &Plugin{
		claims: client.For[*corev1.PersistentVolumeClaim](c), volumes: client.For[*corev1.PersistentVolume](c),
		classes: client.For[*storagev1.StorageClass](c), nodes: client.For[*storagev1.CSINode](c),
		drivers: client.For[*storagev1.CSIDriver](c), attachments: client.For[*storagev1.VolumeAttachment](c),
		full: plugin.NewStatus(Name, plugin.Unschedulable, "node(s) exceed max volume count"),
	}
	p.claims.Informer()
	p.volumes.Informer()
	p.classes.Informer()
	p.nodes.Informer()
	p.drivers.Informer()
	p.attachments.AddIndex(byNode, func(a *storagev1.VolumeAttachment) []string { return []string{a.Spec.NodeName} })
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer: only pods without claims share.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	return key, len(c.Pod.Claims) == 0
}

// volume is one volume of a driver, however many pods use it.
type volume struct{ driver, handle string }

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	wanted := map[volume]struct{}{}
	p.collect(c.Pod.Object, wanted)
	if len(wanted) == 0 {
		return plugin.Filter{}, nil
	}
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		csi, err := p.nodes.Cached("", n.Name)
		if err != nil {
			csi = nil
		}
		if missing := p.missing(wanted, csi); missing != "" {
			return plugin.NewStatus(Name, plugin.Unschedulable, missing+" CSI driver is not installed on the node")
		}
		if csi == nil {
			return nil // no driver has registered, so none has set a limit
		}
		limits := map[string]int{}
		for i := range csi.Spec.Drivers {
			if d := &csi.Spec.Drivers[i]; d.Allocatable != nil && d.Allocatable.Count != nil {
				limits[d.Name] = int(*d.Allocatable.Count)
			}
		}
		if len(limits) == 0 {
			return nil
		}
		used := map[volume]struct{}{}
		for _, pod := range n.Pods {
			if len(pod.Claims) > 0 {
				p.collect(pod.Object, used)
			}
		}
		counts := map[string]int{}
		for v := range used {
			counts[v.driver]++
		}
		for v := range p.attached(n.Name) {
			if _, there := used[v]; !there {
				counts[v.driver]++
			}
		}
		// A volume that only an attachment holds counts twice, as it does
		// upstream: it may be on its way off the node.
		for v := range wanted {
			if _, there := used[v]; there {
				continue
			}
			counts[v.driver]++
			if limit, ok := limits[v.driver]; ok && counts[v.driver] > limit {
				return p.full
			}
		}
		return nil
	}}, nil
}

// attached lists the volumes that are attached to a node.
func (p *Plugin) attached(node string) map[volume]struct{} {
	out := map[volume]struct{}{}
	for _, a := range p.attachments.ByIndex(byNode, node) {
		if a.Spec.Source.PersistentVolumeName == nil {
			continue
		}
		if pv, err := p.volumes.Cached("", *a.Spec.Source.PersistentVolumeName); err == nil && pv.Spec.CSI != nil {
			out[volume{pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle}] = struct{}{}
		}
	}
	return out
}

// missing returns a driver of the wanted volumes that the node lacks although it
// must be there before pods come, "" for none.
func (p *Plugin) missing(wanted map[volume]struct{}, csi *storagev1.CSINode) string {
	for v := range wanted {
		driver, err := p.drivers.Cached("", v.driver)
		if err != nil || driver.Spec.PreventPodSchedulingIfMissing == nil || !*driver.Spec.PreventPodSchedulingIfMissing {
			continue
		}
		if csi == nil || !slices.ContainsFunc(csi.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == v.driver }) {
			return v.driver
		}
	}
	return ""
}

// collect adds the CSI volumes that a pod uses, those to be provisioned under
// the claim's name.
func (p *Plugin) collect(pod *corev1.Pod, into map[volume]struct{}) {
	for i := range pod.Spec.Volumes {
		name, _ := plugin.ClaimName(pod, &pod.Spec.Volumes[i])
		if name == "" {
			continue
		}
		pvc, err := p.claims.Cached(pod.Namespace, name)
		if err != nil {
			continue // judged by VolumeBinding
		}
		if pvc.Spec.VolumeName != "" {
			if pv, err := p.volumes.Cached("", pvc.Spec.VolumeName); err == nil {
				if pv.Spec.CSI != nil {
					into[volume{pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle}] = struct{}{}
				}
				continue
			}
		}
		if sc, err := p.classes.Cached("", storagehelpers.GetPersistentVolumeClaimClass(pvc)); err == nil {
			into[volume{sc.Provisioner, "claim " + pod.Namespace + "/" + name}] = struct{}{}
		}
	}
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.CSINode, Action: plugin.Add | plugin.Update}},
		{Event: plugin.Event{Resource: plugin.CSIDriver, Action: plugin.Add | plugin.Update | plugin.Delete}},
		{Event: plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Delete}, Worth: func(_ *corev1.Pod, before, _ any) bool {
			gone, ok := before.(*corev1.Pod)
			if !ok {
				return true
			}
			for i := range gone.Spec.Volumes {
				if name, _ := plugin.ClaimName(gone, &gone.Spec.Volumes[i]); name != "" {
					return true
				}
			}
			return false
		}},
		{Event: plugin.Event{Resource: plugin.PersistentVolumeClaim, Action: plugin.Add | plugin.Update}, Worth: func(pod *corev1.Pod, _, after any) bool {
			pvc, ok := after.(*corev1.PersistentVolumeClaim)
			return !ok || plugin.UsesClaim(pod, pvc)
		}},
		{Event: plugin.Event{Resource: plugin.VolumeAttachment, Action: plugin.Delete}},
	}
}
