// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/queue"
)

// fail ends an attempt that placed no pod: preemption may make room, the pod
// goes back to the queue, and its owner is told why.
func (s *Scheduler) fail(ctx context.Context, c *plugin.Cycle, it *queue.Item, p *profile, err error, began time.Time) {
	var rejectors, pending []string
	nomination := &plugin.Nomination{} // withdrawn, unless a plugin says otherwise
	var group *groupError
	reason := corev1.PodReasonSchedulerError
	var fit *fitError
	switch {
	case errors.As(err, &group):
		reason = group.reason()
		nomination = group.nomination
		if errors.As(group.error, &fit) {
			rejectors, pending = fit.rejectors, fit.pending
		}
	case errors.Is(err, errNoNodes):
		reason = corev1.PodReasonUnschedulable
	case errors.As(err, &fit):
		reason = corev1.PodReasonUnschedulable
		rejectors, pending = fit.rejectors, fit.pending
		if !fit.chosen && len(p.postFilters) > 0 {
			nomination, fit.postFilter = s.postFilter(ctx, c, p, fit)
		}
	}
	msg := err.Error()
	m := p.metrics
	if reason == corev1.PodReasonUnschedulable {
		m.unschedulable.Inc()
		m.unschedulableTime.Observe(time.Since(began).Seconds())
		s.log.Debug("pod does not fit", "pod", it.Pod.Object.Namespace+"/"+it.Pod.Object.Name, "err", msg)
	} else {
		m.failed.Inc()
		m.erred.Observe(time.Since(began).Seconds())
		s.log.Error("scheduling failed, will be retried", "pod", it.Pod.Object.Namespace+"/"+it.Pod.Object.Name, "err", msg)
	}

	if s.queue.Get(it.Pod.UID()) != it {
		return // deleted, or bound by others, meanwhile
	}
	pod := it.Pod.Object
	if nomination != nil {
		s.snap.Nominate(it.Pod, nomination.NodeName)
	}
	s.queue.Reject(it, rejectors, pending, time.Now())
	s.recorder.event(p.name, pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", msg)
	s.explain(pod, reason, msg, nomination)
}

// postFilter asks the PostFilter plugins and returns what becomes of the
// nomination, with the messages.
func (s *Scheduler) postFilter(ctx context.Context, c *plugin.Cycle, p *profile, fit *fitError) (*plugin.Nomination, string) {
	if c.Statuses == nil { // refused before nodes were judged
		c.Statuses = make([]*plugin.Status, len(s.snap.Slots()))
		c.Refused = true
	}
	began := p.metrics.begin()
	var nomination *plugin.Nomination
	var messages []string
	for _, pl := range p.postFilters {
		n, st := pl.PostFilter(ctx, c)
		if st.OK() || st.Code == plugin.UnschedulableAndUnresolvable {
			p.metrics.point("PostFilter", st.CodeOf(), began)
			return n, st.Message()
		}
		if !st.Rejected() {
			p.metrics.point("PostFilter", plugin.Error, began)
			return nil, st.Message()
		}
		if n != nil {
			nomination = n
		}
		if m := st.Message(); m != "" {
			messages = append(messages, m)
		}
	}
	p.metrics.point("PostFilter", plugin.Unschedulable, began)
	return nomination, strings.Join(messages, ", ")
}

// explain writes the PodScheduled condition and the nominated node, where they
// differ from what the pod says.
func (s *Scheduler) explain(pod *corev1.Pod, reason, message string, nomination *plugin.Nomination) {
	status := map[string]any{}
	cond := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		ObservedGeneration: pod.Generation, LastTransitionTime: metav1.Now(),
	}
	same := false
	for i := range pod.Status.Conditions {
		if old := &pod.Status.Conditions[i]; old.Type == cond.Type {
			if old.Status == cond.Status {
				cond.LastTransitionTime = old.LastTransitionTime
				same = old.Reason == reason && old.Message == message && old.ObservedGeneration == cond.ObservedGeneration
			}
		}
	}
	if !same {
		status["conditions"] = []corev1.PodCondition{cond}
	}
	if nomination != nil && nomination.NodeName != pod.Status.NominatedNodeName {
		status["nominatedNodeName"] = nomination.NodeName
		if nomination.NodeName == "" {
			status["nominatedNodeName"] = nil
		}
	}
	if len(status) > 0 {
		s.patches.put(s, pod.UID, status, func(status map[string]any) { s.patch(s.ctx, pod, status) })
	}
}

// patches writes statuses of pods and groups beside the loop, for each in order; of
// several that wait only the last is written.
type patches struct {
	mu      sync.Mutex
	waiting map[podUID]map[string]any // nil while the first is under way
}

func (ps *patches) put(s *Scheduler, uid podUID, status map[string]any, write func(map[string]any)) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if next, busy := ps.waiting[uid]; busy {
		if next == nil {
			next = map[string]any{}
			ps.waiting[uid] = next
		}
		for k, v := range status {
			next[k] = v
		}
		return
	}
	ps.waiting[uid] = nil
	s.workers.Go(func() {
		for {
			write(status)
			ps.mu.Lock()
			status = ps.waiting[uid]
			if status == nil || s.ctx.Err() != nil {
				delete(ps.waiting, uid)
				ps.mu.Unlock()
				return
			}
			ps.waiting[uid] = nil
			ps.mu.Unlock()
		}
	})
}

func (s *Scheduler) patch(ctx context.Context, pod *corev1.Pod, status map[string]any) {
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status":   status,
	})
	if err == nil {
		_, err = client.For[*corev1.Pod](s.client).Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, data, "status")
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		s.log.Error("pod status not written", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}
