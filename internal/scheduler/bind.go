// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/queue"
)

type podUID = types.UID

// waiting are the pods held back at Permit; the loop owns it.
type waiting struct{ pods map[podUID]*waitingPod }

// waitingPod is reserved and waits for plugins to allow it.
type waitingPod struct {
	*binding
	pending []string // plugins that have not allowed it yet
	timers  []*time.Timer
}

// binding is a pod on its way to a node.
type binding struct {
	cycle   *plugin.Cycle
	item    *queue.Item
	profile *profile
	node    string
	began   time.Time
}

// ran records the time of a plugin's call in an attempt that is timed.
func (b *binding) ran(point string, pl plugin.Plugin, st *plugin.Status, began time.Time) {
	if b.cycle.Timed {
		t := sampler{vec: b.profile.metrics.plugins}
		t.observe(point, pl.Name(), st.CodeOf(), began)
	}
}

// place assumes the pod on the node, reserves what it uses, and sends it on.
// An error leaves everything as it was.
func (s *Scheduler) place(c *plugin.Cycle, it *queue.Item, p *profile, where placement, began time.Time) error {
	b := &binding{cycle: c, item: it, profile: p, node: where.node.Name, began: began}
	if err := s.assume(b); err != nil {
		return err
	}
	return s.permit(b)
}

// assume puts the pod on the node and reserves what it uses.
func (s *Scheduler) assume(b *binding) error {
	s.snap.Nominate(b.cycle.Pod, "")
	s.snap.Place(b.node, b.cycle.Pod)
	for _, r := range b.profile.reservers {
		began := time.Now()
		st := r.Reserve(s.ctx, b.cycle, b.node)
		b.ran("Reserve", r, st, began)
		if !st.OK() {
			s.undo(b)
			return onNode(refused(st, r.Name()), "running Reserve plugin %q")
		}
	}
	return nil
}

// permit asks the plugins whether an assumed pod may be bound, and binds it
// then.
func (s *Scheduler) permit(b *binding) error {
	w := &waitingPod{binding: b}
	for _, pl := range b.profile.permitters {
		began := time.Now()
		st, timeout := pl.Permit(s.ctx, b.cycle, b.node)
		b.ran("Permit", pl, st, began)
		switch {
		case st.OK():
		case st.Code == plugin.Wait:
			uid, name := b.cycle.Pod.UID(), pl.Name()
			w.pending = append(w.pending, name)
			w.timers = append(w.timers, time.AfterFunc(timeout, func() {
				s.inbox.post(func() {
					s.rejectWaiting(uid, name, fmt.Sprintf("rejected due to timeout after waiting %v at plugin %v", timeout, name))
				})
			}))
		default:
			w.stop()
			s.undo(b)
			return onNode(refused(st, pl.Name()), "running Permit plugin %q")
		}
	}
	if len(w.pending) > 0 {
		s.waiting.pods[b.cycle.Pod.UID()] = w
		return nil
	}
	s.finish(b)
	return nil
}

// onNode is a refusal after a node was chosen.
func onNode(st *plugin.Status, doing string) error {
	if !st.Rejected() {
		return statusError{st, doing}
	}
	e := &fitError{nodes: 1, statuses: []*plugin.Status{st}, rejectors: []string{st.Plugin}, chosen: true}
	if st.Code == plugin.Pending {
		e.rejectors, e.pending = nil, e.rejectors
	}
	return e
}

// undo takes back what place did.
func (s *Scheduler) undo(b *binding) {
	for _, r := range slices.Backward(b.profile.reservers) {
		r.Unreserve(s.ctx, b.cycle, b.node)
	}
	s.snap.Displace(b.cycle.Pod)
}

func (w *waitingPod) stop() {
	for _, t := range w.timers {
		t.Stop()
	}
}

// allowWaiting notes that a plugin allows a waiting pod.
func (s *Scheduler) allowWaiting(uid podUID, name string) bool {
	w := s.waiting.pods[uid]
	if w == nil {
		return false
	}
	w.pending = slices.DeleteFunc(w.pending, func(n string) bool { return n == name })
	if len(w.pending) == 0 {
		w.stop()
		delete(s.waiting.pods, uid)
		s.finish(w.binding)
	}
	return true
}

// rejectWaiting sends a waiting pod back to the queue.
func (s *Scheduler) rejectWaiting(uid podUID, name, reason string) bool {
	w := s.waiting.pods[uid]
	if w == nil {
		return false
	}
	w.stop()
	delete(s.waiting.pods, uid)
	st := plugin.NewStatus(name, plugin.Unschedulable, reason)
	s.undo(w.binding)
	s.assumedGone(w.cycle.Pod.Object)
	s.fail(s.ctx, w.cycle, w.item, w.profile, &fitError{nodes: 1, statuses: []*plugin.Status{st}, rejectors: []string{name}, chosen: true}, w.began)
	return true
}

// finish binds the pod beside the loop.
func (s *Scheduler) finish(b *binding) {
	var pre []plugin.PreBinder
	for _, pl := range b.profile.preBinders {
		if pl.WillPreBind(b.cycle) {
			pre = append(pre, pl)
		}
	}
	carry := func() {
		if len(pre) > 0 {
			s.expect(s.ctx, b)
		}
		err := s.bind(s.ctx, b, pre)
		s.inbox.post(func() { s.bound(b, err) })
	}
	if len(pre) > 0 {
		s.workers.Go(carry) // may wait for minutes, which others must not
		return
	}
	s.binders.do(s.workers.Go, carry)
}

// expect says on a pod whose binding takes a while where it is going to be, for
// autoscalers and the like. A failure costs them the hint, no more.
func (s *Scheduler) expect(ctx context.Context, b *binding) {
	if pod := b.cycle.Pod.Object; pod.Status.NominatedNodeName != b.node {
		s.patch(ctx, pod, map[string]any{"nominatedNodeName": b.node})
	}
}

func (s *Scheduler) bind(ctx context.Context, b *binding, pre []plugin.PreBinder) error {
	for _, pl := range pre {
		began := time.Now()
		st := pl.PreBind(ctx, b.cycle, b.node)
		b.ran("PreBind", pl, st, began)
		if !st.OK() {
			return statusError{refused(st, pl.Name()), "running PreBind plugin %q"}
		}
	}
	for _, e := range b.profile.extenders {
		if e.binds() && e.IsInterested(b.cycle.Pod.Object) {
			return e.bind(ctx, b.cycle.Pod.Object, b.node)
		}
	}
	for _, pl := range b.profile.binders {
		began := time.Now()
		st := pl.Bind(ctx, b.cycle, b.node)
		b.ran("Bind", pl, st, began)
		switch st.CodeOf() {
		case plugin.Success:
			return nil
		case plugin.Skip:
		default:
			return statusError{refused(st, pl.Name()), "running Bind plugin %q"}
		}
	}
	return errors.New("no plugin binds the pod")
}

// bound hears of the end of a binding, in the loop.
func (s *Scheduler) bound(b *binding, err error) {
	pod := b.cycle.Pod.Object
	if err == nil {
		s.queue.Done(b.item)
		m := b.profile.metrics
		m.scheduled.Inc()
		m.scheduledTime.Observe(time.Since(b.began).Seconds())
		s.metrics.podAttempts.Observe(float64(b.item.Attempts))
		s.metrics.sliDuration.WithLabelValues(attemptsLabel(b.item.Attempts)).Observe(time.Since(b.item.Initial).Seconds())
		if b.item.Flushed {
			s.metrics.flushed.Inc()
		}
		s.recorder.event(b.profile.name, pod, nil, corev1.EventTypeNormal, "Scheduled", "Binding",
			fmt.Sprintf("Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, b.node))
		return
	}
	if s.snap.Pod(pod.UID) != b.cycle.Pod {
		return // it was deleted, or bound by others, meanwhile
	}
	s.undo(b)
	s.assumedGone(pod)
	if apierrors.IsNotFound(err) {
		s.queue.Done(b.item) // the pod is gone; the informer will say so
		return
	}
	s.renew(b.item)
	s.fail(s.ctx, b.cycle, b.item, b.profile, err, b.began)
}

// renew gives a pod that comes back to the queue its newest object: changes
// were passed over while it was assumed.
func (s *Scheduler) renew(it *queue.Item) {
	old := it.Pod.Object
	obj, err := client.For[*corev1.Pod](s.client).Cached(old.Namespace, old.Name)
	if err != nil || obj.UID != old.UID || obj.ResourceVersion == old.ResourceVersion || obj.Spec.NodeName != "" {
		return
	}
	if p, err := s.snap.NewPod(obj); err == nil {
		it.Pod = p
	}
}

// assumedGone tells the queue that room was given back.
func (s *Scheduler) assumedGone(pod *corev1.Pod) {
	s.queue.Happened(plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Delete}, pod, nil, time.Now())
}
