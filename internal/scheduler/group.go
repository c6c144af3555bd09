// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/podgroup"
	"kaji/internal/scheduler/queue"
	"kaji/internal/scheduler/snapshot"
)

// errGroup says that a group as a whole cannot be placed.
var errGroup = errors.New("pod group is unschedulable")

// groupError is why a pod of a group was not placed.
type groupError struct {
	error
	failed     bool // not refused, but broken
	nomination *plugin.Nomination
}

func (e *groupError) Unwrap() error { return e.error }

func (e *groupError) reason() string {
	if e.failed {
		return corev1.PodReasonSchedulerError
	}
	return corev1.PodReasonUnschedulable
}

// groupAttempt is an attempt to place a group; the loop owns it.
type groupAttempt struct {
	s       *Scheduler
	ctx     context.Context
	item    *queue.Item
	group   *podgroup.Group
	pods    []*queue.Item
	chooser *chooser
	began   time.Time
}

// groupResult is how the simulation of an attempt ended.
type groupResult struct {
	pods []podResult // as many as were tried
	// err is nil when enough pods have nodes; whole says that it is about the
	// group and no plugin's word alone, failed that something broke.
	messages      []string
	err           error
	whole, failed bool
	waiting       bool // for pods that are being preempted
}

// podResult is what became of one pod.
type podResult struct {
	binding *binding
	err     error
	took    time.Duration
}

func (r *groupResult) ok() bool { return r.err == nil }

func (r *groupResult) refuse(whole bool, messages ...string) {
	r.err, r.whole, r.messages = errGroup, whole, messages
}

func (r *groupResult) fail(err error) { r.err, r.failed = err, true }

// message is what users read of the group.
func (r *groupResult) message() string {
	switch {
	case r.ok():
		return ""
	case r.failed:
		return r.err.Error()
	case r.whole:
		return joined(append([]string{errGroup.Error()}, r.messages...))
	}
	return joined(r.messages)
}

// attemptGroup tries to place the pods of a group.
func (s *Scheduler) attemptGroup(ctx context.Context, it *queue.Item) {
	a := &groupAttempt{s: s, ctx: ctx, item: it, group: s.groups.Get(it.Group.Key), began: time.Now()}
	outcome := queue.Scheduled
	if err := a.validate(); err != nil {
		for _, m := range it.Group.Members {
			p := s.profiles[m.Pod.Object.Spec.SchedulerName]
			s.fail(ctx, &plugin.Cycle{Pod: m.Pod, Snapshot: s.snap}, m, p, &groupError{error: err, failed: true, nomination: &plugin.Nomination{}}, time.Now())
		}
		s.groupCondition(a.group, metav1.ConditionFalse, schedulingv1beta1.PodGroupReasonSchedulerError, err.Error())
		outcome = queue.Failed
	} else if a.skip(); len(a.pods) > 0 {
		outcome = a.run()
	}
	s.queue.EndGroup(it, outcome, time.Now())
}

// validate requires that all pods of the group are to be scheduled alike.
func (a *groupAttempt) validate() error {
	first := a.item.Group.Members[0].Pod.Object
	policy := func(pod *corev1.Pod) corev1.PreemptionPolicy {
		return ptr.Deref(pod.Spec.PreemptionPolicy, corev1.PreemptLowerPriority)
	}
	check := func(p *snapshot.Pod) error {
		pod := p.Object
		switch {
		case pod.Spec.SchedulerName != first.Spec.SchedulerName:
			return fmt.Errorf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q", pod.Spec.SchedulerName, first.Spec.SchedulerName)
		case p.Priority() != a.group.Priority():
			return fmt.Errorf("all pods in a single pod group should have the same priority as the pod group's priority, got %d and %d", p.Priority(), a.group.Priority())
		case policy(pod) != policy(first):
			return fmt.Errorf("all pods in a single pod group should have the same preemption policy, got %v and %v", policy(pod), policy(first))
		}
		return nil
	}
	for _, m := range a.item.Group.Members {
		if err := check(m.Pod); err != nil {
			return err
		}
	}
	for _, p := range a.group.Scheduled(a.s.snap) {
		if err := check(p); err != nil {
			return err
		}
	}
	a.chooser = a.s.choosers[first.Spec.SchedulerName]
	return nil
}

// skip leaves out the pods that need no attempt.
func (a *groupAttempt) skip() {
	for _, m := range a.item.Group.Members {
		if a.s.needsNone(m) {
			a.s.queue.Done(m)
		} else {
			a.pods = append(a.pods, m)
		}
	}
}

// run plays through the placement and does what came out.
func (a *groupAttempt) run() queue.Outcome {
	p := a.chooser.profile
	r := a.simulate(a.ctx)
	outcome := queue.Scheduled
	var nominated map[podUID]string
	before := r // what the pods are told that were not tried
	switch {
	case r.failed:
		outcome = queue.Failed
	case !r.ok():
		outcome = queue.Unschedulable
		nominated = a.postFilter(&r)
	}
	a.s.metrics.groupAlgorithm.WithLabelValues().Observe(time.Since(a.began).Seconds())
	for i, m := range a.pods {
		res := podResult{err: before.err}
		if i < len(r.pods) {
			res = r.pods[i]
		}
		began := time.Now().Add(-res.took)
		c := &plugin.Cycle{Pod: m.Pod, Snapshot: a.s.snap}
		if res.binding != nil {
			c = res.binding.cycle
		}
		var err error
		if r.ok() && res.err == nil {
			res.binding.began = began
			if err = a.s.permit(res.binding); err == nil {
				continue
			}
			err = &groupError{error: err, failed: !refusal(err), nomination: &plugin.Nomination{}}
		} else {
			err = a.verdict(&r, &before, i, m, res, nominated)
		}
		a.s.fail(a.ctx, c, m, p, err, began)
	}
	a.report(&r)
	return outcome
}

// verdict is what a pod that gets no node is told.
func (a *groupAttempt) verdict(r, before *groupResult, i int, m *queue.Item, res podResult, nominated map[podUID]string) error {
	withdrawn := &plugin.Nomination{}
	if r.failed {
		err := r.err
		if res.err != nil && !refusal(res.err) {
			err = res.err
		}
		return &groupError{error: err, failed: true, nomination: withdrawn}
	}
	var to *plugin.Nomination
	if node, ok := nominated[m.Pod.UID()]; ok {
		to = &plugin.Nomination{NodeName: node}
	}
	switch {
	case i >= len(r.pods):
		return &groupError{error: errors.New(before.message()), nomination: to}
	case res.err != nil:
		if errors.Is(res.err, errNoNodes) && to == nil {
			to = withdrawn
		}
		return &groupError{error: res.err, nomination: to}
	case r.waiting:
		return &groupError{error: errors.New(r.message()), nomination: to}
	}
	return &groupError{error: errors.New(joined([]string{errGroup.Error(), r.message()})), nomination: withdrawn}
}

// refusal says whether an error means that there is no room, not that something
// broke.
func refusal(err error) bool {
	var fit *fitError
	return errors.Is(err, errNoNodes) || errors.As(err, &fit)
}

// simulate looks for nodes for one pod after the other, each taken as placed for
// the next. When enough have one they stay so, otherwise all are taken back.
func (a *groupAttempt) simulate(ctx context.Context) (r groupResult) {
	scheduled, remaining := len(a.group.Scheduled(a.s.snap)), len(a.pods)
	st := a.feasible(scheduled, remaining)
	if st.CodeOf() == plugin.Unschedulable {
		r.refuse(true, st.Messages()...)
		return r
	}
	placed := false
	for _, m := range a.pods {
		res := a.try(ctx, m)
		r.pods = append(r.pods, res)
		if res.err != nil && !refusal(res.err) {
			r.fail(fmt.Errorf("failed to schedule other pod from a pod group: %w", res.err))
			break
		}
		remaining--
		if res.err == nil {
			scheduled++
		}
		if st = a.feasible(scheduled, remaining); st.CodeOf() == plugin.Unschedulable {
			break
		}
		placed = placed || res.err == nil
	}
	switch {
	case r.failed:
	case !st.OK():
		r.refuse(st.Code == plugin.Wait, st.Messages()...)
	case !placed:
		r.refuse(true)
	}
	if !r.ok() {
		a.revert(&r)
	}
	return r
}

func (a *groupAttempt) feasible(scheduled, remaining int) *plugin.Status {
	for _, j := range a.chooser.profile.groupJudges {
		if st := j.Feasible(a.group, scheduled, remaining); !st.OK() {
			return st
		}
	}
	return nil
}

// try places one pod in the snapshot.
func (a *groupAttempt) try(ctx context.Context, m *queue.Item) podResult {
	began := time.Now()
	c := &plugin.Cycle{Pod: m.Pod, Snapshot: a.s.snap, Keep: true}
	for _, e := range a.chooser.profile.extenders {
		c.Extenders = append(c.Extenders, e)
	}
	b := &binding{cycle: c, item: m, profile: a.chooser.profile, began: began}
	where, err := a.chooser.choose(ctx, c)
	if err == nil {
		b.node = where.node.Name
		err = a.s.assume(b)
	}
	return podResult{binding: b, err: err, took: time.Since(began)}
}

// revert takes the pods back, last first.
func (a *groupAttempt) revert(r *groupResult) {
	for _, res := range slices.Backward(r.pods) {
		if res.err == nil {
			a.forget(res.binding)
		}
	}
}

func (a *groupAttempt) forget(b *binding) {
	a.s.undo(b)
	if n := b.cycle.Pod.Object.Status.NominatedNodeName; n != "" {
		a.s.snap.Nominate(b.cycle.Pod, n)
	}
}

// postFilter asks the plugins to make room for the group, adds what they say to
// the result, and returns the nominations.
func (a *groupAttempt) postFilter(r *groupResult) map[podUID]string {
	c := &plugin.GroupCycle{Group: a.group, Snapshot: a.s.snap,
		Try: func(ctx context.Context) ([]plugin.GroupPlace, *plugin.Status) { return a.trial(ctx) },
		Assume: func(g plugin.GroupPlace) *plugin.Status {
			err := a.s.assume(&binding{cycle: g.Cycle, profile: a.chooser.profile, node: g.Node.Name})
			if err != nil {
				return plugin.NewStatus("", plugin.Unschedulable, err.Error())
			}
			return nil
		},
		Forget: func(g plugin.GroupPlace) {
			a.forget(&binding{cycle: g.Cycle, profile: a.chooser.profile, node: g.Node.Name})
		},
	}
	for _, m := range a.pods {
		c.Pods = append(c.Pods, m.Pod)
	}
	for _, res := range r.pods {
		c.Cycles = append(c.Cycles, res.binding.cycle)
	}
	m, began := a.chooser.profile.metrics, time.Now()
	var messages []string
	for _, pl := range a.chooser.profile.groupPostFilters {
		nominated, st := pl.PostFilterGroup(a.ctx, c)
		switch {
		case st.OK():
			r.waiting = true
			r.messages = append(r.messages, st.Message())
			m.point("PodGroupPostFilter", plugin.Success, began)
			return nominated
		case st.Code == plugin.UnschedulableAndUnresolvable:
			r.messages = append(r.messages, st.Message())
			m.point("PodGroupPostFilter", st.Code, began)
			return nil
		case !st.Rejected():
			r.fail(fmt.Errorf("error in %q PodGroupPostFilter plugins: %s", pl.Name(), st.Message()))
			m.point("PodGroupPostFilter", plugin.Error, began)
			return nil
		}
		messages = append(messages, st.Messages()...)
	}
	m.point("PodGroupPostFilter", plugin.Unschedulable, began)
	r.messages = append(r.messages, joined(messages))
	return nil
}

// trial is GroupCycle.Try.
func (a *groupAttempt) trial(ctx context.Context) ([]plugin.GroupPlace, *plugin.Status) {
	r := a.simulate(ctx)
	switch {
	case r.failed:
		return nil, plugin.AsStatus("", r.err)
	case !r.ok():
		return nil, plugin.NewStatus("", plugin.Unschedulable, r.message())
	}
	a.revert(&r)
	var out []plugin.GroupPlace
	for _, res := range r.pods {
		if res.err == nil {
			out = append(out, plugin.GroupPlace{Cycle: res.binding.cycle, Node: a.s.snap.Node(res.binding.node)})
		}
	}
	return out, nil
}
