// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"

	"k8s.io/utils/ptr"

	"kaji/internal/scheduler/queue"
)

// measure sets the gauges from the loop's state, when somebody asks.
func (s *Scheduler) measure(ctx context.Context) {
	select {
	case <-s.ready:
	default:
		return
	}
	done := make(chan struct{})
	s.inbox.post(func() {
		defer close(done)
		c := s.queue.Counts()
		for name, n := range map[string]int{"active": c.Active, "backoff": c.Backoff, "unschedulable": c.Unschedulable, "gated": c.Gated} {
			s.metrics.pending.WithLabelValues(name).Set(float64(n))
			s.metrics.queued.WithLabelValues(name, "pod").Set(float64(n))
		}
		// The queue counts events during an attempt and keeps none of them.
		s.metrics.inflightEvents.WithLabelValues("PodPopped").Set(float64(c.InFlight))
		for _, p := range s.profiles {
			for i := range p.judges {
				p.judges[i].calls.publish()
			}
		}
		s.metrics.cacheSize.WithLabelValues("nodes").Set(float64(s.snap.Len()))
		s.metrics.cacheSize.WithLabelValues("pods").Set(float64(s.snap.Pods()))
		s.metrics.goroutines.WithLabelValues("binding").Set(float64(s.binders.running()))
		s.metrics.unschedulable.Reset()
		s.queue.Unschedulable(func(r queue.Rejector) {
			s.metrics.unschedulable.WithLabelValues(r.Plugin, r.Profile).Inc()
		})
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// standby says whether this instance may be waiting to lead.
func (s *Scheduler) standby() bool { return ptr.Deref(s.cfg.LeaderElection.LeaderElect, false) }
