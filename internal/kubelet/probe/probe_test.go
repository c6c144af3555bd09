// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/memcri"
)

// Startup comes first, then the others by their thresholds; a liveness probe
// that fails wants the container restarted.
func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var healthy, away atomic.Bool
		runtime := memcri.New(memcri.Config{Exec: func(string, []string) ([]byte, []byte, int32, error) {
			if away.Load() {
				return nil, nil, 0, errors.New("the runtime is away")
			}
			if healthy.Load() {
				return nil, nil, 0, nil
			}
			return []byte("ill"), nil, 1, nil
		}})
		sandbox, err := runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{}})
		if err != nil {
			t.Fatal(err)
		}
		made, err := runtime.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, Config: &runtimeapi.ContainerConfig{}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
			t.Fatal(err)
		}
		var changes atomic.Int32
		m := New(Config{Runtime: runtime, Recorder: record.NewFakeRecorder(1000), Logger: slog.New(slog.DiscardHandler), Changed: func(types.UID) { changes.Add(1) }})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		probe := func(failures int32) *corev1.Probe {
			return &corev1.Probe{PeriodSeconds: 10, FailureThreshold: failures, SuccessThreshold: 1, TimeoutSeconds: 1,
				ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c",
			StartupProbe: probe(30), LivenessProbe: probe(3), ReadinessProbe: probe(1)}}}}
		id := made.ContainerId
		m.Update(pod, &actual.Pod{UID: "u", Containers: []*actual.Container{{ID: id, Name: "c", State: runtimeapi.ContainerState_CONTAINER_RUNNING, StartedAt: time.Now()}}})
		state := func() (started, ready bool, failed string) {
			synctest.Wait()
			return m.Started(pod, "c", id), m.Ready(pod, "c", id), m.Failed(id)
		}
		if started, ready, failed := state(); started || ready || failed != "" {
			t.Errorf("got started %t, ready %t, failed %q at first", started, ready, failed)
		}
		healthy.Store(true)
		<-time.After(11 * time.Second)
		if started, ready, failed := state(); !started || !ready || failed != "" {
			t.Errorf("got started %t, ready %t, failed %q when healthy", started, ready, failed)
		}
		away.Store(true)
		<-time.After(time.Hour)
		if started, ready, failed := state(); !started || !ready || failed != "" {
			t.Errorf("got started %t, ready %t, failed %q when nobody can be asked", started, ready, failed)
		}
		away.Store(false)
		healthy.Store(false)
		<-time.After(11 * time.Second)
		if started, ready, failed := state(); !started || ready || failed != "" {
			t.Errorf("got started %t, ready %t, failed %q after one failure", started, ready, failed)
		}
		<-time.After(20 * time.Second)
		if _, _, failed := state(); failed != "Liveness" {
			t.Errorf("got failed %q after three failures", failed)
		}
		if n := changes.Load(); n != 4 { // started, ready, not ready, not live
			t.Errorf("got %d changes, want 4", n)
		}
		m.Remove("u")
		if got := m.Failed(id); got != "" {
			t.Errorf("got %q of a pod that is gone", got)
		}
		cancel()
		running.Wait()
	})
}

// HTTP probes take answers below 400, and redirects to other hosts as warnings.
func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			if r.Header.Get("User-Agent") != userAgent || r.Host != "named" {
				w.WriteHeader(http.StatusTeapot)
			}
		case "/away":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		result Result
		output string
	}{
		"/ok": {Success, ""}, "/away": {Warning, "Probe terminated redirects, Response body: <a href=\"http://elsewhere.invalid/\">Found</a>.\n\n"},
		"/ill?x=1": {Failure, "HTTP probe failed with statuscode: 503"},
	} {
		m := New(Config{})
		p := &probe{address: "127.0.0.1", container: &corev1.Container{}, spec: &corev1.Probe{TimeoutSeconds: 5, ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(port), HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "named"}}}}}}
		result, output, err := m.ask(t.Context(), p)
		if err != nil || result != want.result || output != want.output {
			t.Errorf("%s: got %v, %q, %v, want %v, %q", path, result, output, err, want.result, want.output)
		}
	}
}
