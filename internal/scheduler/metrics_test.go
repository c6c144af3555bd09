// SPDX-License-Identifier: Apache-2.0

package scheduler_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
)

// The gauges say what waits and why, the histograms what happened.
func TestMetrics(t *testing.T) {
	w := start(t)
	create(w, node("n1", "1"))
	create(w, pod("small", "100m"))
	w.lands("small", "n1")
	create(w, pod("large", "8"))
	w.eventually("the metrics", func() bool {
		text := w.scrape()
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

// scrape returns the metrics.
func (w *world) scrape() string {
	answer := httptest.NewRecorder()
	w.web.ServeHTTP(answer, httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, "/metrics", nil))
	return answer.Body.String()
}

// measures waits for series to have values.
func (w *world) measures(lines ...string) {
	w.t.Helper()
	w.eventually(fmt.Sprint("metrics ", lines), func() bool {
		text := w.scrape()
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line+"\n") {
				return false
			}
		}
		return true
	})
}

// The calls of plugins are counted where they are made, and the first attempt
// is among those that are timed.
func TestPluginMetrics(t *testing.T) {
	w := start(t)
	create(w, node("n1", "1"))
	w.measures(`scheduler_plugin_evaluation_total{extension_point="Filter",plugin="NodeName",profile="default-scheduler"} 0`)
	create(w, pod("a", "100m"))
	w.lands("a", "n1")
	const count, timed = "scheduler_plugin_evaluation_total", "scheduler_plugin_execution_duration_seconds_count"
	w.measures(
		count+`{extension_point="PreFilter",plugin="NodeResourcesFit",profile="default-scheduler"} 1`,
		count+`{extension_point="Filter",plugin="NodeResourcesFit",profile="default-scheduler"} 1`,
		count+`{extension_point="PreScore",plugin="NodeResourcesFit",profile="default-scheduler"} 1`,
		count+`{extension_point="Score",plugin="NodeResourcesFit",profile="default-scheduler"} 1`,
		timed+`{extension_point="PreFilter",plugin="NodeResourcesFit",status="Success"} 1`,
		timed+`{extension_point="PreFilter",plugin="NodePorts",status="Skip"} 1`,
		timed+`{extension_point="Filter",plugin="NodeResourcesFit",status="Success"} 1`,
		timed+`{extension_point="Bind",plugin="DefaultBinder",status="Success"} 1`,
		`scheduler_inflight_events{event="PodPopped"} 0`,
		`scheduler_batch_attempts_total{profile="default-scheduler",result="no_hint"} 1`,
		`scheduler_get_node_hint_duration_seconds_count{hinted="no_hint",profile="default-scheduler"} 1`,
	)
	if text := w.scrape(); strings.Contains(text, `extension_point="PreScore",plugin="ImageLocality"`) {
		t.Error("ImageLocality has no PreScore")
	}
}

// What is done for alike pods names the node for the third of them.
func TestBatchMetrics(t *testing.T) {
	w := start(t)
	create(w, node("n1", "1"))
	for _, name := range []string{"a", "b", "c"} {
		create(w, pod(name, "100m"))
		w.lands(name, "n1")
	}
	w.measures(
		`scheduler_batch_attempts_total{profile="default-scheduler",result="hint_used"} 2`,
		`scheduler_batch_attempts_total{profile="default-scheduler",result="no_hint"} 1`,
		`scheduler_get_node_hint_duration_seconds_count{hinted="hint",profile="default-scheduler"} 2`,
	)
}

// A plugin that is asked whether an event helps a pod is timed.
func TestHintMetrics(t *testing.T) {
	w := start(t)
	create(w, node("n1", "1"))
	create(w, pod("a", "500m"))
	w.lands("a", "n1")
	create(w, pod("b", "800m"))
	w.measures(`scheduler_pending_pods{queue="unschedulable"} 1`)
	if err := client.For[*corev1.Pod](w).Delete(t.Context(), "default", "a", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	w.lands("b", "n1")
	w.measures(`scheduler_queueing_hint_execution_duration_seconds_count{event="AssignedPodDelete",hint="Queue",plugin="NodeResourcesFit"} 1`)
}
