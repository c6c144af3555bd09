// SPDX-License-Identifier: Apache-2.0

package attachdetach

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/storage/ephemeral"

	"kaji/internal/controller/meter"
)

// used tells the node and the plug-in of every volume of an attachable kind that
// a pod on a node has.
func (c *Controller) used(one func(labels ...string)) {
	for _, pod := range c.pods.CachedList("", nil) {
		if pod.Spec.NodeName == "" {
			continue
		}
		for i := range pod.Spec.Volumes {
			if plugin := c.pluginOf(pod, &pod.Spec.Volumes[i]); plugin != "" {
				one(pod.Spec.NodeName, plugin)
			}
		}
	}
}

// pluginOf names the plug-in of a pod's volume, if such volumes are attached.
func (c *Controller) pluginOf(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return c.pluginOfClaim(pod.Namespace + "/" + v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		return c.pluginOfClaim(pod.Namespace + "/" + ephemeral.VolumeClaimName(pod, v))
	case v.CSI != nil:
		return "kubernetes.io/csi:" + v.CSI.Driver
	case v.ISCSI != nil:
		return "kubernetes.io/iscsi"
	case v.FC != nil:
		return "kubernetes.io/fc"
	}
	return ""
}

func (c *Controller) pluginOfClaim(key string) string {
	v := c.boundTo(key)
	if v == nil || v.Spec.CSI == nil && v.Spec.ISCSI == nil && v.Spec.FC == nil {
		return ""
	}
	return meter.PluginOf(&v.Spec.PersistentVolumeSource)
}

// wantedPairs names the plug-in of every volume that is to be attached to a node,
// as often as there are nodes.
func (c *Controller) wantedPairs(plugin func(name string)) {
	seen := map[pair]bool{}
	for _, pod := range c.pods.CachedList("", nil) {
		for _, key := range claimsOf(pod) {
			v := c.volumeOf(key)
			if v == nil || seen[pair{v.Name, pod.Spec.NodeName}] || !c.wanted(v, pod.Spec.NodeName) {
				continue
			}
			seen[pair{v.Name, pod.Spec.NodeName}] = true
			plugin(meter.PluginOf(&v.Spec.PersistentVolumeSource))
		}
	}
}

// attachedPairs names the plug-in of every volume that is attached to a node.
func (c *Controller) attachedPairs(plugin func(name string)) {
	for _, a := range c.attachments.CachedList("", nil) {
		if v, err := c.volumes.Cached("", keyOf(a).volume); err == nil && ours(a, v) && a.Status.Attached {
			plugin(meter.PluginOf(&v.Spec.PersistentVolumeSource))
		}
	}
}

// countForced counts and tells that a volume is detached from a node that may
// still use it.
func (c *Controller) countForced(ctx context.Context, k pair) {
	n, err := c.nodes.Cached("", k.node)
	switch {
	case !c.noForce && c.unwantedFor(k) >= forceAfter && (err != nil || !ready(n)):
		meter.From(ctx).DetachedByForce("timeout")
	case err == nil && outOfService(n):
		meter.From(ctx).DetachedByForce("out-of-service")
	default:
		return
	}
	c.log.Warn("a volume is detached from a node that may still use it", "volume", k.volume, "node", k.node)
}
