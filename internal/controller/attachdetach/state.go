// SPDX-License-Identifier: Apache-2.0

package attachdetach

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// forceAfter is how long a node that is not ready may say that a volume is
// mounted before it is detached nevertheless.
const forceAfter = 6 * time.Minute

// attachmentName is the name of a volume's attachment to a node; drivers look
// for it, too.
func attachmentName(source *corev1.CSIPersistentVolumeSource, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(source.VolumeHandle+source.Driver+node)))
}

// uniqueName is a volume's name in a node's status.
func uniqueName(source *corev1.CSIPersistentVolumeSource) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + source.Driver + "^" + source.VolumeHandle)
}

// done says whether a pod needs its volumes no more.
func done(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return true
	}
	return pod.DeletionTimestamp != nil && !slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.State.Terminated == nil && s.State.Waiting == nil
	})
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func outOfService(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// volumeOf returns the CSI volume that a claim, namespace/name, is bound to;
// nil if there is none.
func (c *Controller) volumeOf(key string) *corev1.PersistentVolume {
	if v := c.boundTo(key); v != nil && v.Spec.CSI != nil {
		return v
	}
	return nil
}

// boundTo returns the volume that a claim is bound to, nil if there is none.
func (c *Controller) boundTo(key string) *corev1.PersistentVolume {
	namespace, name, _ := strings.Cut(key, "/")
	claim, err := c.claims.Cached(namespace, name)
	if err != nil || claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound {
		return nil
	}
	v, err := c.volumes.Cached("", claim.Spec.VolumeName)
	if err != nil || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != claim.UID {
		return nil
	}
	return v
}

// users returns the pods that need a volume, by name; those of one node, or of
// all when it is empty.
func (c *Controller) users(v *corev1.PersistentVolume, node string) []*corev1.Pod {
	if v.Spec.ClaimRef == nil {
		return nil
	}
	key := v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name
	if bound := c.volumeOf(key); bound == nil || bound.Name != v.Name {
		return nil
	}
	pods := slices.DeleteFunc(c.pods.ByIndex(byClaim, key), func(pod *corev1.Pod) bool {
		return done(pod) || node != "" && pod.Spec.NodeName != node
	})
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods
}

// attachable says whether a driver's volumes are attached at all.
func (c *Controller) attachable(driver string) bool {
	d, err := c.drivers.Cached("", driver)
	return err != nil || d.Spec.AttachRequired == nil || *d.Spec.AttachRequired
}

// wanted says whether a volume is to be attached to a node.
func (c *Controller) wanted(v *corev1.PersistentVolume, node string) bool {
	return v != nil && v.Spec.CSI != nil && c.attachable(v.Spec.CSI.Driver) && len(c.users(v, node)) > 0
}

// exclusive says whether a volume can be attached to one node only.
func exclusive(v *corev1.PersistentVolume) bool {
	return len(v.Spec.AccessModes) > 0 && !slices.Contains(v.Spec.AccessModes, corev1.ReadWriteMany) && !slices.Contains(v.Spec.AccessModes, corev1.ReadOnlyMany)
}

// unwantedFor is how long an attachment has not been wanted.
func (c *Controller) unwantedFor(k pair) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, ok := c.unwanted[k]
	if !ok {
		since = time.Now()
		c.unwanted[k] = since
	}
	return time.Since(since)
}

// forget drops what was remembered of a pair.
func (c *Controller) forget(k pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unwanted, k)
	delete(c.told, k)
}

// tell notes what pods are told of a pair, and returns what they were told
// before.
func (c *Controller) tell(k pair, message string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.told[k]
	c.told[k] = message
	return before
}

// releasable says whether a volume that is not wanted on a node may be detached
// from it; if not, when to ask again (zero: when something changes).
func (c *Controller) releasable(v *corev1.PersistentVolume, k pair) (ok bool, after time.Duration) {
	n, err := c.nodes.Cached("", k.node)
	there := err == nil
	if there && outOfService(n) {
		return true, 0
	}
	if there && !inUse(n, v) {
		return true, 0
	}
	waited := c.unwantedFor(k)
	switch {
	case there && ready(n) || c.noForce:
		return false, 0
	case waited < forceAfter:
		return false, forceAfter - waited
	}
	return true, 0
}

// inUse says whether a node tells that it has a volume mounted.
func inUse(n *corev1.Node, v *corev1.PersistentVolume) bool {
	return v != nil && v.Spec.CSI != nil && slices.Contains(n.Status.VolumesInUse, uniqueName(v.Spec.CSI))
}

// reported says whether a node's status has a volume attached.
func (c *Controller) reported(v *corev1.PersistentVolume, node string) bool {
	n, err := c.nodes.Cached("", node)
	return err == nil && v != nil && v.Spec.CSI != nil && slices.ContainsFunc(n.Status.VolumesAttached, func(a corev1.AttachedVolume) bool {
		return a.Name == uniqueName(v.Spec.CSI)
	})
}

// ours says whether an attachment is one that this controller makes.
func ours(a *storagev1.VolumeAttachment, v *corev1.PersistentVolume) bool {
	return v != nil && v.Spec.CSI != nil && a.Name == attachmentName(v.Spec.CSI, a.Spec.NodeName)
}
