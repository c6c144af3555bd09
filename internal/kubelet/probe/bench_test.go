// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/memcri"
)

// BenchmarkHTTP asks a thousand containers every second for ten seconds an
// iteration; it reports how many probes a second came through, and what CPU one
// cost with the server's part, which runs in this process, too.
func BenchmarkHTTP(b *testing.B) {
	const containers, lasts = 1000, 10 * time.Second
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		b.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		b.Fatal(err)
	}
	m := New(Config{Runtime: memcri.New(memcri.Config{}), Recorder: &record.FakeRecorder{}, Logger: slog.New(slog.DiscardHandler), Changed: func(types.UID) {}})
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = m.Run(ctx) })
	for i := range containers {
		id := fmt.Sprint("c", i)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(id), Name: id}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c",
			ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1, TimeoutSeconds: 1,
				ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: u.Hostname(), Port: intstr.FromInt(port), Path: "/"}}}}}}}
		m.Update(pod, &actual.Pod{UID: types.UID(id), Containers: []*actual.Container{{ID: id, Name: "c", State: runtimeapi.ContainerState_CONTAINER_RUNNING, StartedAt: time.Now()}}})
	}
	spent := func() time.Duration {
		var use unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &use)
		return time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	before, cpu, begun := asked.Load(), spent(), time.Now()
	for b.Loop() {
		<-time.After(lasts)
	}
	probes := float64(asked.Load() - before)
	b.ReportMetric(probes/time.Since(begun).Seconds(), "probes/s")
	b.ReportMetric(float64((spent()-cpu).Microseconds())/probes, "cpu-µs/probe")
	cancel()
	running.Wait()
}
