// SPDX-License-Identifier: Apache-2.0

// Package replicaset keeps as many pods of a ReplicaSet, or of the older
// ReplicationController, as it asks for. The controller manager runs it once
// for each; package deployment makes the ReplicaSets.
package replicaset

import (
	"context"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/adopt"
	"kaji/internal/controller/event"
	"kaji/internal/controller/expect"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/podstate"
	"kaji/internal/controller/queue"
)

const (
	// burst bounds the pods made or deleted in one reconciliation.
	burst   = 500
	workers = 5
)

// Controller manages pods.
type Controller struct {
	kind    schema.GroupVersionKind
	sets    source
	pods    client.Typed[*corev1.Pod]
	queue   *queue.Queue[queue.Key]
	events  *event.Recorder
	pending expect.Pending
}

// New returns the controller of ReplicaSets.
func New(api client.Interface, log *slog.Logger) *Controller {
	return newController(api, log, replicaSets(api), appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), "replicaset-controller", "replicaset")
}

// NewReplicationController returns the controller of ReplicationControllers.
func NewReplicationController(api client.Interface, log *slog.Logger) *Controller {
	return newController(api, log, replicationControllers(api), corev1.SchemeGroupVersion.WithKind("ReplicationController"), "replication-controller", "replicationmanager")
}

func newController(api client.Interface, log *slog.Logger, sets source, kind schema.GroupVersionKind, name, metric string) *Controller {
	c := &Controller{kind: kind, sets: sets, pods: client.For[*corev1.Pod](api), events: event.New(api, name, log)}
	c.queue = queue.New(metric, log, c.reconcile)
	adopt.Index(c.pods)
	c.sets.handle(func(o metav1.Object, gone bool) {
		if gone {
			c.pending.Forget(o.GetUID())
		}
		c.queue.Add(queue.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
	})
	c.pods.AddHandler(client.Handler[*corev1.Pod]{
		Add: c.podChanged,
		Update: func(old, pod *corev1.Pod) {
			if before := metav1.GetControllerOf(old); before != nil {
				if now := metav1.GetControllerOf(pod); now == nil || now.UID != before.UID {
					c.podChanged(old)
				}
			}
			c.podChanged(pod)
		},
		Delete: func(pod *corev1.Pod) {
			if ref := metav1.GetControllerOf(pod); ref != nil {
				c.pending.Gone(ref.UID, pod.UID)
			}
			c.podChanged(pod)
		},
	})
	return c
}

// podChanged wakes the pod's set, or all that might adopt it.
func (c *Controller) podChanged(pod *corev1.Pod) {
	if ref := metav1.GetControllerOf(pod); ref != nil {
		if ref.Kind == c.kind.Kind {
			c.pending.Seen(ref.UID, pod.UID)
			if pod.DeletionTimestamp != nil {
				c.pending.Gone(ref.UID, pod.UID)
			}
			c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: ref.Name})
		}
		return
	}
	for _, rs := range c.sets.list(pod.Namespace) {
		if s, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector); err == nil && !s.Empty() && s.Matches(labels.Set(pod.Labels)) {
			c.queue.Add(queue.Key{Namespace: rs.Namespace, Name: rs.Name})
		}
	}
}

// Run manages pods until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.sets.informer, c.pods.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	rs, err := c.sets.cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return nil // validation keeps such sets out
	}
	pods, err := adopt.Claim[*corev1.Pod]{
		Owner: rs, Kind: c.kind, Selector: selector, Objects: c.pods, Counts: podstate.Active,
		Fresh: func() (metav1.Object, error) { return c.sets.live(ctx, key.Namespace, key.Name) },
	}.Claimed(ctx)
	if err != nil {
		return err
	}
	var failure error
	switch {
	case rs.DeletionTimestamp != nil:
	case c.pending.Settled(rs.UID):
		failure = c.scale(ctx, rs, pods)
	default:
		meter.From(ctx).StaleSkip("replicaset_controller")
	}
	after, err := c.updateStatus(ctx, rs, pods, failure)
	if after > 0 {
		c.queue.AddAfter(key, after)
	}
	if failure != nil {
		return failure
	}
	return err
}

// terminating counts the pods of a set that are being deleted and still run.
func (c *Controller) terminating(rs *appsv1.ReplicaSet) (n int32) {
	for _, pod := range adopt.Owned(c.pods, rs.UID) {
		if pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			n++
		}
	}
	return n
}

// updateStatus writes the status if it differs; after is when the next pod
// becomes available by waiting.
func (c *Controller) updateStatus(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod, failure error) (after time.Duration, err error) {
	status := rs.Status.DeepCopy()
	status.Replicas, status.FullyLabeledReplicas, status.ReadyReplicas, status.AvailableReplicas = int32(len(pods)), 0, 0, 0
	status.TerminatingReplicas = ptr.To(c.terminating(rs))
	template := labels.Set(rs.Spec.Template.Labels).AsSelectorPreValidated()
	now := time.Now()
	for _, pod := range pods {
		if template.Matches(labels.Set(pod.Labels)) {
			status.FullyLabeledReplicas++
		}
		if _, ready := podstate.Ready(pod); ready {
			status.ReadyReplicas++
		}
		available, wait := podstate.Available(pod, rs.Spec.MinReadySeconds, now)
		if available {
			status.AvailableReplicas++
		} else if wait > 0 && (after == 0 || wait < after) {
			after = wait
		}
	}
	status.ObservedGeneration = rs.Generation
	status.Conditions = failureCondition(status.Conditions, failure, int32(len(pods)) < *rs.Spec.Replicas)
	if equality.Semantic.DeepEqual(c.sets.comparable(&rs.Status), c.sets.comparable(status)) {
		return after, nil
	}
	err = c.sets.updateStatus(ctx, rs, status)
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return after, err
}

func failureCondition(conditions []appsv1.ReplicaSetCondition, failure error, creating bool) []appsv1.ReplicaSetCondition {
	var out []appsv1.ReplicaSetCondition
	for _, c := range conditions {
		if c.Type != appsv1.ReplicaSetReplicaFailure {
			out = append(out, c)
		} else if failure != nil {
			return conditions
		}
	}
	if failure == nil {
		return out
	}
	reason := "FailedDelete"
	if creating {
		reason = "FailedCreate"
	}
	return append(out, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
		Reason: reason, Message: failure.Error(), LastTransitionTime: metav1.Now()})
}
