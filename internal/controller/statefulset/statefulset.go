// SPDX-License-Identifier: Apache-2.0

// Package statefulset keeps the pods of StatefulSets: numbered, each with its
// own claims, made and ended in order, and replaced when the template changes.
// The controller manager runs it. Volumes of claims are not its business.
package statefulset

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
	"kaji/internal/controller/adopt"
	"kaji/internal/controller/event"
	"kaji/internal/controller/expect"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const workers = 5

var kind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

// Controller manages pods, claims and revisions.
type Controller struct {
	sets      client.Typed[*appsv1.StatefulSet]
	pods      client.Typed[*corev1.Pod]
	claims    client.Typed[*corev1.PersistentVolumeClaim]
	revisions client.Typed[*appsv1.ControllerRevision]
	queue     *queue.Queue[queue.Key]
	events    *event.Recorder
	pending   expect.Pending
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{sets: client.For[*appsv1.StatefulSet](api), pods: client.For[*corev1.Pod](api), claims: client.For[*corev1.PersistentVolumeClaim](api),
		revisions: client.For[*appsv1.ControllerRevision](api), events: event.New(api, "statefulset-controller", log)}
	c.queue = queue.New("statefulset", log, c.reconcile)
	adopt.Index(c.pods)
	adopt.Index(c.revisions)
	c.claims.AddHandler(client.Handler[*corev1.PersistentVolumeClaim]{Delete: c.claimGone})
	add := func(s *appsv1.StatefulSet) { c.queue.Add(queue.Key{Namespace: s.Namespace, Name: s.Name}) }
	c.sets.AddHandler(client.Handler[*appsv1.StatefulSet]{Add: add, Update: func(_, s *appsv1.StatefulSet) { add(s) },
		Delete: func(s *appsv1.StatefulSet) { c.pending.Forget(s.UID) }})
	c.pods.AddHandler(client.Handler[*corev1.Pod]{
		Add: c.podChanged,
		Update: func(old, pod *corev1.Pod) {
			if before, now := metav1.GetControllerOf(old), metav1.GetControllerOf(pod); before != nil && (now == nil || now.UID != before.UID) {
				c.podChanged(old)
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
		if ref.Kind == kind.Kind {
			c.pending.Seen(ref.UID, pod.UID)
			if pod.DeletionTimestamp != nil {
				c.pending.Gone(ref.UID, pod.UID)
			}
			c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: ref.Name})
		}
		return
	}
	for _, s := range c.sets.CachedList(pod.Namespace, nil) {
		if selector, err := metav1.LabelSelectorAsSelector(s.Spec.Selector); err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			c.queue.Add(queue.Key{Namespace: s.Namespace, Name: s.Name})
		}
	}
}

// claimGone wakes the set whose pod may be waiting for a claim of an earlier
// pod to go.
func (c *Controller) claimGone(claim *corev1.PersistentVolumeClaim) {
	for _, s := range c.sets.CachedList(claim.Namespace, nil) {
		if len(s.Spec.VolumeClaimTemplates) > 0 && strings.Contains(claim.Name, "-"+s.Name+"-") {
			c.queue.Add(queue.Key{Namespace: s.Namespace, Name: s.Name})
		}
	}
}

// Run manages pods until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.sets.Informer(), c.pods.Informer(), c.claims.Informer(), c.revisions.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	cached, err := c.sets.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		meter.From(ctx).StatefulSetGone(key.Namespace, key.Name)
		return nil
	}
	if err != nil {
		return err
	}
	selector, err := metav1.LabelSelectorAsSelector(cached.Spec.Selector)
	if err != nil {
		return nil // validation keeps such sets out
	}
	u := &update{Controller: c, ctx: ctx, set: cached.DeepCopy(), now: time.Now()}
	fresh := func() (metav1.Object, error) { return c.sets.Get(ctx, key.Namespace, key.Name) }
	if u.history, err = (adopt.Claim[*appsv1.ControllerRevision]{Owner: cached, Kind: kind, Selector: selector, Objects: c.revisions, Fresh: fresh}).Claimed(ctx); err != nil {
		return err
	}
	u.pods, err = adopt.Claim[*corev1.Pod]{Owner: cached, Kind: kind, Selector: selector, Objects: c.pods, Fresh: fresh,
		Member: func(p *corev1.Pod) bool {
			parent, ordinal := split(p.Name)
			return ordinal >= 0 && parent == cached.Name
		}}.Claimed(ctx)
	if err != nil {
		return err
	}
	if !c.pending.Settled(cached.UID) {
		meter.From(ctx).StaleSkip("statefulset_controller")
		return nil // the event that is missing wakes us
	}
	if err := u.run(); err != nil {
		return err
	}
	if u.after > 0 {
		c.queue.AddAfter(key, u.after)
	}
	return nil
}

// update is one reconciliation of one set.
type update struct {
	*Controller
	ctx     context.Context
	set     *appsv1.StatefulSet // a copy
	pods    []*corev1.Pod
	history []*appsv1.ControllerRevision
	now     time.Time

	current, update *appsv1.ControllerRevision
	// currentSet and updateSet are the set with the template of each revision.
	currentSet, updateSet *appsv1.StatefulSet
	collisions            int32
	status                appsv1.StatefulSetStatus
	// after is when the next pod becomes available by waiting.
	after time.Duration
}

// measure tells the metrics how much of the set is unavailable.
func (u *update) measure() {
	n := 0
	for _, p := range u.pods {
		if u.unavailable(p) {
			n++
		}
	}
	meter.From(u.ctx).StatefulSet(u.set.Namespace, u.set.Name, string(u.set.Spec.PodManagementPolicy), u.maxUnavailable(), n)
}

func (u *update) run() error {
	if err := u.findRevisions(); err != nil || u.update == nil {
		return err
	}
	if err := u.applyRevisions(); err != nil {
		return err
	}
	failure := u.step()
	u.measure()
	if err := u.writeStatus(); err != nil {
		return errors.Join(failure, err)
	}
	if failure != nil {
		return failure
	}
	return u.trimHistory()
}
