// SPDX-License-Identifier: Apache-2.0

// Package replicaset keeps as many pods of a ReplicaSet as it asks for. The
// controller manager runs it; package deployment makes the ReplicaSets.
package replicaset

import (
	"context"
	"log/slog"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/podstate"
	"kaji/internal/controller/queue"
)

const (
	ownerIndex = "controller.owner"
	// burst bounds the pods made or deleted in one reconciliation.
	burst   = 500
	workers = 5
)

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

// Controller manages pods.
type Controller struct {
	sets    client.Typed[*appsv1.ReplicaSet]
	pods    client.Typed[*corev1.Pod]
	queue   *queue.Queue[queue.Key]
	events  *event.Recorder
	pending pending
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{sets: client.For[*appsv1.ReplicaSet](api), pods: client.For[*corev1.Pod](api),
		events: event.New(api, "replicaset-controller", log), pending: pending{sets: map[types.UID]*expected{}}}
	c.queue = queue.New(log, c.reconcile)
	c.pods.AddIndex(ownerIndex, func(p *corev1.Pod) []string { return podstate.OwnerUID(p) })
	add := func(rs *appsv1.ReplicaSet) { c.queue.Add(queue.Key{Namespace: rs.Namespace, Name: rs.Name}) }
	c.sets.AddHandler(client.Handler[*appsv1.ReplicaSet]{Add: add, Update: func(_, rs *appsv1.ReplicaSet) { add(rs) },
		Delete: func(rs *appsv1.ReplicaSet) { c.pending.forget(rs.UID); add(rs) }})
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
				c.pending.gone(ref.UID, pod.UID)
			}
			c.podChanged(pod)
		},
	})
	return c
}

// podChanged wakes the pod's set, or all that might adopt it.
func (c *Controller) podChanged(pod *corev1.Pod) {
	if ref := metav1.GetControllerOf(pod); ref != nil {
		if ref.Kind == kind.Kind {
			c.pending.seen(ref.UID, pod.UID)
			if pod.DeletionTimestamp != nil {
				c.pending.gone(ref.UID, pod.UID)
			}
			c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: ref.Name})
		}
		return
	}
	for _, rs := range c.sets.CachedList(pod.Namespace, nil) {
		if s, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector); err == nil && !s.Empty() && s.Matches(labels.Set(pod.Labels)) {
			c.queue.Add(queue.Key{Namespace: rs.Namespace, Name: rs.Name})
		}
	}
}

// Run manages pods until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.sets.Informer(), c.pods.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	rs, err := c.sets.Cached(key.Namespace, key.Name)
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
	pods, err := c.claim(ctx, rs, selector)
	if err != nil {
		return err
	}
	var failure error
	if rs.DeletionTimestamp == nil && c.pending.settled(rs.UID) {
		failure = c.scale(ctx, rs, pods)
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

// claim returns the active pods of a set: its own, without those that no longer
// match, and orphans that do.
func (c *Controller) claim(ctx context.Context, rs *appsv1.ReplicaSet, selector labels.Selector) ([]*corev1.Pod, error) {
	var out []*corev1.Pod
	for _, pod := range c.pods.ByIndex(ownerIndex, string(rs.UID)) {
		if !podstate.Active(pod) {
			continue
		}
		if selector.Matches(labels.Set(pod.Labels)) {
			out = append(out, pod)
			continue
		}
		patch := map[string]any{"metadata": map[string]any{"uid": pod.UID,
			"ownerReferences": []any{map[string]any{"$patch": "delete", "uid": rs.UID}}}}
		if err := c.patch(ctx, pod, patch); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
			return nil, err
		}
	}
	if rs.DeletionTimestamp != nil {
		return out, nil
	}
	for _, pod := range c.pods.CachedList(rs.Namespace, selector) {
		if metav1.GetControllerOf(pod) != nil || !podstate.Active(pod) {
			continue
		}
		patch := map[string]any{"metadata": map[string]any{"uid": pod.UID, "ownerReferences": []any{metav1.NewControllerRef(rs, kind)}}}
		if err := c.patch(ctx, pod, patch); err != nil {
			if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
				continue
			}
			return nil, err
		}
		out = append(out, pod)
	}
	return out, nil
}

// updateStatus writes the status if it differs; after is when the next pod
// becomes available by waiting.
func (c *Controller) updateStatus(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod, failure error) (after time.Duration, err error) {
	status := rs.Status.DeepCopy()
	status.Replicas, status.FullyLabeledReplicas, status.ReadyReplicas, status.AvailableReplicas = int32(len(pods)), 0, 0, 0
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
	if equality.Semantic.DeepEqual(&rs.Status, status) {
		return after, nil
	}
	changed := rs.DeepCopy()
	changed.Status = *status
	_, err = c.sets.UpdateStatus(ctx, changed)
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

// pending remembers the pods that were made or deleted and that the informer
// does not show yet: deciding on an old view would make too many.
type pending struct {
	mu   sync.Mutex
	sets map[types.UID]*expected
}

type expected struct {
	created, deleted map[types.UID]bool
	since            time.Time
}

// patience is after what time a missing event is given up.
const patience = 5 * time.Minute

func (p *pending) of(set types.UID) *expected {
	e := p.sets[set]
	if e == nil {
		e = &expected{map[types.UID]bool{}, map[types.UID]bool{}, time.Time{}}
		p.sets[set] = e
	}
	e.since = time.Now()
	return e
}

func (p *pending) create(set, pod types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(set).created[pod] = true
}

func (p *pending) delete(set, pod types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(set).deleted[pod] = true
}

func (p *pending) seen(set, pod types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.sets[set]; e != nil {
		delete(e.created, pod)
	}
}

func (p *pending) gone(set, pod types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.sets[set]; e != nil {
		delete(e.created, pod)
		delete(e.deleted, pod)
	}
}

func (p *pending) forget(set types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sets, set)
}

func (p *pending) settled(set types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.sets[set]
	if e == nil || len(e.created)+len(e.deleted) == 0 || time.Since(e.since) > patience {
		delete(p.sets, set)
		return true
	}
	return false
}
