// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
)

// handle is what the plugins of one profile may use.
type handle struct {
	s       *Scheduler
	profile string
}

func (h *handle) Client() client.Interface { return tracked{h.s.client, h.s.feed} }
func (h *handle) ProfileName() string      { return h.profile }

func (h *handle) Event(regarding, related client.Object, eventType, reason, action, note string) {
	h.s.recorder.event(h.profile, regarding, related, eventType, reason, action, note)
}

func (h *handle) Go(f func(ctx context.Context)) {
	h.s.workers.Go(func() { f(h.s.ctx) })
}

func (h *handle) Post(f func()) { h.s.inbox.post(f) }

func (h *handle) Activate(uids ...podUID) {
	for _, uid := range uids {
		h.s.queue.Activate(uid)
	}
}

func (h *handle) Gated(uid podUID) string {
	if it := h.s.queue.Get(uid); it != nil {
		return it.Gated()
	}
	return ""
}

func (h *handle) Waiting(yield func(pod *corev1.Pod, nodeName string)) {
	for _, w := range h.s.waiting.pods {
		yield(w.cycle.Pod.Object, w.node)
	}
}

func (h *handle) Allow(uid podUID, name string) bool { return h.s.allowWaiting(uid, name) }

func (h *handle) Reject(uid podUID, name, reason string) bool {
	return h.s.rejectWaiting(uid, name, reason)
}

func (h *handle) PodByName(namespace, name string) *corev1.Pod {
	pod, err := client.For[*corev1.Pod](h.s.client).Cached(namespace, name)
	if err != nil {
		return nil
	}
	return pod
}

func (h *handle) Preempted(victims int) {
	h.s.metrics.preemptionAttempts.Inc()
	if victims > 0 {
		h.s.metrics.preemptionVictims.Observe(float64(victims))
	}
}

func (h *handle) PreemptedByGroup(result plugin.Code, victims int) {
	h.s.metrics.groupPreemptions.WithLabelValues(result.String()).Inc()
	if victims > 0 {
		h.s.metrics.groupVictims.WithLabelValues().Observe(float64(victims))
	}
}

func (h *handle) Evicted(took time.Duration, err error) {
	result := "success"
	if err != nil {
		result = "error"
	}
	h.s.metrics.evictions.WithLabelValues(result).Inc()
	h.s.metrics.evictionTime.WithLabelValues(result).Observe(took.Seconds())
}
