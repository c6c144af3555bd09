// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/kubelet"
	"kaji/internal/kubelet/evict"
	"kaji/internal/kubelet/memcri"
	"kaji/internal/kubelet/node"
	"kaji/internal/kubelet/status"
	"kaji/kajitest"
)

// noMounts stands in for the kernel's mounts.
type noMounts struct {
	mu      sync.Mutex
	mounted map[string]bool
}

func (m *noMounts) set(path string, on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mounted[path] = on
	return nil
}
func (m *noMounts) Tmpfs(dir string, _ int64) error                   { return m.set(dir, true) }
func (m *noMounts) Bind(_, dst string, _ bool) error                  { return m.set(dst, true) }
func (m *noMounts) Mount(_, dir, _ string, _ uintptr, _ string) error { return m.set(dir, true) }
func (m *noMounts) Unmount(path string) error                         { return m.set(path, false) }
func (m *noMounts) Mounted(path string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mounted[path], nil
}

// agent is a node agent under test with its control plane and runtime.
type agent struct {
	t       *testing.T
	client  client.Interface
	runtime *memcri.Runtime
	pods    client.Typed[*corev1.Pod]
	// static is the directory of static pods.
	static  string
	mounts  *noMounts
	kubelet *kubelet.Kubelet
}

func start(t *testing.T, cfg memcri.Config) *agent {
	t.Helper()
	return startWith(t, cfg, func(*apiserver.Config) {}, func(*kubelet.Config) {})
}

func startWith(t *testing.T, cfg memcri.Config, server func(*apiserver.Config), change func(*kubelet.Config)) *agent {
	t.Helper()
	// Kubelets judge resizes, too: nobody is to refuse them before.
	cluster := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.DisabledAdmission = append(c.DisabledAdmission, "PodResizeValidator")
		server(c)
	}))
	a := &agent{t: t, client: cluster.Client(), runtime: memcri.New(cfg), pods: client.For[*corev1.Pod](cluster.Client()),
		mounts: &noMounts{mounted: map[string]bool{}}}
	dir := t.TempDir()
	a.static = dir + "/static"
	if err := os.MkdirAll(a.static, 0o755); err != nil {
		t.Fatal(err)
	}
	settings := kubelet.Config{
		NodeName: "n1", Client: a.client, Runtime: a.runtime, Images: a.runtime, RootDir: dir + "/root", LogDir: dir + "/pods", LegacyLogDir: "-",
		NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Machine:       &node.Machine{OS: "linux", Arch: "amd64", MilliCPU: 4000, Memory: 8 << 30, Disk: 100 << 30},
		StaticPodPath: dir + "/static", Eviction: []evict.Threshold{}, // however full this machine is
		Mounter: a.mounts, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	change(&settings)
	k, err := kubelet.New(settings)
	if err != nil {
		t.Fatal(err)
	}
	a.kubelet = k
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return a
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) { w.t.Logf("%s", b); return len(b), nil }

// eventually waits until a condition holds.
func (a *agent) eventually(what string, ok func() bool) {
	a.t.Helper()
	a.within(20*time.Second, what, ok)
}

func (a *agent) within(limit time.Duration, what string, ok func() bool) {
	a.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			if a.runtime != nil {
				a.t.Logf("the runtime was asked %q", a.runtime.Calls())
			}
			a.t.Fatalf("never: %s", what)
		}
	}
}

// get reads a pod, nil where there is none.
func (a *agent) get(name string) *corev1.Pod {
	a.t.Helper()
	pod, err := a.pods.Get(a.t.Context(), "default", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return pod
}

func (a *agent) create(pod *corev1.Pod) *corev1.Pod {
	a.t.Helper()
	pod.Namespace, pod.Spec.NodeName = "default", "n1"
	created, err := a.pods.Create(a.t.Context(), pod)
	if err != nil {
		a.t.Fatal(err)
	}
	return created
}

func (a *agent) waitPhase(name string, phase corev1.PodPhase) *corev1.Pod {
	a.t.Helper()
	var pod *corev1.Pod
	a.eventually("pod "+name+" is "+string(phase), func() bool {
		pod = a.get(name)
		return pod != nil && pod.Status.Phase == phase
	})
	return pod
}

func simple(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "main", Image: "app:1"}}}}
	for _, c := range change {
		c(pod)
	}
	return pod
}

// A pod with scratch space and a token runs, is reported as upstream does, and
// is gone in order after its deletion.
func TestPodLife(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	if _, err := client.For[*corev1.ServiceAccount](a.client).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	a.eventually("the node is ready", func() bool {
		n, err := client.For[*corev1.Node](a.client).Get(t.Context(), "", "n1")
		return err == nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && c.Reason == "KubeletReady"
		})
	})
	a.create(simple("p", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	}))
	pod := a.waitPhase("p", corev1.PodRunning)
	for _, want := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		if c := status.Condition(pod.Status.Conditions, want); c == nil || c.Status != corev1.ConditionTrue || c.LastTransitionTime.IsZero() {
			t.Errorf("condition %s is %+v, want True", want, c)
		}
	}
	s := pod.Status.ContainerStatuses[0]
	if !s.Ready || s.Started == nil || !*s.Started || s.State.Running == nil || s.ContainerID == "" || s.RestartCount != 0 {
		t.Errorf("got container status %+v", s)
	}
	if pod.Status.PodIP == "" || pod.Status.HostIP != "192.0.2.1" || pod.Status.StartTime == nil || pod.Status.ObservedGeneration != pod.Generation {
		t.Errorf("got status %+v", pod.Status)
	}
	if err := a.pods.Delete(t.Context(), "default", "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.eventually("the pod is gone", func() bool { return a.get("p") == nil })
	a.eventually("nothing is left in the runtime", func() bool {
		calls := a.runtime.Calls()
		return calls[len(calls)-1] == "remove sandbox p"
	})
	want := []string{"run sandbox p", "create main", "start main", "stop main 30", "stop sandbox p", "remove main", "remove sandbox p"}
	if got := a.runtime.Calls(); !slices.Equal(got, want) {
		t.Errorf("the runtime was asked %q, want %q", got, want)
	}
}

// Who takes the node for lost calls its pods not ready; the agent, when it is
// back, says what is true.
func TestCalledNotReady(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	a.create(simple("p"))
	ready := func() bool {
		c := status.Condition(a.get("p").Status.Conditions, corev1.PodReady)
		return c != nil && c.Status == corev1.ConditionTrue
	}
	a.waitPhase("p", corev1.PodRunning)
	a.eventually("the pod is ready", ready)
	said, err := a.pods.MergePatch(t.Context(), "default", "p", map[string]any{"status": map[string]any{"conditions": []map[string]any{{"type": "Ready", "status": "False", "reason": "NodeNotReady"}}}}, "status")
	if err != nil {
		t.Fatal(err)
	}
	if c := status.Condition(said.Status.Conditions, corev1.PodReady); c == nil || c.Status != corev1.ConditionFalse {
		t.Fatalf("it was not called so: %+v", said.Status)
	}
	a.eventually("the pod is ready again", ready)
}

// A container that fails is restarted, and waits in between.
func TestCrashLoop(t *testing.T) {
	exits := make(chan string, 16)
	a := start(t, memcri.Config{Images: []string{"app:1"}, Started: func(id string, _ *runtimeapi.ContainerConfig) { exits <- id }})
	var ending sync.WaitGroup
	ending.Go(func() {
		for range 2 {
			if err := a.runtime.Exit(<-exits, 3, "Error"); err != nil {
				t.Error(err)
			}
		}
	})
	a.create(simple("p"))
	ending.Wait()
	a.eventually("the container waits", func() bool {
		pod := a.get("p")
		if pod == nil || len(pod.Status.ContainerStatuses) == 0 {
			return false
		}
		w := pod.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "CrashLoopBackOff"
	})
	pod := a.get("p")
	s := pod.Status.ContainerStatuses[0]
	if s.RestartCount != 1 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 3 {
		t.Errorf("got %+v, want one restart and the last exit", s)
	}
	if want := "back-off 10s restarting failed container=main pod=p_default(" + string(pod.UID) + ")"; s.State.Waiting.Message != want {
		t.Errorf("got %q, want %q", s.State.Waiting.Message, want)
	}
	if pod.Status.Phase != corev1.PodRunning {
		t.Errorf("got phase %s, want Running", pod.Status.Phase)
	}
}

// A pod that is not to be restarted comes to its end.
func TestCompletion(t *testing.T) {
	exits := make(chan string, 16)
	a := start(t, memcri.Config{Images: []string{"app:1"}, Started: func(id string, _ *runtimeapi.ContainerConfig) { exits <- id }})
	var ending sync.WaitGroup
	ending.Go(func() {
		if err := a.runtime.Exit(<-exits, 0, "Completed"); err != nil {
			t.Error(err)
		}
	})
	a.create(simple("p", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
	ending.Wait()
	pod := a.waitPhase("p", corev1.PodSucceeded)
	if c := status.Condition(pod.Status.Conditions, corev1.PodReady); c == nil || c.Status != corev1.ConditionFalse || c.Reason != "PodCompleted" {
		t.Errorf("got %+v, want not ready because it completed", c)
	}
	if err := a.pods.Delete(t.Context(), "default", "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.eventually("the pod is gone", func() bool { return a.get("p") == nil })
}

// A static pod runs, is shown by a mirror with its status, and goes with its file.
func TestStaticPod(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	file := a.static + "/web.yaml"
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: main, image: 'app:1'}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.waitPhase("web-n1", corev1.PodRunning)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	a.eventually("the mirror is gone", func() bool { return a.get("web-n1") == nil })
	a.eventually("the pod is gone", func() bool { return slices.Contains(a.runtime.Calls(), "remove sandbox web-n1") })
}

// Pods without the host's users get ranges of ids of their own, which what is
// mounted in them is mapped by.
func TestUserNamespace(t *testing.T) {
	made := make(chan *runtimeapi.ContainerConfig, 8)
	a := start(t, memcri.Config{Images: []string{"app:1"}, Started: func(_ string, c *runtimeapi.ContainerConfig) { made <- c }})
	seen := map[uint32]bool{}
	for _, name := range []string{"one", "two"} {
		a.create(simple(name, func(p *corev1.Pod) {
			no := false
			p.Spec.HostUsers = &no
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		}))
		var c *runtimeapi.ContainerConfig
		select {
		case c = <-made:
		case <-time.After(time.Minute):
			t.Fatal("no container")
		}
		own := c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
		if own.GetMode() != runtimeapi.NamespaceMode_POD || len(own.GetUids()) != 1 || len(own.GetGids()) != 1 || own.GetUids()[0].GetLength() != 65536 {
			t.Fatalf("the namespace is %v", own)
		}
		first := own.GetUids()[0].GetHostId()
		if first == 0 || first%65536 != 0 || seen[first] {
			t.Errorf("ids from %d, others have %v", first, seen)
		}
		seen[first] = true
		for _, m := range c.GetMounts() {
			if len(m.GetUidMappings()) != 1 || m.GetUidMappings()[0].GetHostId() != first {
				t.Errorf("%s is mapped by %v", m.GetContainerPath(), m.GetUidMappings())
			}
		}
	}
}

// A pod that the node has no room for fails with upstream's words.
func TestRejection(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	a.create(simple("big", func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5")}
	}))
	pod := a.waitPhase("big", corev1.PodFailed)
	if want := "Pod was rejected: Node didn't have enough resource: cpu, requested: 5000, used: 0, capacity: 4000"; pod.Status.Reason != "OutOfcpu" || pod.Status.Message != want {
		t.Errorf("got %s: %s", pod.Status.Reason, pod.Status.Message)
	}
	if err := a.pods.Delete(t.Context(), "default", "big", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.eventually("the pod is gone", func() bool { return a.get("big") == nil })
}

// A resize is granted, applied without a restart and reported.
func TestResize(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	requests := func(cpu string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}
	}
	a.create(simple("p", func(p *corev1.Pod) { p.Spec.Containers[0].Resources = requests("100m") }))
	pod := a.waitPhase("p", corev1.PodRunning).DeepCopy()
	for cpu, pending := range map[string]string{"200m": "", "9": corev1.PodReasonInfeasible} {
		patch := map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "main", "image": "app:1", "resources": map[string]any{"requests": map[string]any{"cpu": cpu}}}}}}
		if _, err := a.pods.MergePatch(t.Context(), "default", "p", patch, "resize"); err != nil {
			t.Fatal(err)
		}
		a.eventually("the resize to "+cpu+" is decided", func() bool {
			pod = a.get("p")
			if pod.Status.ObservedGeneration != pod.Generation {
				return false
			}
			if c := status.Condition(pod.Status.Conditions, corev1.PodResizePending); pending != "" {
				return c != nil && c.Reason == pending
			}
			s := pod.Status.ContainerStatuses[0]
			return s.Resources.Requests.Cpu().String() == cpu && s.AllocatedResources.Cpu().String() == cpu && status.Condition(pod.Status.Conditions, corev1.PodResizeInProgress) == nil
		})
	}
	if n := pod.Status.ContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("got %d restarts", n)
	}
}

// A container whose end asks for it restarts the whole pod where it is: all
// containers go, the one that asked last, and the first init container begins.
func TestRestartAll(t *testing.T) {
	type run struct{ id, name string }
	starts := make(chan run, 16)
	a := start(t, memcri.Config{Images: []string{"app:1"}, Started: func(id string, c *runtimeapi.ContainerConfig) {
		starts <- run{id, c.GetMetadata().GetName()}
	}})
	var ending sync.WaitGroup
	ending.Go(func() {
		trigger := false
		for n := 0; n < 5; n++ { // init, main, peer, and after main's end init and main again
			r := <-starts
			code, ends := int32(0), r.name == "init"
			if r.name == "main" && !trigger {
				<-starts // peer
				n++
				trigger, code, ends = true, 42, true
			}
			if ends {
				if err := a.runtime.Exit(r.id, code, "Error"); err != nil {
					t.Error(err)
				}
			}
		}
	})
	a.create(simple("p", func(p *corev1.Pod) {
		never := corev1.ContainerRestartPolicyNever
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "app:1"}}
		p.Spec.Containers[0].RestartPolicy = &never
		p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "peer", Image: "app:1"})
	}))
	ending.Wait()
	var pod *corev1.Pod
	a.eventually("all of the pod runs again", func() bool {
		pod = a.get("p")
		c := status.Condition(pod.Status.Conditions, corev1.AllContainersRestarting)
		return pod.Status.Phase == corev1.PodRunning && c != nil && c.Status == corev1.ConditionFalse &&
			!slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.State.Running == nil || s.RestartCount != 1 })
	})
	for _, s := range pod.Status.ContainerStatuses {
		if last := s.LastTerminationState.Terminated; last == nil || last.Reason != "RestartingAllContainers" || last.ExitCode != 137 {
			t.Errorf("%s ended before as %+v", s.Name, last)
		}
	}
	want := []string{"run sandbox p", "create init", "start init", "create main", "start main", "create peer", "start peer",
		"stop peer 2", "remove peer", "remove init", "remove main", "create init", "start init", "create main", "start main", "create peer", "start peer"}
	if got := a.runtime.Calls(); !slices.Equal(got, want) {
		t.Errorf("the runtime was asked %q, want %q", got, want)
	}
}

// A machine that goes down ends its pods as failed and takes no more.
func TestShutdown(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	a.create(simple("p"))
	a.waitPhase("p", corev1.PodRunning)
	a.kubelet.Shutdown(t.Context(), kubelet.ShutdownGroups(2*time.Second, time.Second))
	pod := a.waitPhase("p", corev1.PodFailed)
	if c := status.Condition(pod.Status.Conditions, corev1.DisruptionTarget); pod.Status.Reason != "Terminated" || c == nil || c.Reason != corev1.PodReasonTerminationByKubelet {
		t.Errorf("got %s: %s, %+v", pod.Status.Reason, pod.Status.Message, c)
	}
	a.create(simple("late"))
	if late := a.waitPhase("late", corev1.PodFailed); late.Status.Reason != "NodeShutdown" {
		t.Errorf("got %s: %s", late.Status.Reason, late.Status.Message)
	}
}

// A static pod that finds no room ends another one.
func TestPreempt(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	a.create(simple("large", func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}
	}))
	a.waitPhase("large", corev1.PodRunning)
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: critical, namespace: default}\nspec: {containers: [{name: c, image: 'app:1', resources: {requests: {cpu: 2}}}]}\n"
	if err := os.WriteFile(a.static+"/critical.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a.waitPhase("critical-n1", corev1.PodRunning)
	pod := a.waitPhase("large", corev1.PodFailed)
	why := status.Condition(pod.Status.Conditions, corev1.DisruptionTarget)
	if pod.Status.Reason != "Preempting" || pod.Status.Message != "Preempted in order to admit critical pod" || why == nil || why.Reason != corev1.PodReasonTerminationByKubelet {
		t.Errorf("the status is %s: %s, %v", pod.Status.Reason, pod.Status.Message, why)
	}
}

// An agent that cannot make what it works in says so in the cluster before it ends.
func TestSetupFailed(t *testing.T) {
	api, dir := kajitest.Start(t).Client(), t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtime := memcri.New(memcri.Config{})
	k, err := kubelet.New(kubelet.Config{NodeName: "n1", Client: api, Runtime: runtime, Images: runtime, RootDir: dir + "/root", LogDir: dir + "/file/pods", LegacyLogDir: "-",
		Machine: &node.Machine{OS: "linux", Arch: "amd64", MilliCPU: 4000, Memory: 8 << 30, Disk: 100 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Run(t.Context()); err == nil {
		t.Fatal("it ran")
	}
	events, err := client.For[*corev1.Event](api).List(t.Context(), "default", metav1.ListOptions{})
	if err != nil || len(events) != 1 || events[0].Reason != "KubeletSetupFailed" || events[0].InvolvedObject.Name != "n1" {
		t.Errorf("got %+v, %v", events, err)
	}
}

// metrics reads what the agent serves at /metrics.
func (a *agent) metrics() string {
	w := httptest.NewRecorder()
	a.kubelet.Handler().ServeHTTP(w, httptest.NewRequestWithContext(a.t.Context(), http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// counted waits until a line is among the metrics.
func (a *agent) counted(line string) {
	a.t.Helper()
	a.eventually(line, func() bool { return strings.Contains(a.metrics(), line+"\n") })
}

// A resize that waits for room is granted when there is some, and counted.
func TestDeferredResize(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	sized := func(cpu string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
		}
	}
	a.create(simple("p", sized("100m")))
	a.create(simple("big", sized("3500m")))
	a.waitPhase("p", corev1.PodRunning)
	a.waitPhase("big", corev1.PodRunning)
	patch := map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "main", "image": "app:1", "resources": map[string]any{"requests": map[string]any{"cpu": "1"}}}}}}
	if _, err := a.pods.MergePatch(t.Context(), "default", "p", patch, "resize"); err != nil {
		t.Fatal(err)
	}
	a.eventually("the resize waits", func() bool {
		c := status.Condition(a.get("p").Status.Conditions, corev1.PodResizePending)
		return c != nil && c.Reason == corev1.PodReasonDeferred
	})
	if err := a.pods.Delete(t.Context(), "default", "big", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.counted(`kubelet_pod_deferred_accepted_resizes_total{retry_trigger="pods_removed"} 1`)
	a.counted(`kubelet_container_requested_resizes_total{operation="increase",requirement="requests",resource="cpu"} 1`)
	a.counted(`kubelet_pod_deferred_resize_duration_seconds_count{priority_bucket="normal",resolution="accepted"} 1`)
}

// It is granted, too, when another pod is resized and leaves room.
func TestDeferredResizeAfterAnother(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}})
	resize := func(name, cpu string) {
		t.Helper()
		patch := map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "main", "image": "app:1", "resources": map[string]any{"requests": map[string]any{"cpu": cpu}}}}}}
		if _, err := a.pods.MergePatch(t.Context(), "default", name, patch, "resize"); err != nil {
			t.Fatal(err)
		}
	}
	for name, cpu := range map[string]string{"p": "100m", "big": "3500m"} {
		a.create(simple(name, func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
		}))
		a.waitPhase(name, corev1.PodRunning)
	}
	resize("p", "1")
	a.eventually("the resize waits", func() bool {
		c := status.Condition(a.get("p").Status.Conditions, corev1.PodResizePending)
		return c != nil && c.Reason == corev1.PodReasonDeferred
	})
	resize("big", "2")
	a.counted(`kubelet_pod_deferred_accepted_resizes_total{retry_trigger="pod_resized"} 1`)
	a.eventually("no resize waits", func() bool {
		return status.Condition(a.get("p").Status.Conditions, corev1.PodResizePending) == nil
	})
}

// How long the parts of a new node's start took is told, and adds up.
func TestStartup(t *testing.T) {
	a := start(t, memcri.Config{})
	part := func(name string) float64 {
		m := regexp.MustCompile(`(?m)^kubelet_node_startup_` + name + `duration_seconds (\S+)$`).FindStringSubmatch(a.metrics())
		if m == nil {
			t.Fatalf("there is no %s", name)
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a.eventually("the node has started", func() bool { return part("") > 0 })
	sum := 0.0
	for _, name := range []string{"pre_kubelet_", "pre_registration_", "registration_", "post_registration_"} {
		sum += part(name)
	}
	if all := part(""); math.Abs(all-sum) > 0.001 || part("pre_kubelet_") <= 0 || part("registration_") <= 0 || part("post_registration_") <= 0 {
		t.Errorf("all is %v, the parts %v", all, sum)
	}
}

// A static pod that is taken away and comes back while it still ends is started anew
// once it has ended.
func TestStaticPodBack(t *testing.T) {
	a := start(t, memcri.Config{Images: []string{"app:1"}, IgnoreStop: map[string]bool{"main": true}})
	file := a.static + "/web.yaml"
	write := func() {
		if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {terminationGracePeriodSeconds: 3, containers: [{name: main, image: 'app:1'}]}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	a.waitPhase("web-n1", corev1.PodRunning)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	a.eventually("the pod is being ended", func() bool { return slices.Contains(a.runtime.Calls(), "stop main 3") })
	write()
	starts := func() (n int) {
		for _, call := range a.runtime.Calls() {
			if call == "start main" {
				n++
			}
		}
		return n
	}
	a.eventually("the pod runs again", func() bool {
		pod := a.get("web-n1")
		return starts() == 2 && pod != nil && pod.Status.Phase == corev1.PodRunning
	})
	a.counted(`kubelet_restarted_pods_total{static="true"} 1`)
}
