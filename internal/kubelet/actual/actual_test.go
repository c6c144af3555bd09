// SPDX-License-Identifier: Apache-2.0

package actual_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

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
