// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
)

// verdicts are fixed answers of probes: container id to the kind that failed,
// and containers that have not started.
type verdicts struct {
	failed     map[string]string
	notStarted map[string]bool
}

func (v verdicts) Failed(id string) string                    { return v.failed[id] }
func (v verdicts) Started(_ *corev1.Pod, name, _ string) bool { return !v.notStarted[name] }
func (v verdicts) Ready(_ *corev1.Pod, name, _ string) bool   { return !v.notStarted[name] }

const (
	running = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited  = runtimeapi.ContainerState_CONTAINER_EXITED
	created = runtimeapi.ContainerState_CONTAINER_CREATED
	unknown = runtimeapi.ContainerState_CONTAINER_UNKNOWN
)

// c is a container that the runtime has, in the sandbox "s" unless told otherwise.
func c(name string, state runtimeapi.ContainerState, exit int32, sandbox ...string) *actual.Container {
	spec := corev1.Container{Name: name, Image: "i"}
	one := &actual.Container{ID: "id-" + name, Name: name, State: state, ExitCode: exit, SandboxID: "s", Hash: actual.Hash(&spec), CreatedAt: time.Unix(1, 0)}
	if len(sandbox) > 0 {
		one.SandboxID = sandbox[0]
	}
	return one
}

func have(containers ...*actual.Container) *actual.Pod {
	return &actual.Pod{UID: "u", Containers: containers, Sandboxes: []*runtimeapi.PodSandboxStatus{{Id: "s", Metadata: &runtimeapi.PodSandboxMetadata{},
		State: runtimeapi.PodSandboxState_SANDBOX_READY, Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.1"}}}}
}

// Each row is a pod, what the runtime has of it, and what is to be done.
func TestPlan(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	container := func(name string) corev1.Container { return corev1.Container{Name: name, Image: "i"} }
	sidecar := func(name string) corev1.Container {
		return corev1.Container{Name: name, Image: "i", RestartPolicy: &always}
	}
	pod := func(policy corev1.RestartPolicy, init []corev1.Container, names ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: policy, InitContainers: init}}
		for _, n := range names {
			p.Spec.Containers = append(p.Spec.Containers, container(n))
		}
		return p
	}
	init := func(c ...corev1.Container) []corev1.Container { return c }
	down := have()
	down.Sandboxes[0].State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	downAfter := have(c("a", exited, 0))
	downAfter.Sandboxes[0].State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	changed := c("a", running, 0)
	changed.Hash++
	for name, row := range map[string]struct {
		pod         *corev1.Pod
		have        *actual.Pod
		probes      verdicts
		start, kill []string
		sandbox     bool
		killPod     bool
	}{
		"nothing yet":                {pod: pod("Always", nil, "a", "b"), have: &actual.Pod{}, sandbox: true, start: []string{"a", "b"}},
		"nothing yet, init first":    {pod: pod("Always", init(container("i")), "a"), have: &actual.Pod{}, sandbox: true, start: []string{"i"}},
		"all run":                    {pod: pod("Always", nil, "a"), have: have(c("a", running, 0))},
		"sandbox gone":               {pod: pod("Always", nil, "a"), have: down, sandbox: true, killPod: true, start: []string{"a"}},
		"sandbox gone after the end": {pod: pod("Never", nil, "a"), have: downAfter, killPod: true},
		"exit, always":               {pod: pod("Always", nil, "a", "b"), have: have(c("a", exited, 0), c("b", running, 0)), start: []string{"a"}},
		"exit 0, on failure":         {pod: pod("OnFailure", nil, "a", "b"), have: have(c("a", exited, 0), c("b", running, 0))},
		"exit 1, on failure":         {pod: pod("OnFailure", nil, "a", "b"), have: have(c("a", exited, 1), c("b", running, 0)), start: []string{"a"}},
		"exit 1, never, the last":    {pod: pod("Never", nil, "a"), have: have(c("a", exited, 1)), killPod: true},
		"created, never started":     {pod: pod("Never", nil, "a"), have: have(c("a", created, 0)), start: []string{"a"}},
		"state unknown":              {pod: pod("Always", nil, "a"), have: have(c("a", unknown, 0)), start: []string{"a"}, kill: []string{"a"}},
		"image changed":              {pod: pod("Always", nil, "a"), have: have(changed), start: []string{"a"}, kill: []string{"a"}},
		"liveness failed":            {pod: pod("Always", nil, "a"), have: have(c("a", running, 0)), probes: verdicts{failed: map[string]string{"id-a": "Liveness"}}, start: []string{"a"}, kill: []string{"a"}},
		"liveness failed, never":     {pod: pod("Never", nil, "a", "b"), have: have(c("a", running, 0), c("b", running, 0)), probes: verdicts{failed: map[string]string{"id-a": "Liveness"}}, kill: []string{"a"}},
		"init runs":                  {pod: pod("Always", init(container("i")), "a"), have: have(c("i", running, 0))},
		"init done":                  {pod: pod("Always", init(container("i")), "a"), have: have(c("i", exited, 0)), start: []string{"a"}},
		"next init":                  {pod: pod("Always", init(container("i"), container("j")), "a"), have: have(c("i", exited, 0)), start: []string{"j"}},
		"init failed":                {pod: pod("Always", init(container("i")), "a"), have: have(c("i", exited, 1)), start: []string{"i"}},
		"init failed, never":         {pod: pod("Never", init(container("i")), "a"), have: have(c("i", exited, 1)), killPod: true},
		"init was in an old sandbox": {pod: pod("Always", init(container("i")), "a"), have: have(c("i", exited, 0, "old")), start: []string{"i"}},
		"sidecar not started":        {pod: pod("Always", init(sidecar("i")), "a"), have: have(c("i", running, 0)), probes: verdicts{notStarted: map[string]bool{"i": true}}},
		"sidecar started":            {pod: pod("Always", init(sidecar("i")), "a"), have: have(c("i", running, 0)), start: []string{"a"}},
		"sidecar ended early":        {pod: pod("Always", init(sidecar("i"), container("j")), "a"), have: have(c("i", exited, 1), c("j", running, 0)), start: []string{"i"}},
		"sidecar ended":              {pod: pod("Always", init(sidecar("i")), "a"), have: have(c("i", exited, 0), c("a", running, 0)), start: []string{"i"}},
		"only the sidecar is left":   {pod: pod("Never", init(sidecar("i")), "a"), have: have(c("i", running, 0), c("a", exited, 0)), killPod: true},
		"initialized, init gone":     {pod: pod("Always", init(container("i")), "a"), have: have(c("a", running, 0))},
	} {
		p := MakePlan(row.pod, row.have, row.probes)
		var start, kill []string
		for _, s := range p.Start {
			start = append(start, s.Name)
		}
		for _, k := range p.Kill {
			kill = append(kill, k.Container.Name)
		}
		if !slices.Equal(start, row.start) || !slices.Equal(kill, row.kill) || p.CreateSandbox != row.sandbox || p.KillPod != row.killPod {
			t.Errorf("%s: got start %v, kill %v, sandbox %t, kill pod %t; want %v, %v, %t, %t", name, start, kill, p.CreateSandbox, p.KillPod, row.start, row.kill, row.sandbox, row.killPod)
		}
	}
}

// Limits come to what the kernel is told.
func TestShares(t *testing.T) {
	for milli, want := range map[int64]int64{0: 2, 1: 2, 100: 102, 1000: 1024, 1 << 30: 262144} {
		if got := Shares(milli); got != want {
			t.Errorf("Shares(%d): got %d, want %d", milli, got, want)
		}
	}
	for milli, want := range map[int64]int64{0: 0, 1: 1000, 500: 50000} {
		if got := Quota(milli, 100*time.Millisecond); got != want {
			t.Errorf("Quota(%d): got %d, want %d", milli, got, want)
		}
	}
}
