// SPDX-License-Identifier: Apache-2.0

package actual_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/memcri"
)

// What is written on sandboxes and containers is read back as it was.
func TestObserve(t *testing.T) {
	ctx := t.Context()
	runtime := memcri.New(memcri.Config{})
	grace := int64(7)
	container := corev1.Container{Name: "c", Image: "i", TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"app": "x"}},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{container}}}
	s, err := runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u"}, Labels: actual.PodLabels(pod)}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "i"},
		Labels: actual.ContainerLabels(pod, &container), Annotations: actual.ContainerAnnotations(pod, &container, 3)}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := actual.Observe(ctx, runtime, "ns", "p", "u")
	if err != nil {
		t.Fatal(err)
	}
	one := got.Container("c")
	if !got.Ready() || len(got.IPs()) != 1 || one == nil {
		t.Fatalf("got %+v, want a ready sandbox with an address and one container", got)
	}
	if one.ID != c.ContainerId || one.RestartCount != 3 || one.Hash != actual.Hash(&container) || one.GracePeriod.Seconds() != 7 ||
		one.Image != "i" || one.TerminationMessagePolicy != corev1.TerminationMessageReadFile || one.SandboxID != s.PodSandboxId {
		t.Errorf("got %+v", one)
	}
	keys, err := actual.List(ctx, runtime)
	if err != nil || len(keys) != 1 || keys[0] != (actual.Key{UID: "u", Namespace: "ns", Name: "p"}) {
		t.Errorf("got %v, %v, want the one pod", keys, err)
	}
	empty, err := actual.Observe(ctx, runtime, "ns", "q", "other")
	if err != nil || empty.Sandbox() != nil || len(empty.Containers) != 0 {
		t.Errorf("got %+v, %v for a pod that the runtime does not know", empty, err)
	}
}

// eventless is a runtime whose streams of events end as soon as they begin, as
// containerd's before 1.7 do.
type eventless struct {
	cri.Runtime
	asked, listed int
}

func (e *eventless) Events(context.Context) (<-chan *runtimeapi.ContainerEventResponse, error) {
	e.asked++
	none := make(chan *runtimeapi.ContainerEventResponse)
	close(none)
	return none, nil
}

func (e *eventless) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	e.listed++
	return &runtimeapi.ListPodSandboxResponse{}, nil
}

func (*eventless) ListContainers(context.Context, *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{}, nil
}

// A runtime without events is listed every second, and asked for them every minute.
func TestNoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &eventless{}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		w := &actual.Watcher{Runtime: e, Logger: slog.New(slog.DiscardHandler), Changed: func(types.UID) {}}
		if err := w.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if e.asked != 2 || e.listed < 80 || e.listed > 95 {
			t.Errorf("asked for events %d times, listed %d times", e.asked, e.listed)
		}
	})
}

// The container that was started last is the newest, also where the clock was put
// back in between.
func TestClockPutBack(t *testing.T) {
	runtime := memcri.New(memcri.Config{})
	container := corev1.Container{Name: "c", Image: "i"}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{container}}}
	var made []string
	var sandboxes []string
	for _, n := range []int32{2, 1} { // the second is made later, by a clock that was put forward
		s, err := runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u", Attempt: uint32(n)}, Labels: actual.PodLabels(pod)}}) //nolint:gosec // small
		if err != nil {
			t.Fatal(err)
		}
		c, err := runtime.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c", Attempt: uint32(n)}, Image: &runtimeapi.ImageSpec{Image: "i"}, //nolint:gosec // small
			Labels: actual.ContainerLabels(pod, &container), Annotations: actual.ContainerAnnotations(pod, &container, n)}})
		if err != nil {
			t.Fatal(err)
		}
		made, sandboxes = append(made, c.ContainerId), append(sandboxes, s.PodSandboxId)
	}
	got, err := actual.Observe(t.Context(), runtime, "ns", "p", "u")
	if err != nil {
		t.Fatal(err)
	}
	if got.Container("c").ID != made[0] || got.Sandbox().Id != sandboxes[0] {
		t.Errorf("the newest are %s in %s, want %s in %s", got.Container("c").ID, got.Sandbox().Id, made[0], sandboxes[0])
	}
}
