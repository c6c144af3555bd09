// SPDX-License-Identifier: Apache-2.0

// Package volumeexpand says on claims that ask for more than they have that an
// outside controller has to expand the volume: kaji has no volume plug-ins that
// could. The controller manager runs it.
package volumeexpand

import (
	"context"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

var kind = corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")

// Controller watches claims.
type Controller struct {
	claims  client.Typed[*corev1.PersistentVolumeClaim]
	volumes client.Typed[*corev1.PersistentVolume]
	queue   *queue.Queue[queue.Key]
	events  *event.Recorder
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{claims: client.For[*corev1.PersistentVolumeClaim](api), volumes: client.For[*corev1.PersistentVolume](api), events: event.New(api, "volume_expand", log)}
	c.queue = queue.New("volume_expand", log, c.reconcile)
	add := func(claim *corev1.PersistentVolumeClaim) {
		if grows(claim) {
			c.queue.Add(queue.Key{Namespace: claim.Namespace, Name: claim.Name})
		}
	}
	c.claims.AddHandler(client.Handler[*corev1.PersistentVolumeClaim]{Add: add, Update: func(old, claim *corev1.PersistentVolumeClaim) {
		before, now := old.Spec.Resources.Requests[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
		if before.Cmp(now) < 0 {
			add(claim)
		}
	}})
	return c
}

// grows says whether a bound claim asks for more than it has.
func grows(claim *corev1.PersistentVolumeClaim) bool {
	wanted, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	return claim.Status.Phase == corev1.ClaimBound && wanted.Cmp(has) > 0
}

// Run watches until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.claims.Informer(), c.volumes.Informer()) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	claim, err := c.claims.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) || err == nil && !grows(claim) {
		return nil
	}
	if err != nil {
		return err
	}
	v, err := c.volumes.Cached("", claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) || err == nil && (v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != claim.UID) {
		return nil // the binder tells what is wrong with it
	}
	if err != nil {
		return err
	}
	plugin, driver := formerPlugin(&v.Spec.PersistentVolumeSource)
	if plugin == "" {
		c.events.Record(ctx, claim, kind, corev1.EventTypeNormal, "ExternalExpanding", "waiting for an external controller to expand this PVC")
		return nil
	}
	c.events.Record(ctx, claim, kind, corev1.EventTypeNormal, "ExternalExpanding",
		"CSI migration enabled for %s; waiting for external resizer to expand the pvc", plugin)
	if claim.Annotations[resizer] == driver {
		return nil
	}
	// By the status: the controller's account may write no more of a claim.
	note := map[string]any{"metadata": map[string]any{"annotations": map[string]string{resizer: driver}}}
	if _, err = c.claims.MergePatch(ctx, claim.Namespace, claim.Name, note, "status"); apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// resizer is the annotation that names who is to expand a volume of a former
// plug-in.
const resizer = "volume.kubernetes.io/storage-resizer"

// formerPlugin names the plug-in that upstream once had for a volume, and the
// CSI driver in its place.
func formerPlugin(v *corev1.PersistentVolumeSource) (plugin, driver string) {
	switch {
	case v.AWSElasticBlockStore != nil:
		return "kubernetes.io/aws-ebs", "ebs.csi.aws.com"
	case v.GCEPersistentDisk != nil:
		return "kubernetes.io/gce-pd", "pd.csi.storage.gke.io"
	case v.Cinder != nil:
		return "kubernetes.io/cinder", "cinder.csi.openstack.org"
	case v.AzureDisk != nil:
		return "kubernetes.io/azure-disk", "disk.csi.azure.com"
	case v.AzureFile != nil:
		return "kubernetes.io/azure-file", "file.csi.azure.com"
	case v.VsphereVolume != nil:
		return "kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"
	case v.PortworxVolume != nil:
		return "kubernetes.io/portworx-volume", "pxd.portworx.com"
	}
	return "", ""
}
