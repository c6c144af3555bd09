// SPDX-License-Identifier: Apache-2.0

// Package deployment rolls Deployments out: it makes a ReplicaSet for each
// revision of the template and shifts replicas between them. The controller
// manager runs it; package replicaset makes the pods.
package deployment

import (
	"context"
	"log/slog"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/podstate"
	"kaji/internal/controller/queue"
)

const (
	ownerIndex = "controller.owner"
	workers    = 5
)

var kind = appsv1.SchemeGroupVersion.WithKind("Deployment")

// Controller rolls out.
type Controller struct {
	deployments client.Typed[*appsv1.Deployment]
	sets        client.Typed[*appsv1.ReplicaSet]
	pods        client.Typed[*corev1.Pod]
	queue       *queue.Queue[queue.Key]
	events      *event.Recorder
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{deployments: client.For[*appsv1.Deployment](api), sets: client.For[*appsv1.ReplicaSet](api), pods: client.For[*corev1.Pod](api),
		events: event.New(api, "deployment-controller", log)}
	c.queue = queue.New(log, c.reconcile)
	c.sets.AddIndex(ownerIndex, func(rs *appsv1.ReplicaSet) []string { return podstate.OwnerUID(rs) })
	c.pods.AddIndex(ownerIndex, func(p *corev1.Pod) []string { return podstate.OwnerUID(p) })
	add := func(d *appsv1.Deployment) { c.queue.Add(queue.Key{Namespace: d.Namespace, Name: d.Name}) }
	c.deployments.AddHandler(client.Handler[*appsv1.Deployment]{Add: add, Update: func(_, d *appsv1.Deployment) { add(d) }})
	set := func(rs *appsv1.ReplicaSet) {
		if ref := metav1.GetControllerOf(rs); ref != nil {
			c.queue.Add(queue.Key{Namespace: rs.Namespace, Name: ref.Name})
			return
		}
		for _, d := range c.deployments.CachedList(rs.Namespace, nil) {
			if s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil && !s.Empty() && s.Matches(labels.Set(rs.Labels)) {
				add(d)
			}
		}
	}
	c.sets.AddHandler(client.Handler[*appsv1.ReplicaSet]{Add: set, Update: func(_, rs *appsv1.ReplicaSet) { set(rs) }, Delete: set})
	// A Recreate rollout waits for the last old pod.
	c.pods.AddHandler(client.Handler[*corev1.Pod]{Delete: func(p *corev1.Pod) {
		if ref := metav1.GetControllerOf(p); ref != nil && ref.Kind == "ReplicaSet" {
			if rs, err := c.sets.Cached(p.Namespace, ref.Name); err == nil {
				set(rs)
			}
		}
	}})
	return c
}

// Run rolls out until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.deployments.Informer(), c.sets.Informer(), c.pods.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

// rollout is one Deployment being worked on: a copy, with its ReplicaSets.
type rollout struct {
	*Controller
	ctx context.Context
	d   *appsv1.Deployment
	// current is the set of the present template, nil if there is none yet;
	// old are the others, the oldest first.
	current *appsv1.ReplicaSet
	old     []*appsv1.ReplicaSet
	// failed is why the current set could not be made.
	failed error
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	cached, err := c.deployments.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	r := &rollout{Controller: c, ctx: ctx, d: cached.DeepCopy()}
	if everything := r.d.Spec.Selector; equality.Semantic.DeepEqual(everything, &metav1.LabelSelector{}) {
		c.events.Record(ctx, r.d, kind, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		return nil
	}
	if err := r.gather(); err != nil {
		return err
	}
	switch {
	case r.d.DeletionTimestamp != nil:
	case r.d.Spec.Paused:
		err = r.proportion()
	case r.isScaling():
		err = r.proportion()
	case r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		err = r.recreate()
	default:
		err = r.roll()
	}
	if err != nil {
		return err
	}
	return r.updateStatus(key)
}

// gather finds the Deployment's sets, adopting and releasing as selectors say.
func (r *rollout) gather() error {
	selector, err := metav1.LabelSelectorAsSelector(r.d.Spec.Selector)
	if err != nil {
		return err
	}
	var sets []*appsv1.ReplicaSet
	for _, rs := range r.sets.CachedList(r.d.Namespace, selector) {
		switch ref := metav1.GetControllerOf(rs); {
		case ref != nil && ref.UID == r.d.UID:
			sets = append(sets, rs.DeepCopy())
		case ref == nil && rs.DeletionTimestamp == nil && r.d.DeletionTimestamp == nil:
			adopted := rs.DeepCopy()
			adopted.OwnerReferences = append(adopted.OwnerReferences, *metav1.NewControllerRef(r.d, kind))
			if adopted, err = r.sets.Update(r.ctx, adopted); err != nil {
				return err
			}
			sets = append(sets, adopted.DeepCopy())
		}
	}
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		if by := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); by != 0 {
			return by
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	for _, rs := range sets {
		if r.current == nil && sameTemplate(&rs.Spec.Template, &r.d.Spec.Template) {
			r.current = rs
		} else {
			r.old = append(r.old, rs)
		}
	}
	return nil
}

// isScaling says whether the wanted number changed since the sets were last
// scaled: then all are scaled in proportion before the rollout goes on.
func (r *rollout) isScaling() bool {
	for _, rs := range r.all() {
		if *rs.Spec.Replicas > 0 {
			if desired, ok := annotation(rs, desiredAnnotation); ok && desired != *r.d.Spec.Replicas {
				return true
			}
		}
	}
	return false
}

// all are the old sets and the current one.
func (r *rollout) all() []*appsv1.ReplicaSet {
	if r.current == nil {
		return r.old
	}
	return append(slices.Clone(r.old), r.current)
}

// updateStatus writes the status, keeps the history short and comes back when
// the progress deadline is due.
func (r *rollout) updateStatus(key queue.Key) error {
	if r.finished() && r.d.DeletionTimestamp == nil {
		if err := r.trimHistory(); err != nil {
			return err
		}
	}
	status := r.status()
	if after := r.deadline(&status); after > 0 {
		r.queue.AddAfter(key, after)
	}
	if equality.Semantic.DeepEqual(r.d.Status, status) {
		return nil
	}
	r.d.Status = status
	_, err := r.deployments.UpdateStatus(r.ctx, r.d)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// trimHistory deletes old sets beyond the limit, the oldest first.
func (r *rollout) trimHistory() error {
	limit := 10
	if r.d.Spec.RevisionHistoryLimit != nil {
		limit = int(*r.d.Spec.RevisionHistoryLimit)
	}
	var idle []*appsv1.ReplicaSet
	for _, rs := range r.old {
		if rs.Status.Replicas == 0 && *rs.Spec.Replicas == 0 && rs.DeletionTimestamp == nil && rs.Generation <= rs.Status.ObservedGeneration {
			idle = append(idle, rs)
		}
	}
	for _, rs := range idle[:max(0, len(idle)-limit)] {
		if err := r.sets.Delete(r.ctx, rs.Namespace, rs.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// now is the time of conditions.
func now() metav1.Time { return metav1.NewTime(time.Now()) }
