// SPDX-License-Identifier: Apache-2.0

package container

import (
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestMetrics measures a running container by names and labels that are all
// described.
func TestMetrics(t *testing.T) {
	r := open(t, directory(t))
	run(t, r)
	image := pull(t, r)
	sandbox, pod := runSandbox(t, r, "measured")
	id := createBox(t, r, sandbox, pod, image, "sleep")
	startBox(t, r, id)
	defer removeAll(t, r)
	described, err := r.ListMetricDescriptors(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]string{}
	for _, d := range described.GetDescriptors() {
		if d.GetHelp() == "" || keys[d.GetName()] != nil {
			t.Errorf("%s: described twice or without a word", d.GetName())
		}
		keys[d.GetName()] = d.GetLabelKeys()
	}
	// A container is started before its program is executed: until then the init process still holds the socket it was prepared through.
	var values map[string]uint64
	waitFor(t, "the container's program to stand alone, without a socket", func() bool {
		values = containerMetrics(t, r, id, keys)
		return values["container_processes"] == 1 && values["container_sockets"] == 0
	})
	for _, name := range []string{"container_processes", "container_sockets"} {
		if _, ok := values[name]; !ok {
			t.Errorf("%s is not measured", name)
		}
	}
	for _, name := range []string{"container_memory_usage_bytes", "container_threads", "container_file_descriptors", "container_last_seen",
		"container_start_time_seconds", "container_fs_limit_bytes", "container_ulimits_soft"} {
		if values[name] == 0 {
			t.Errorf("%s is not measured", name)
		}
	}
	stats, err := r.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: sandbox})
	if err != nil || stats.GetStats().GetLinux().GetMemory().GetWorkingSetBytes().GetValue() == 0 {
		t.Errorf("PodSandboxStats: %v, %v", stats, err)
	}
}

// containerMetrics returns the values measured of the only container, by their names.
func containerMetrics(t *testing.T, r *Runtime, id string, keys map[string][]string) map[string]uint64 {
	t.Helper()
	got, err := r.ListPodSandboxMetrics(t.Context(), nil)
	if err != nil || len(got.GetPodMetrics()) != 1 || len(got.GetPodMetrics()[0].GetContainerMetrics()) != 1 {
		t.Fatalf("ListPodSandboxMetrics: %v, %v", got, err)
	}
	metrics := got.GetPodMetrics()[0].GetContainerMetrics()[0]
	if metrics.GetContainerId() != id {
		t.Errorf("metrics of %s, want %s", metrics.GetContainerId(), id)
	}
	values := map[string]uint64{}
	for _, m := range metrics.GetMetrics() {
		if len(keys[m.GetName()]) != len(m.GetLabelValues()) {
			t.Errorf("%s has labels %v, described as %v", m.GetName(), m.GetLabelValues(), keys[m.GetName()])
		}
		values[m.GetName()] = m.GetValue().GetValue()
	}
	return values
}

// waitFor polls a state for a minute.
func waitFor(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for start := time.Now(); !reached(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
