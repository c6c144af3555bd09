// SPDX-License-Identifier: Apache-2.0

// Package daemonset keeps one pod of each DaemonSet on every node it fits. The
// controller manager runs it; the scheduler binds the pods to the nodes that
// this package names in their affinity.
package daemonset

import (
	"context"
	"errors"
	"log/slog"
	"sync"
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
	"kaji/internal/controller/expect"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const (
	// burst bounds the pods made or deleted in one reconciliation.
	burst   = 250
	workers = 2
)

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// Controller manages pods and revisions.
type Controller struct {
	sets      client.Typed[*appsv1.DaemonSet]
	pods      client.Typed[*corev1.Pod]
	nodes     client.Typed[*corev1.Node]
	revisions client.Typed[*appsv1.ControllerRevision]
	queue     *queue.Queue[queue.Key]
	events    *event.Recorder
	pending   expect.Pending
	failed    backoff
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{sets: client.For[*appsv1.DaemonSet](api), pods: client.For[*corev1.Pod](api), nodes: client.For[*corev1.Node](api),
		revisions: client.For[*appsv1.ControllerRevision](api), events: event.New(api, "daemonset-controller", log)}
	c.queue = queue.New("daemonset", log, c.reconcile)
	adopt.Index(c.pods)
	adopt.Index(c.revisions)
	c.sets.AddHandler(client.Handler[*appsv1.DaemonSet]{Add: c.wake, Update: func(_, ds *appsv1.DaemonSet) { c.wake(ds) },
		Delete: func(ds *appsv1.DaemonSet) { c.pending.Forget(ds.UID) }})
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
	c.nodes.AddHandler(client.Handler[*corev1.Node]{Add: func(n *corev1.Node) { c.nodeChanged(nil, n) }, Update: c.nodeChanged,
		Delete: func(n *corev1.Node) { c.nodeChanged(n, nil) }})
	return c
}

func (c *Controller) wake(ds *appsv1.DaemonSet) {
	c.queue.Add(queue.Key{Namespace: ds.Namespace, Name: ds.Name})
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
	for _, ds := range c.sets.CachedList(pod.Namespace, nil) {
		if s, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector); err == nil && !s.Empty() && s.Matches(labels.Set(pod.Labels)) {
			c.wake(ds)
		}
	}
}

// nodeChanged wakes the sets that a node matters to otherwise than before. Most
// changes of nodes are heartbeats and matter to none.
func (c *Controller) nodeChanged(before, after *corev1.Node) {
	if before != nil && after != nil && equality.Semantic.DeepEqual(before.Labels, after.Labels) && equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		return
	}
	for _, ds := range c.sets.CachedList("", nil) {
		if fits(ds, before) != fits(ds, after) {
			c.wake(ds)
		}
	}
}

// Run manages pods until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.sets.Informer(), c.pods.Informer(), c.nodes.Informer(), c.revisions.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

// round is one reconciliation of one set.
type round struct {
	*Controller
	ctx   context.Context
	ds    *appsv1.DaemonSet // a copy
	now   time.Time
	nodes []*corev1.Node
	// placed are the set's pods by the node they are for.
	placed map[string][]*corev1.Pod
	// hash is the label of pods of the present template; old are the revisions
	// of other templates.
	hash string
	old  []*appsv1.ControllerRevision
	// after is when to look again although nothing happened.
	after time.Duration
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	cached, err := c.sets.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(cached.Spec.Selector, &metav1.LabelSelector{}) {
		c.events.Record(ctx, cached, kind, corev1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(cached.Spec.Selector)
	if err != nil || cached.DeletionTimestamp != nil {
		return nil // of a set that goes nothing can be said: its revisions may be gone already
	}
	r := &round{Controller: c, ctx: ctx, ds: cached.DeepCopy(), now: time.Now(), nodes: c.nodes.CachedList("", nil), placed: map[string][]*corev1.Pod{}}
	fresh := func() (metav1.Object, error) { return c.sets.Get(ctx, key.Namespace, key.Name) }
	pods, err := adopt.Claim[*corev1.Pod]{Owner: cached, Kind: kind, Selector: selector, Objects: c.pods, Fresh: fresh}.Claimed(ctx)
	if err != nil {
		return err
	}
	for _, p := range pods {
		if node := nodeOf(p); node != "" {
			r.placed[node] = append(r.placed[node], p)
		}
	}
	history, err := adopt.Claim[*appsv1.ControllerRevision]{Owner: cached, Kind: kind, Selector: selector, Objects: c.revisions, Fresh: fresh}.Claimed(ctx)
	if err != nil {
		return err
	}
	if err := r.findRevision(history, pods); err != nil {
		return err
	}
	settled := c.pending.Settled(cached.UID)
	if settled {
		err = r.step()
	} else {
		meter.From(ctx).StaleSkip("daemonset_controller")
	}
	err = errors.Join(err, r.writeStatus(settled))
	if r.after > 0 {
		c.queue.AddAfter(key, r.after)
	}
	return err
}

// step makes and deletes pods, then goes on with a rollout.
func (r *round) step() error {
	create, remove := r.manage()
	if err := r.apply(create, remove); err != nil {
		return err
	}
	if r.ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType && r.pending.Settled(r.ds.UID) {
		create, remove := r.roll()
		if err := r.apply(create, remove); err != nil {
			return err
		}
	}
	return r.trimHistory()
}

// again asks for another look after a delay.
func (r *round) again(after time.Duration) {
	if r.after == 0 || after < r.after {
		r.after = after
	}
}

// backoff delays the replacement of pods that fail again and again on a node.
// Its zero value is ready.
type backoff struct {
	mu      sync.Mutex
	entries map[string]*delay
}

type delay struct {
	last time.Time
	wait time.Duration
}

// The delays of a pod that fails, doubled each time, and after what time they
// are forgotten.
const (
	firstDelay  = time.Second
	lastDelay   = 15 * time.Minute
	forgotAfter = 2 * lastDelay
)

// try says how long a pod of the key must still wait for its replacement; zero
// allows it and begins the next delay.
func (b *backoff) try(key string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, d := range b.entries {
		if now.Sub(d.last) > forgotAfter {
			delete(b.entries, k)
		}
	}
	d := b.entries[key]
	if d == nil {
		if b.entries == nil {
			b.entries = map[string]*delay{}
		}
		b.entries[key] = &delay{now, firstDelay}
		return 0
	}
	if left := d.wait - now.Sub(d.last); left > 0 {
		return left
	}
	d.last, d.wait = now, min(2*d.wait, lastDelay)
	return 0
}
