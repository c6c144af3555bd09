// SPDX-License-Identifier: Apache-2.0

package scheduler_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The gauges say what waits and why, the histograms what happened.
func TestMetrics(t *testing.T) {
	w := start(t)
	create(w, node("n1", "1"))
	create(w, pod("small", "100m"))
	w.lands("small", "n1")
	create(w, pod("large", "8"))
	w.eventually("the metrics", func() bool {
		answer := httptest.NewRecorder()
		w.web.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		text := answer.Body.String()
		for _, line := range []string{
			`scheduler_unschedulable_pods{plugin="NodeResourcesFit",profile="default-scheduler"} 1`,
			`scheduler_pending_pods{queue="unschedulable"} 1`,
			`scheduler_goroutines{operation="binding"} `,
			`scheduler_event_handling_duration_seconds_count{event="NodeAdd"} `,
			`scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1`,
			`scheduler_cache_size{type="nodes"} 1`,
		} {
			if !strings.Contains(text, line) {
				return false
			}
		}
		return true
	})
}
