// SPDX-License-Identifier: Apache-2.0

package kubelet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
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
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	boximage "kaji/internal/app/image"
	"kaji/internal/client"
	"kaji/internal/container"
	"kaji/internal/kubelet"
	"kaji/internal/kubelet/cgroup"
	"kaji/internal/kubelet/evict"
	"kaji/internal/kubelet/node"
	"kaji/internal/podnet"
	"kaji/kajitest"
)

// address connects nothing and gives every sandbox the same address.
type address struct{ podnet.Network }

func (address) Setup(context.Context, podnet.Sandbox) (*podnet.Result, error) {
	return &podnet.Result{IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Interface: "lo"}, nil
}
func (address) Teardown(context.Context, podnet.Sandbox) error { return nil }
func (address) Check(context.Context, podnet.Sandbox) (*podnet.Result, error) {
	return &podnet.Result{IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Interface: "lo"}, nil
}
func (address) Ready(context.Context) error                       { return nil }
func (address) SetPodCIDRs(context.Context, []netip.Prefix) error { return nil }

// real is a node agent over the embedded runtime: real containers.
type real struct {
	*agent
	handler http.Handler
	root    string // the agent's directory
}

func startReal(t *testing.T, change ...func(*kubelet.Config)) *real {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	runtime, err := container.New(container.Config{Root: dir + "/root", State: dir + "/state", CgroupRoot: cgroupParent, Network: address{}, CDIDirs: []string{dir + "/cdi"}, Logger: log, Version: "v0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := runtime.Run(ctx); err != nil {
			t.Errorf("runtime: %v", err)
		}
	})
	var archive bytes.Buffer
	if err := boximage.Write(&archive); err != nil {
		t.Fatal(err)
	}
	if _, err := runtime.ImportImage(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	cluster := kajitest.Start(t)
	a := &agent{t: t, client: cluster.Client(), pods: client.For[*corev1.Pod](cluster.Client())}
	cfg := kubelet.Config{
		NodeName: "n1", Client: a.client, Runtime: runtime, Images: runtime, RootDir: dir + "/kubelet", LogDir: dir + "/pods", LegacyLogDir: "-",
		NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Eviction: []evict.Threshold{}, // however full this machine is
		Cgroups:  &cgroup.Config{Root: cgroupParent, Quota: true}, Logger: log,
	}
	for _, c := range change {
		c(&cfg)
	}
	k, err := kubelet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	agentCtx, stop := context.WithCancel(context.Background())
	var agentRunning sync.WaitGroup
	agentRunning.Go(func() {
		if err := k.Run(agentCtx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		zero := int64(0)
		pods, err := a.pods.List(context.Background(), "default", metav1.ListOptions{})
		for _, p := range pods {
			if err == nil { // the agent may end the deletion of one just now
				err = a.pods.Delete(context.Background(), "default", p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
				if apierrors.IsNotFound(err) {
					err = nil
				}
			}
		}
		if err != nil {
			t.Errorf("clean up: %v", err)
		}
		a.within(30*time.Second, "the runtime is empty", func() bool {
			entries, err := os.ReadDir(dir + "/kubelet/pods")
			return err == nil && len(entries) == 0
		})
		stop()
		agentRunning.Wait()
		cancel()
		running.Wait()
	})
	return &real{a, k.Handler(), dir + "/kubelet"}
}

// ask sends the agent's server a request.
func (r *real) ask(path string) string {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func script(name, text string, change ...func(*corev1.Pod)) *corev1.Pod {
	return simple(name, append([]func(*corev1.Pod){func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.Image, c.ImagePullPolicy, c.Command = boximage.Name, corev1.PullNever, []string{"sh", "-c", text}
		no := false
		p.Spec.AutomountServiceAccountToken = &no
	}}, change...)...)
}

// Real containers see their volumes, environment and hosts file, and leave
// logs, exit codes and last words.
func TestRealPods(t *testing.T) {
	r := startReal(t)
	if _, err := client.For[*corev1.ConfigMap](r.client).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Data: map[string]string{"key": "content"}}); err != nil {
		t.Fatal(err)
	}
	r.create(script("once", `cat /config/key; echo; echo $WHO $LIMIT; cat /etc/hosts; echo data > /scratch/f; cat /scratch/f; echo last > /dev/termination-log; exit 7`, func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Volumes = []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}},
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		}
		c := &p.Spec.Containers[0]
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
		c.VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/config"}, {Name: "scratch", MountPath: "/scratch", SubPath: "sub"}}
		c.Env = []corev1.EnvVar{
			{Name: "WHO", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
		}
	}))
	pod := r.waitPhase("once", corev1.PodFailed)
	counted := `kubelet_terminated_containers_total{container_type="container",exit_code="7",reason="Error"} 1`
	r.within(time.Minute, counted, func() bool { return strings.Contains(r.ask("/metrics"), counted) })
	ended := pod.Status.ContainerStatuses[0].State.Terminated
	if ended == nil || ended.ExitCode != 7 || ended.Reason != "Error" || strings.TrimSpace(ended.Message) != "last" {
		t.Errorf("got %+v, want exit 7 with last words", ended)
	}
	log := r.ask("/containerLogs/default/once/main")
	for _, want := range []string{"content\n", "once 67108864\n", "# Kubernetes-managed hosts file.", "127.0.0.1\tonce", "data\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

// The metrics of containers carry the labels by which dashboards choose them.
func TestRealMetrics(t *testing.T) {
	r := startReal(t)
	r.create(script("measured", `sleep 600`, func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	}))
	r.waitPhase("measured", corev1.PodRunning)
	for _, want := range []string{
		`container_cpu_usage_seconds_total{container="main",cpu="total",id="/kaji-kubelet-test/kubepods/[^"]*/[0-9a-f]+",image="` + boximage.Name + `",name="[0-9a-f]+",namespace="default",pod="measured"} `,
		`container_spec_cpu_quota{container="main",.*} 50000\n`, `container_spec_memory_limit_bytes{container="main",.*} 6.7108864e\+07\n`,
		`container_start_time_seconds{container="main",.*} [0-9.]+e\+09\n`, `machine_memory_bytes{`,
		`container_cpu_cfs_throttled_seconds_total{container="main",.*pod="measured"} `, `container_memory_cache{container="main",.*} `,
		`container_processes{container="main",.*} 1\n`,
		`container_memory_working_set_bytes{container="",id="/",.*} `,
		`container_memory_working_set_bytes{container="",id="/kaji-kubelet-test/kubepods",image="",name="",namespace="",pod=""} `,
		`container_cpu_usage_seconds_total{container="",cpu="total",id="/kaji-kubelet-test/kubepods/pod[^/"]*",image="",name="",namespace="default",pod="measured"} `,
	} {
		pattern := regexp.MustCompile(strings.ReplaceAll(want, "{", `\{`))
		r.within(30*time.Second, want, func() bool { return pattern.MatchString(r.ask("/metrics/cadvisor")) })
	}
	for _, want := range []string{`kubelet_runtime_operations_total{operation_type="start_container"} [1-9]`, `kubelet_started_containers_total{container_type="container"} [1-9]`,
		`kubelet_pod_worker_duration_seconds_count{operation_type="create"} [1-9]`, `kubelet_pleg_relist_duration_seconds_count [1-9]`,
		`kubelet_pod_start_duration_seconds_count [1-9]`, `kubelet_cgroup_version [12]`} {
		pattern := regexp.MustCompile(strings.ReplaceAll(want, "{", `\{`))
		r.within(30*time.Second, want, func() bool { return pattern.MatchString(r.ask("/metrics")) })
	}
	r.within(30*time.Second, "the metrics that dashboards read", func() bool {
		got := r.ask("/metrics")
		for _, name := range dashboards {
			if !strings.Contains(got, "\n"+name) {
				return false
			}
		}
		return true
	})
	started := regexp.MustCompile(`container_start_time_seconds\{container="main",namespace="default",pod="measured"\} `)
	r.within(30*time.Second, "the start in /metrics/resource", func() bool { return started.MatchString(r.ask("/metrics/resource")) })
}

// dashboards are metrics that published dashboards and alerts read, or that tell of
// a pod without volumes of its own in a run without failures.
var dashboards = []string{"kubelet_node_name{", "kubelet_running_pods ", "kubelet_running_containers{", "kubelet_desired_pods{static=\"\"} 1\n", "kubelet_active_pods{static=\"\"} 1\n", "kubelet_mirror_pods 0\n", "kubelet_working_pods{config=\"desired\",lifecycle=\"sync\",static=\"\"} 1\n", "kubelet_pod_in_progress_resizes 0\n",
	"kubelet_runtime_operations_total{", "kubelet_runtime_operations_duration_seconds_bucket{", "kubelet_pod_start_duration_seconds_bucket{", "kubelet_pod_worker_duration_seconds_bucket{",
	"kubelet_pod_start_sli_duration_seconds_count 1\n", "kubelet_pod_start_total_duration_seconds_count 1\n", "kubelet_pod_worker_start_duration_seconds_count 1\n", "kubelet_containers_per_pod_count_count 1\n",
	"kubelet_pod_status_sync_duration_seconds_count ", "kubelet_cgroup_manager_duration_seconds_bucket{", "kubelet_pleg_relist_duration_seconds_bucket{", "kubelet_pleg_relist_interval_seconds_count ",
	"kubelet_pleg_last_seen_seconds ", "kubelet_evented_pleg_connection_success_count 1\n", "kubelet_run_podsandbox_duration_seconds_count{runtime_handler=\"\"} 1\n",
	"kubelet_image_manager_ensure_image_requests_total{present_locally=\"true\",pull_policy=\"never\",pull_required=\"false\"} 1\n", "kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"metrics\",server_type=\"readwrite\"} ",
	"storage_operation_duration_seconds_count{migrated=\"false\",operation_name=\"volume_mount\",status=\"success\",volume_plugin=\"kubernetes.io/empty-dir\"} 1\n",
	"volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"actual_state_of_world\"} 1\n", "kubelet_topology_manager_admission_requests_total 1\n", "process_cpu_seconds_total ", "go_goroutines "}

// All pods together are held to what the machine has without what is reserved,
// and a group that the configuration names to what is kept for it.
func TestRealReservations(t *testing.T) {
	parent, memory := "/sys/fs/cgroup", "memory.max"
	if _, err := os.Stat(parent + "/cgroup.controllers"); err != nil {
		parent, memory = parent+"/memory", "memory.limit_in_bytes"
		for _, controller := range []string{"cpu", "pids"} {
			group(t, "/sys/fs/cgroup/"+controller+"/kaji-kubelet-reserved")
		}
	}
	kept := group(t, parent+"/kaji-kubelet-reserved")
	const total, part = 3 << 30, 1 << 30
	list := corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(part, resource.BinarySI)}
	r := startReal(t, func(c *kubelet.Config) {
		c.Machine = &node.Machine{MilliCPU: 2000, Memory: total}
		c.Reserved = list
		c.Reservations = []kubelet.Reservation{{Kind: "system", Group: "/kaji-kubelet-reserved", Resources: list}}
	})
	for file, want := range map[string]string{parent + cgroupParent + "/kubepods/" + memory: strconv.Itoa(total - part), filepath.Join(kept, memory): strconv.Itoa(part)} {
		r.within(time.Minute, file+" is "+want, func() bool {
			b, err := os.ReadFile(file)
			return err == nil && strings.TrimSpace(string(b)) == want
		})
	}
	events := client.For[*corev1.Event](r.client)
	for _, want := range []string{"Updated Node Allocatable limit across pods", "Updated limits on system reserved cgroup /kaji-kubelet-reserved"} {
		r.within(time.Minute, want, func() bool {
			all, err := events.List(t.Context(), "default", metav1.ListOptions{})
			return err == nil && slices.ContainsFunc(all, func(e *corev1.Event) bool { return e.Reason == "NodeAllocatableEnforced" && e.Message == want })
		})
	}
}

// Burstable pods weigh what they request, together, while they run; the summary
// tells of all pods as a whole, and of the agent.
func TestRealShares(t *testing.T) {
	weight, want := "/sys/fs/cgroup/cpu"+cgroupParent+"/kubepods/burstable/cpu.shares", []string{"2", "512"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		weight, want = "/sys/fs/cgroup"+cgroupParent+"/kubepods/burstable/cpu.weight", []string{"1", "20"}
	}
	is := func(value string) {
		t.Helper()
		r := &agent{t: t}
		r.within(time.Minute, weight+" is "+value, func() bool {
			b, err := os.ReadFile(weight)
			return err == nil && strings.TrimSpace(string(b)) == value
		})
	}
	r := startReal(t)
	is(want[0])
	r.create(script("weighty", `sleep 600`, func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")}
		p.Spec.TerminationGracePeriodSeconds = new(int64)
	}))
	r.waitPhase("weighty", corev1.PodRunning)
	is(want[1])
	var summary statsapi.Summary
	if err := json.Unmarshal([]byte(r.ask("/stats/summary")), &summary); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, c := range summary.Node.SystemContainers {
		names[c.Name] = c.CPU != nil && *c.CPU.UsageCoreNanoSeconds > 0 && c.Memory != nil && *c.Memory.WorkingSetBytes > 0
	}
	if !names["pods"] || !names["kubelet"] || len(names) != 2 {
		t.Errorf("the system's containers: %+v", summary.Node.SystemContainers)
	}
	if age := time.Since(summary.Node.StartTime.Time); age < 0 || summary.Node.Swap == nil || summary.Node.Memory.PageFaults == nil {
		t.Errorf("the node started %v ago: %+v", age, summary.Node)
	}
	if err := r.pods.Delete(t.Context(), "default", "weighty", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	is(want[0])
}

// group makes a control group for a test.
func group(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A running container is saved in an archive below the agent's directory, where
// the machine has what that takes; it says so where not.
func TestRealCheckpoint(t *testing.T) {
	r := startReal(t)
	r.create(script("saved", `sleep 600`))
	r.waitPhase("saved", corev1.PodRunning)
	for path, want := range map[string]string{"/checkpoint/default/saved/main?timeout=60": "", "/checkpoint/default/saved/main?timeout=x": "cannot parse value of timeout parameter",
		"/checkpoint/default/saved/other": "container other does not exist", "/checkpoint/default/other/main": "pod does not exist"} {
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, nil))
		if got := w.Body.String(); want != "" {
			if w.Code != http.StatusNotFound || strings.TrimSpace(got) != want {
				t.Errorf("%s: %d %s", path, w.Code, got)
			}
			continue
		}
		var answer struct{ Items []string }
		switch err := json.Unmarshal(w.Body.Bytes(), &answer); {
		case exec.Command("criu", "check").Run() != nil: // missing, or not for this kernel
			if w.Code != http.StatusInternalServerError || !strings.HasPrefix(w.Body.String(), "checkpointing of default/saved/main failed (") {
				t.Errorf("without CRIU: %d %s", w.Code, w.Body)
			}
		case err != nil || w.Code != http.StatusOK || len(answer.Items) != 1:
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		default:
			if info, err := os.Stat(answer.Items[0]); err != nil || info.Size() == 0 || !strings.HasPrefix(filepath.Base(answer.Items[0]), "checkpoint-saved_default-main-") {
				t.Errorf("%s: %v, %v", answer.Items[0], info, err)
			}
		}
	}
	if pod := r.get("saved"); pod == nil || pod.Status.Phase != corev1.PodRunning || pod.Status.ContainerStatuses[0].RestartCount > 0 {
		t.Errorf("the pod afterwards: %+v", pod)
	}
}

// Pods in user namespaces are counted, those that cannot start too.
func TestRealUserNamespaces(t *testing.T) {
	r := startReal(t)
	r.create(script("lost", ``, func(p *corev1.Pod) {
		hostUsers := false
		p.Spec.HostUsers, p.Spec.Containers[0].Command = &hostUsers, []string{"bogus"}
	}))
	for _, want := range []string{"kubelet_started_user_namespaced_pods_total 1\n", "kubelet_started_user_namespaced_pods_errors_total 1\n"} {
		r.within(time.Minute, want, func() bool { return strings.Contains(r.ask("/metrics"), want) })
	}
}

// A container that its liveness probe ends again and again has to wait like one
// that ends by itself.
func TestRealLivenessBackOff(t *testing.T) {
	r := startReal(t)
	r.create(script("dying", `sleep 600`, func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = new(int64)
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}}
	}))
	r.within(60*time.Second, "the container waits", func() bool {
		pod := r.get("dying")
		if pod == nil || len(pod.Status.ContainerStatuses) == 0 {
			return false
		}
		s := pod.Status.ContainerStatuses[0]
		if s.RestartCount > 5 {
			t.Fatalf("it was restarted %d times", s.RestartCount)
		}
		return s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff"
	})
}

// A container with probes becomes ready, and is restarted when it stops
// answering.
func TestRealProbes(t *testing.T) {
	r := startReal(t)
	r.create(script("probed", `touch /tmp/live; sleep 2; rm /tmp/live; sleep 60`, func(p *corev1.Pod) {
		one := int64(1)
		p.Spec.TerminationGracePeriodSeconds = &one
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, InitialDelaySeconds: 1,
			ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "/tmp/live"}}}}
	}))
	r.within(30*time.Second, "the container was restarted", func() bool {
		pod := r.get("probed")
		return pod != nil && len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].RestartCount > 0
	})
}
