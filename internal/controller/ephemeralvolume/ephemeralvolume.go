// SPDX-License-Identifier: Apache-2.0

// Package ephemeralvolume makes the claims of pods' generic ephemeral volumes
// (KEP-1698). The pod owns its claims and takes them along when it goes. The
// controller manager runs it.
package ephemeralvolume

import (
	"context"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const workers = 5

var kind = corev1.SchemeGroupVersion.WithKind("Pod")

// Controller makes claims.
type Controller struct {
	pods   client.Typed[*corev1.Pod]
	claims client.Typed[*corev1.PersistentVolumeClaim]
	queue  *queue.Queue[queue.Key]
	events *event.Recorder
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{pods: client.For[*corev1.Pod](api), claims: client.For[*corev1.PersistentVolumeClaim](api), events: event.New(api, "ephemeral_volume", log)}
	c.queue = queue.New("ephemeral_volume", log, c.reconcile)
	c.pods.AddHandler(client.Handler[*corev1.Pod]{Add: func(pod *corev1.Pod) {
		for i := range pod.Spec.Volumes {
			if pod.Spec.Volumes[i].Ephemeral != nil && pod.DeletionTimestamp == nil {
				c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: pod.Name})
				return
			}
		}
	}})
	c.claims.AddHandler(client.Handler[*corev1.PersistentVolumeClaim]{Delete: func(claim *corev1.PersistentVolumeClaim) {
		if ref := metav1.GetControllerOf(claim); ref != nil && ref.Kind == kind.Kind {
			c.queue.Add(queue.Key{Namespace: claim.Namespace, Name: ref.Name})
		}
	}})
	return c
}

// Run makes claims until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.pods.Informer(), c.claims.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	pod, err := c.pods.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) || err == nil && pod.DeletionTimestamp != nil {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Ephemeral == nil {
			continue
		}
		if err := c.ensure(ctx, pod, v); err != nil {
			c.events.Record(ctx, pod, kind, corev1.EventTypeWarning, "FailedBinding", "ephemeral volume %s: %v", v.Name, err)
			return err
		}
	}
	return nil
}

func (c *Controller) ensure(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) error {
	name, template := ephemeral.VolumeClaimName(pod, v), v.Ephemeral.VolumeClaimTemplate
	have, err := c.claims.Cached(pod.Namespace, name)
	if apierrors.IsNotFound(err) {
		_, err = c.claims.Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: name, Labels: template.Labels, Annotations: template.Annotations,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, kind)}},
			Spec: template.Spec,
		})
		meter.From(ctx).ClaimMade(err)
		switch {
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil
		case !apierrors.IsAlreadyExists(err):
			return err
		}
		have, err = c.claims.Get(ctx, pod.Namespace, name)
	}
	if err != nil {
		return err
	}
	return ephemeral.VolumeIsForPod(pod, have)
}
