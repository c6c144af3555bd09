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
	c.events.Record(ctx, claim, kind, corev1.EventTypeNormal, "ExternalExpanding",
		"waiting for an external controller to expand this PVC")
	return nil
}
