// SPDX-License-Identifier: Apache-2.0

// Package deployment rolls Deployments out: it makes a ReplicaSet for each
// revision of the template and shifts replicas between them. The controller
// manager runs it; package replicaset makes the pods.
package deployment

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
	"kaji/internal/controller/adopt"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

const workers = 5

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
	c.queue = queue.New("deployment", log, c.reconcile)
	adopt.Index(c.sets)
	adopt.Index(c.pods)
	add := func(d *appsv1.Deployment) { c.queue.Add(queue.Key{Namespace: d.Namespace, Name: d.Name}) }
	c.deployments.AddHandler(client.Handler[*appsv1.Deployment]{Add: add, Update: func(_, d *appsv1.Deployment) { add(d) }})
	set := func(rs *appsv1.ReplicaSet) {
		if ref := metav1.GetControllerOf(rs); ref != nil {
			if ref.Kind == kind.Kind {
				c.queue.Add(queue.Key{Namespace: rs.Namespace, Name: ref.Name})
			}
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
	// before is the Deployment as it was found.
	before *appsv1.Deployment
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
	r := &rollout{Controller: c, ctx: ctx, d: cached.DeepCopy(), before: cached}
	if everything := r.d.Spec.Selector; equality.Semantic.DeepEqual(everything, &metav1.LabelSelector{}) {
		c.events.Record(ctx, r.d, kind, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		r.d.Status.ObservedGeneration = r.d.Generation
		return r.write(r.d.Status)
	}
	if err := r.gather(); err != nil {
		return err
	}
	if r.d.DeletionTimestamp != nil {
		return r.write(r.status())
	}
	r.notePause()
	if number, ok := r.wanted(); ok && !r.d.Spec.Paused {
		return r.rollBack(number)
	}
	if r.d.Spec.Paused || r.isScaling() {
		return r.rescale()
	}
	step := r.roll
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		step = r.recreate
	}
	if err := step(); err != nil {
		return errors.Join(err, r.noteFailure())
	}
	if complete(r.d, &r.d.Status) {
		if err := r.trimHistory(); err != nil {
			return err
		}
	}
	status := r.status()
	if after := r.progress(&status); after > 0 {
		r.queue.AddAfter(key, after)
	}
	return r.write(status)
}

// rescale follows a changed number without going on with a rollout.
func (r *rollout) rescale() error {
	if err := r.proportion(); err != nil {
		return err
	}
	if r.d.Spec.Paused {
		if err := r.trimHistory(); err != nil {
			return err
		}
	}
	return r.write(r.status())
}

// noteFailure writes the condition of a step that failed; one that failed
// without changing it writes nothing.
func (r *rollout) noteFailure() error {
	if r.failed == nil {
		return nil
	}
	return r.write(r.d.Status)
}

// gather finds the Deployment's sets, adopting and releasing as selectors say.
func (r *rollout) gather() error {
	selector, err := metav1.LabelSelectorAsSelector(r.d.Spec.Selector)
	if err != nil {
		return err
	}
	claimed, err := adopt.Claim[*appsv1.ReplicaSet]{Owner: r.before, Kind: kind, Selector: selector, Objects: r.sets,
		Fresh: func() (metav1.Object, error) { return r.deployments.Get(r.ctx, r.d.Namespace, r.d.Name) }}.Claimed(r.ctx)
	if err != nil {
		return err
	}
	var sets []*appsv1.ReplicaSet
	for _, rs := range claimed {
		sets = append(sets, rs.DeepCopy())
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

// write writes the status, and with it the annotation of the revision, if they
// differ from what was found.
func (r *rollout) write(status appsv1.DeploymentStatus) error {
	r.d.Status = status
	if equality.Semantic.DeepEqual(r.d.Status, r.before.Status) && equality.Semantic.DeepEqual(r.d.Annotations, r.before.Annotations) {
		return nil
	}
	_, err := r.deployments.UpdateStatus(r.ctx, r.d)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// trimHistory deletes old sets beyond the limit, the lowest revision first;
// sets that have pods are left for later.
func (r *rollout) trimHistory() error {
	limit := r.d.Spec.RevisionHistoryLimit
	if limit == nil || *limit == math.MaxInt32 {
		return nil
	}
	var alive []*appsv1.ReplicaSet
	for _, rs := range r.old {
		if rs.DeletionTimestamp == nil {
			alive = append(alive, rs)
		}
	}
	slices.SortStableFunc(alive, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Compare(revision(a.Annotations), revision(b.Annotations))
	})
	for _, rs := range alive[:max(0, len(alive)-int(*limit))] {
		if rs.Status.Replicas != 0 || *rs.Spec.Replicas != 0 || rs.Generation > rs.Status.ObservedGeneration {
			continue
		}
		if err := r.sets.Delete(r.ctx, rs.Namespace, rs.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// now is the time of conditions.
func now() metav1.Time { return metav1.NewTime(time.Now()) }
