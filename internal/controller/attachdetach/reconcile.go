// SPDX-License-Identifier: Apache-2.0

package attachdetach

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What pods are told of an attachment besides errors.
const requested, attached = "requested", "attached"

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// reconcile attaches a volume to a node, or detaches it.
func (c *Controller) reconcile(ctx context.Context, k pair) error {
	v, err := c.volumes.Cached("", k.volume)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		v = nil
	}
	if v != nil && v.Spec.CSI == nil {
		return nil
	}
	a := c.attachment(v, k)
	if c.wanted(v, k.node) {
		c.mu.Lock()
		delete(c.unwanted, k)
		c.mu.Unlock()
		return c.attach(ctx, v, a, k)
	}
	if a == nil {
		c.forget(k)
		return nil
	}
	return c.detach(ctx, v, a, k)
}

// attachment returns the attachment of a pair, nil if there is none.
func (c *Controller) attachment(v *corev1.PersistentVolume, k pair) *storagev1.VolumeAttachment {
	for _, a := range c.attachments.ByIndex(byVolume, k.volume) {
		if a.Spec.NodeName == k.node && (ours(a, v) || v == nil && strings.HasPrefix(a.Name, "csi-")) {
			return a
		}
	}
	return nil
}

// attach asks for an attachment, or tells pods how it went.
func (c *Controller) attach(ctx context.Context, v *corev1.PersistentVolume, a *storagev1.VolumeAttachment, k pair) error {
	switch {
	case a == nil:
		return c.request(ctx, v, k)
	case a.DeletionTimestamp != nil: // it is attached anew when it is gone
	case a.Status.Attached:
		c.statuses.Add(k.node)
		if before := c.tell(k, attached); before != "" && before != attached { // else it was before this process
			c.record(ctx, v, k.node, corev1.EventTypeNormal, "SuccessfulAttachVolume", fmt.Sprintf("AttachVolume.Attach succeeded for volume %q ", v.Name))
		}
	case a.Status.AttachError != nil:
		failure := a.Status.AttachError
		if now := failure.Time.String() + failure.Message; c.tell(k, now) != now {
			c.record(ctx, v, k.node, corev1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("AttachVolume.Attach failed for volume %q : %s", v.Name, failure.Message))
		}
	}
	return nil
}

// request makes the attachment, unless another node has the volume for itself.
func (c *Controller) request(ctx context.Context, v *corev1.PersistentVolume, k pair) error {
	n, err := c.nodes.Cached("", k.node)
	if err != nil || n.Annotations[managed] == "" {
		return nil
	}
	if others := c.others(v, k.node); len(others) > 0 && exclusive(v) {
		c.explain(ctx, v, k, others)
		return nil
	}
	c.tell(k, requested)
	_, err = c.attachments.Create(ctx, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: attachmentName(v.Spec.CSI, k.node)},
		Spec: storagev1.VolumeAttachmentSpec{Attacher: v.Spec.CSI.Driver, NodeName: k.node,
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &v.Name}},
	})
	if apierrors.IsAlreadyExists(err) {
		return nil // its event comes
	}
	return err
}

// others returns the other nodes that a volume is attached to.
func (c *Controller) others(v *corev1.PersistentVolume, node string) []string {
	var out []string
	for _, a := range c.attachments.ByIndex(byVolume, v.Name) {
		if a.Spec.NodeName != node {
			out = append(out, a.Spec.NodeName)
		}
	}
	return out
}

// explain tells the pods of a node who has their volume. Names of pods stay
// within their namespace.
func (c *Controller) explain(ctx context.Context, v *corev1.PersistentVolume, k pair, others []string) {
	var names []string
	for _, pod := range c.users(v, "") {
		if slices.Contains(others, pod.Spec.NodeName) {
			names = append(names, pod.Name)
		}
	}
	why := "Volume is already exclusively attached to one node, waiting on detach before it can be attached to another node"
	if len(names) > 0 {
		why = "Volume is already used by pod(s) " + strings.Join(names, ", ")
	}
	if message := fmt.Sprintf("Waiting for detach for volume %q %s", v.Name, why); c.tell(k, message) != message {
		c.record(ctx, v, k.node, corev1.EventTypeWarning, "FailedAttachVolume", message)
	}
}

func (c *Controller) record(ctx context.Context, v *corev1.PersistentVolume, node, kind, reason, message string) {
	for _, pod := range c.users(v, node) {
		c.events.Record(ctx, pod, podKind, kind, reason, "%s", message)
	}
}

// detach lets an attachment go, after the node's status says so.
func (c *Controller) detach(ctx context.Context, v *corev1.PersistentVolume, a *storagev1.VolumeAttachment, k pair) error {
	if a.DeletionTimestamp != nil {
		return nil
	}
	ok, after := c.releasable(v, k)
	if !ok {
		if after > 0 {
			c.pairs.AddAfter(k, after)
		}
		return nil
	}
	if c.reported(v, k.node) {
		c.statuses.Add(k.node) // and its event comes back here
		return nil
	}
	c.countForced(ctx, k)
	err := c.attachments.Delete(ctx, "", a.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &a.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// report writes what is attached to a node into its status. Volumes that are
// about to be detached are left out, so that the node mounts them no more.
func (c *Controller) report(ctx context.Context, node string) error {
	n, err := c.nodes.Cached("", node)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var want []corev1.AttachedVolume
	for _, a := range c.attachments.ByIndex(byNode, node) {
		k := keyOf(a)
		v, err := c.volumes.Cached("", k.volume)
		if err != nil || !ours(a, v) || !a.Status.Attached || a.DeletionTimestamp != nil {
			continue
		}
		if !c.wanted(v, node) {
			if ok, _ := c.releasable(v, k); ok {
				continue
			}
		}
		want = append(want, corev1.AttachedVolume{Name: uniqueName(v.Spec.CSI)})
	}
	slices.SortFunc(want, func(a, b corev1.AttachedVolume) int { return cmp.Compare(a.Name, b.Name) })
	have := slices.Clone(n.Status.VolumesAttached)
	slices.SortFunc(have, func(a, b corev1.AttachedVolume) int { return cmp.Compare(a.Name, b.Name) })
	if equality.Semantic.DeepEqual(have, want) {
		return nil
	}
	_, err = c.nodes.MergePatch(ctx, "", node, map[string]any{"status": map[string]any{"volumesAttached": want}}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
