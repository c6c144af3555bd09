// SPDX-License-Identifier: Apache-2.0

package status

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
)

// well says of every container that it has started and is ready.
type well struct{}

func (well) Started(*corev1.Pod, string, string) bool { return true }
func (well) Ready(*corev1.Pod, string, string) bool   { return true }

func container(name string, state runtimeapi.ContainerState, exit int32) *actual.Container {
	return &actual.Container{ID: "id-" + name, Name: name, State: state, ExitCode: exit, Reason: "Error", SandboxID: "s", StartedAt: time.Unix(1, 0)}
}

// Each row is what runs of a pod with an init container "i" and an ordinary one
// "a", and the phase and the reason for not being ready that follow.
func TestPhase(t *testing.T) {
	const (
		running = runtimeapi.ContainerState_CONTAINER_RUNNING
		exited  = runtimeapi.ContainerState_CONTAINER_EXITED
	)
	for name, row := range map[string]struct {
		policy   corev1.RestartPolicy
		have     []*actual.Container
		terminal bool
		phase    corev1.PodPhase
		reason   string
		message  string
	}{
		"nothing yet":           {"Always", nil, false, "Pending", "ContainersNotReady", "containers with unready status: [a]"},
		"init runs":             {"Always", []*actual.Container{container("i", running, 0)}, false, "Pending", "ContainersNotReady", "containers with unready status: [a]"},
		"init failed, never":    {"Never", []*actual.Container{container("i", exited, 1)}, false, "Failed", "PodFailed", ""},
		"init failed, always":   {"Always", []*actual.Container{container("i", exited, 1)}, false, "Pending", "ContainersNotReady", "containers with unready status: [a]"},
		"all run":               {"Always", []*actual.Container{container("i", exited, 0), container("a", running, 0)}, false, "Running", "", ""},
		"exit, always":          {"Always", []*actual.Container{container("i", exited, 0), container("a", exited, 0)}, false, "Running", "ContainersNotReady", "containers with unready status: [a]"},
		"exit 0, never":         {"Never", []*actual.Container{container("i", exited, 0), container("a", exited, 0)}, false, "Succeeded", "PodCompleted", ""},
		"exit 1, never":         {"Never", []*actual.Container{container("i", exited, 0), container("a", exited, 1)}, false, "Failed", "PodFailed", ""},
		"exit 1, always, ended": {"Always", []*actual.Container{container("i", exited, 0), container("a", exited, 1)}, true, "Failed", "PodFailed", ""},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Generation: 3}, Spec: corev1.PodSpec{RestartPolicy: row.policy,
			InitContainers: []corev1.Container{{Name: "i"}}, Containers: []corev1.Container{{Name: "a"}}}}
		a := &actual.Pod{Containers: row.have, Sandboxes: []*runtimeapi.PodSandboxStatus{{Id: "s", State: runtimeapi.PodSandboxState_SANDBOX_READY,
			Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.1"}}}}
		s := Generate(Input{Pod: pod, Old: &corev1.PodStatus{}, Actual: a, RuntimeName: "x", Health: well{}, Terminal: row.terminal})
		ready := Condition(s.Conditions, corev1.PodReady)
		if s.Phase != row.phase || ready.Reason != row.reason || ready.Message != row.message || s.ObservedGeneration != 3 || s.PodIP != "10.0.0.1" {
			t.Errorf("%s: got %s, %q: %q, want %s, %q: %q", name, s.Phase, ready.Reason, ready.Message, row.phase, row.reason, row.message)
		}
	}
}

// A final phase waits until nothing runs; conditions of others stay.
func TestMerge(t *testing.T) {
	pod := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: "example.com/gate", Status: corev1.ConditionTrue}}}}
	fresh := corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	held := merge(pod, fresh, true)
	if held.Phase != corev1.PodRunning || held.Reason != "" || Condition(held.Conditions, "example.com/gate") == nil {
		t.Errorf("got %+v while containers run", held)
	}
	told := merge(pod, fresh, false)
	if c := Condition(told.Conditions, corev1.PodReady); told.Phase != corev1.PodFailed || told.Reason != "Evicted" || c.Status != corev1.ConditionFalse || c.Reason != "PodFailed" {
		t.Errorf("got %+v when nothing runs", told)
	}
}

// A pod that has ended keeps its addresses: its network is gone, and whoever
// looks at it still wants to know where it was. A new sandbox has its own.
func TestAddressesStay(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: "Never", Containers: []corev1.Container{{Name: "a"}}}}
	old := &corev1.PodStatus{PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}}
	for name, row := range map[string]struct {
		state   runtimeapi.PodSandboxState
		network *runtimeapi.PodSandboxNetworkStatus
		want    string
		all     int
	}{
		"ended":          {runtimeapi.PodSandboxState_SANDBOX_NOTREADY, nil, "10.0.0.1", 2},
		"begun anew":     {runtimeapi.PodSandboxState_SANDBOX_READY, &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.2"}, "10.0.0.2", 1},
		"not there yet":  {runtimeapi.PodSandboxState_SANDBOX_READY, nil, "", 0},
		"ended, has one": {runtimeapi.PodSandboxState_SANDBOX_NOTREADY, &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.3"}, "10.0.0.1", 2},
	} {
		a := &actual.Pod{Sandboxes: []*runtimeapi.PodSandboxStatus{{Id: "s", State: row.state, Network: row.network}}}
		s := Generate(Input{Pod: pod, Old: old, Actual: a, Health: well{}, Terminal: true})
		if s.PodIP != row.want || len(s.PodIPs) != row.all {
			t.Errorf("%s: %q of %v, want %q of %d", name, s.PodIP, s.PodIPs, row.want, row.all)
		}
	}
}
