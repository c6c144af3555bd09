// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"kaji/internal/controller/meter"
)

// TestMetrics: what waits, works, and comes again is counted, from before the
// run too; and the workers are as many as the context says.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := meter.New()
		ctx, cancel := context.WithCancel(meter.With(WithWorkers(t.Context(), map[string]int{"test": 2}), set))
		var running atomic.Int32
		release := make(chan error)
		q := New("test", nil, func(context.Context, string) error {
			running.Add(1)
			defer running.Add(-1)
			return <-release
		})
		for _, key := range []string{"a", "b", "c"} {
			q.Add(key)
		}
		done := make(chan struct{})
		go func() { q.Run(ctx, 1); close(done) }()
		<-time.After(time.Minute)
		synctest.Wait()
		if n := running.Load(); n != 2 {
			t.Errorf("%d workers, want 2", n)
		}
		want := `
# HELP workqueue_adds_total Total number of adds handled by workqueue
# TYPE workqueue_adds_total counter
workqueue_adds_total{name="test"} 3
# HELP workqueue_depth Current depth of workqueue
# TYPE workqueue_depth gauge
workqueue_depth{name="test"} 1
# HELP workqueue_longest_running_processor_seconds How many seconds has the longest running processor for workqueue been running.
# TYPE workqueue_longest_running_processor_seconds gauge
workqueue_longest_running_processor_seconds{name="test"} 60
`
		if err := testutil.GatherAndCompare(set.Registry(), strings.NewReader(want), "workqueue_adds_total", "workqueue_depth", "workqueue_longest_running_processor_seconds"); err != nil {
			t.Error(err)
		}
		release <- errors.New("once more")
		release <- nil
		release <- nil
		<-time.After(time.Second)
		release <- nil
		synctest.Wait()
		want = `
# HELP workqueue_adds_total Total number of adds handled by workqueue
# TYPE workqueue_adds_total counter
workqueue_adds_total{name="test"} 4
# HELP workqueue_depth Current depth of workqueue
# TYPE workqueue_depth gauge
workqueue_depth{name="test"} 0
# HELP workqueue_retries_total Total number of retries handled by workqueue
# TYPE workqueue_retries_total counter
workqueue_retries_total{name="test"} 1
`
		if err := testutil.GatherAndCompare(set.Registry(), strings.NewReader(want), "workqueue_adds_total", "workqueue_depth", "workqueue_retries_total"); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
	})
}
