// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// Node measures a node agent over a container runtime: how soon assigned pods
// run, how often it writes their statuses, what many idle pods cost, a restart of
// the agent, and probes.
type Node struct {
	// Binary is this program; Upstream the kubelet to start in place of its agent.
	Binary, Upstream string
	// Endpoint is the runtime's socket, PID its process; one of this program's is
	// started where it is empty.
	Endpoint string
	PID      int
	// Image is what pods run, with Command in place of its entrypoint; it has a shell.
	Image   string
	Command []string
	// Serial pods are started one by one, AtOnce of them together.
	Serial, AtOnce int
	// Pods are the numbers of pods that stand idle, for Idle each.
	Pods []int
	Idle time.Duration
	// Probes is how many HTTP probes a second there are, in the end; none when zero.
	Probes int
	// CrashFor is how long a container fails again and again.
	CrashFor time.Duration
}

// DefaultNode fits a machine of two cores.
func DefaultNode() Node {
	return Node{Image: "localhost/kaji", Command: []string{"/bin/sleep", "1000000"}, Serial: 30, AtOnce: 50, Pods: []int{110, 500}, Idle: 30 * time.Second, Probes: 1000, CrashFor: 70 * time.Second}
}

const benchNode = "bench"

type nodeRun struct {
	Node
	p       *plane
	c       *client
	report  *Report
	agent   *Process
	runtime *Process
	port    int // the agent's read-only port
	name    string

	mu   sync.Mutex
	seen map[string]time.Time // when each pod was Running first, by its name
}

// Run measures and removes what it made.
func (b Node) Run(ctx context.Context, report *Report) (err error) {
	p, err := startPlane(ctx, b.Binary)
	if err != nil {
		return err
	}
	defer p.stop()
	r := &nodeRun{Node: b, p: p, report: report, seen: map[string]time.Time{}, name: "kaji"}
	if b.Upstream != "" {
		r.name = filepath.Base(b.Upstream)
	}
	if r.c, err = p.Target.client(); err != nil {
		return err
	}
	if err := r.startRuntime(ctx); err != nil {
		return err
	}
	if err := r.startAgent(ctx); err != nil {
		return err
	}
	done, err := r.c.namespace(ctx, "bench")
	if err != nil {
		return err
	}
	defer func() {
		done()
		err = errors.Join(err, r.empty(context.WithoutCancel(ctx)))
	}()
	go r.watch(ctx)
	if err := r.make(ctx, r.pod("warm-up")); err != nil {
		return err
	}
	if err := r.running(ctx, []string{"warm-up"}); err != nil {
		return p.explain("kubelet", err)
	}
	for _, part := range []func(context.Context) error{r.latencies, r.writes, r.idles, r.restart, r.probes} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *nodeRun) startRuntime(ctx context.Context) (err error) {
	if r.Endpoint == "" {
		r.Endpoint = "unix://" + filepath.Join(r.p.dir, "cri.sock")
		r.PID, err = r.p.run(ctx, "runtime", "--listen", r.Endpoint, "--root", filepath.Join(r.p.dir, "runtime"), "--state", filepath.Join(r.p.dir, "state"), "--pod-cidr", "10.99.0.0/21", "--cgroup-root", "/kaji-bench")
		if err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err = poll(wait, 10*time.Millisecond, func() (bool, error) {
			_, err := os.Stat(strings.TrimPrefix(r.Endpoint, "unix://"))
			return err == nil, nil
		})
		if err != nil {
			return r.p.explain("runtime", err)
		}
	}
	r.runtime, err = Watch(r.PID)
	if r.PID == 0 {
		r.runtime, err = nil, nil
	}
	return err
}

// startAgent starts the agent, once more if it was killed, and waits until its node is there.
func (r *nodeRun) startAgent(ctx context.Context) error {
	ports := make([]int, 3)
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return err
		}
	}
	r.port = ports[1]
	most := slices.Max(append(slices.Clone(r.Pods), 100)) + 20
	text := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: %d
readOnlyPort: %d
healthzPort: %d
containerRuntimeEndpoint: %s
podLogsDir: %s
cgroupRoot: /kaji-bench
cgroupDriver: cgroupfs
maxPods: %d
failSwapOn: false
failCgroupV1: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: 1Mi, nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%", imagefs.inodesFree: "0%%"}
imageGCHighThresholdPercent: 100
`, ports[0], ports[1], ports[2], r.Endpoint, filepath.Join(r.p.dir, "logs"), most)
	file := filepath.Join(r.p.dir, "kubelet.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(r.p.dir, "logs"), 0o755); err != nil {
		return err
	}
	binary, args := r.Binary, []string{"kubelet"}
	if r.Upstream != "" {
		binary, args = r.Upstream, nil
	}
	pid, err := r.p.exec(ctx, "kubelet", binary, append(args, "--config", file, "--kubeconfig", r.p.config, "--hostname-override", benchNode,
		"--root-dir", filepath.Join(r.p.dir, "kubelet"), "--cert-dir", filepath.Join(r.p.dir, "kubelet", "pki"), "--node-ip", "127.0.0.1")...)
	if err != nil {
		return err
	}
	if r.agent, err = Watch(pid); err != nil {
		return r.p.explain("kubelet", err)
	}
	deadline, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = poll(deadline, 10*time.Millisecond, func() (bool, error) {
		_, err := r.c.get(deadline, "/api/v1/nodes/"+benchNode, asJSON)
		if isStatus(err, http.StatusNotFound) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return r.p.explain("kubelet", err)
	}
	patch := []byte(`{"spec":{"podCIDR":"10.99.0.0/21","podCIDRs":["10.99.0.0/21"],"taints":null}}`)
	_, err = r.c.do(ctx, http.MethodPatch, "/api/v1/nodes/"+benchNode, asMerge, asJSON, patch)
	return err
}

func (r *nodeRun) pod(name string) *corev1.Pod {
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{NodeName: benchNode, AutomountServiceAccountToken: ptr.To(false), TerminationGracePeriodSeconds: ptr.To[int64](0), EnableServiceLinks: ptr.To(false),
			Containers: []corev1.Container{{Name: "c", Image: r.Image, Command: r.Command, ImagePullPolicy: corev1.PullIfNotPresent}}}}
}

const benchPods = "/api/v1/namespaces/bench/pods"

func (r *nodeRun) make(ctx context.Context, pod *corev1.Pod) error {
	return r.c.post(ctx, benchPods, pod)
}

// watch notes when pods run, until ctx ends.
func (r *nodeRun) watch(ctx context.Context) {
	for ctx.Err() == nil {
		body, err := r.c.open(ctx, http.MethodGet, benchPods+"?watch=1", "", asJSON, nil)
		if err != nil {
			return
		}
		decoder := json.NewDecoder(bufio.NewReader(body))
		for {
			var event struct{ Object corev1.Pod }
			if err := decoder.Decode(&event); err != nil {
				break
			}
			if event.Object.Status.Phase == corev1.PodRunning {
				r.mu.Lock()
				if _, ok := r.seen[event.Object.Name]; !ok {
					r.seen[event.Object.Name] = time.Now()
				}
				r.mu.Unlock()
			}
		}
		body.Close()
	}
}

// running waits until the watch has seen pods run.
func (r *nodeRun) running(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return poll(ctx, time.Millisecond, func() (bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, name := range names {
			if _, ok := r.seen[name]; !ok {
				return false, nil
			}
		}
		return true, nil
	})
}

// quantiles are of durations, which it sorts.
func quantiles(all []time.Duration) (p50, p90, p99 time.Duration) {
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[min(int(q*float64(len(all))), len(all)-1)] }
	return at(.5), at(.9), at(.99)
}

// add reports what the agent's and the runtime's processes did.
func (r *nodeRun) add(res Result, agent, runtime time.Duration) {
	res.Target, res.CPU = r.name+", agent", r.agent.CPU()-agent
	res.RSS, res.Anonymous = r.agent.Memory()
	r.report.Add(res)
	if r.runtime != nil {
		res.Target, res.CPU = r.name+", runtime", r.runtime.CPU()-runtime
		res.RSS, res.Anonymous = r.runtime.Memory()
		r.report.Add(res)
	}
}

// latencies are the times from the answer to a pod's creation, assigned to the
// node, until a watch shows it Running.
func (r *nodeRun) latencies(ctx context.Context) error {
	for _, at := range []struct {
		name  string
		count int
		once  bool
	}{{"assigned to Running, one at a time", r.Serial, false}, {fmt.Sprintf("assigned to Running, %d at once", r.AtOnce), r.AtOnce, true}} {
		agent, runtime := r.agent.CPU(), r.runtime.CPU()
		began := time.Now()
		made := make([]time.Time, at.count)
		names := make([]string, at.count)
		for i := range at.count {
			names[i] = fmt.Sprintf("p-%v-%d", at.once, i)
			if err := r.make(ctx, r.pod(names[i])); err != nil {
				return err
			}
			made[i] = time.Now()
			if !at.once {
				if err := r.running(ctx, names[i:i+1]); err != nil {
					return err
				}
			}
		}
		if err := r.running(ctx, names); err != nil {
			return err
		}
		took := make([]time.Duration, at.count)
		r.mu.Lock()
		for i, name := range names {
			took[i] = max(r.seen[name].Sub(made[i]), 0)
		}
		r.mu.Unlock()
		p50, p90, p99 := quantiles(took)
		r.add(Result{Operation: fmt.Sprintf("%s (p90 %v)", at.name, p90.Round(time.Millisecond)), Count: at.count, Elapsed: time.Since(began), P50: p50, P99: p99}, agent, runtime)
		if err := r.empty(ctx); err != nil {
			return err
		}
	}
	return nil
}

// empty deletes all pods and waits until they are gone.
func (r *nodeRun) empty(ctx context.Context) error {
	if _, err := r.c.do(ctx, http.MethodDelete, benchPods+"?"+url.Values{"gracePeriodSeconds": {"1"}}.Encode(), "", asJSON, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
		var list corev1.PodList
		err := r.c.read(ctx, benchPods, &list)
		return len(list.Items) == 0, err
	})
	r.mu.Lock()
	r.seen = map[string]time.Time{}
	r.mu.Unlock()
	return err
}

// patches is how many statuses of pods were written so far, as the API server counts.
func (r *nodeRun) patches(ctx context.Context) (int, error) {
	body, err := r.c.open(ctx, http.MethodGet, "/metrics", "", "*/*", nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	sum := 0.0
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "apiserver_request_total{") && strings.Contains(line, `resource="pods"`) && strings.Contains(line, `subresource="status"`) && strings.Contains(line, `verb="PATCH"`) {
			n, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return int(sum), lines.Err()
}

// writes counts the statuses that are written in the life of a pod: of one that runs
// and is deleted, of one that ends by itself, of one that fails again and again.
func (r *nodeRun) writes(ctx context.Context) error {
	const each = 10
	for _, life := range []struct {
		name    string
		command []string
		policy  corev1.RestartPolicy
		wait    time.Duration
	}{
		{"status writes, a pod that runs and is deleted", r.Command, corev1.RestartPolicyAlways, 3 * time.Second},
		{"status writes, a pod of a Job", []string{"sh", "-c", "sleep 2"}, corev1.RestartPolicyNever, 6 * time.Second},
		{fmt.Sprintf("status writes, a pod that fails again and again for %v", r.CrashFor), []string{"sh", "-c", "exit 1"}, corev1.RestartPolicyAlways, r.CrashFor},
	} {
		before, err := r.patches(ctx)
		if err != nil {
			return err
		}
		for i := range each {
			pod := r.pod(fmt.Sprint("life-", i))
			pod.Spec.Containers[0].Command, pod.Spec.RestartPolicy = life.command, life.policy
			if err := r.make(ctx, pod); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(life.wait):
		}
		restarts := int32(0)
		var list corev1.PodList
		if err := r.c.read(ctx, benchPods, &list); err != nil {
			return err
		}
		for i := range list.Items {
			for _, c := range list.Items[i].Status.ContainerStatuses {
				restarts += c.RestartCount
			}
		}
		if err := r.empty(ctx); err != nil {
			return err
		}
		after, err := r.patches(ctx)
		if err != nil {
			return err
		}
		r.report.Add(Result{Target: r.name, Operation: fmt.Sprintf("%s: %.1f each, %.1f restarts", life.name, float64(after-before)/each, float64(restarts)/each), Count: each, Elapsed: life.wait})
	}
	return nil
}

// idles makes pods and leaves them alone.
func (r *nodeRun) idles(ctx context.Context) error {
	made := 0
	for _, many := range r.Pods {
		agent, runtime := r.agent.CPU(), r.runtime.CPU()
		began := time.Now()
		var names []string
		for ; made < many; made++ {
			names = append(names, fmt.Sprint("idle-", made))
			if err := r.make(ctx, r.pod(names[len(names)-1])); err != nil {
				return err
			}
		}
		if err := r.running(ctx, names); err != nil {
			return err
		}
		r.add(Result{Operation: fmt.Sprintf("until %d pods run", many), Count: len(names), Elapsed: time.Since(began)}, agent, runtime)
		if err := r.settle(ctx); err != nil {
			return err
		}
		agent, runtime, began = r.agent.CPU(), r.runtime.CPU(), time.Now()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(r.Idle):
		}
		r.add(Result{Operation: fmt.Sprintf("idle with %d pods", many), Count: 1, Elapsed: time.Since(began)}, agent, runtime)
	}
	return nil
}

// settle waits until the agent computes little.
func (r *nodeRun) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	last := time.Duration(-time.Hour)
	err := poll(ctx, 3*time.Second, func() (bool, error) {
		now := r.agent.CPU()
		still := now-last < 150*time.Millisecond
		last = now
		return still, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // it never does
	}
	return err
}

// metric reads one number of the agent's metrics; labels may be left out.
func (r *nodeRun) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", r.port), nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, name+" ") || strings.HasPrefix(line, name+"{") {
			n, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " ")+1:]), 64) // as it is served
			sum += n
		}
	}
	return sum, err
}

// restart kills the agent and starts another over its pods.
func (r *nodeRun) restart(ctx context.Context) error {
	many := slices.Max(append(slices.Clone(r.Pods), 0))
	if many == 0 {
		return nil
	}
	before, err := r.containers(ctx)
	if err != nil {
		return err
	}
	written, err := r.patches(ctx)
	if err != nil {
		return err
	}
	if err := syscall.Kill(r.agent.pids[0], syscall.SIGKILL); err != nil {
		return err
	}
	last := len(r.p.stops) - 1
	r.p.stops[last]() // which reaps it
	r.p.stops = r.p.stops[:last]
	began, runtime := time.Now(), r.runtime.CPU()
	if err := r.startAgent(ctx); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	err = poll(wait, 20*time.Millisecond, func() (bool, error) {
		n, err := r.metric(wait, "kubelet_running_pods")
		return err == nil && int(n) >= many, nil
	})
	if err != nil {
		return r.p.explain("kubelet", fmt.Errorf("waiting for the agent to know its pods: %w", err))
	}
	took := time.Since(began)
	if err := r.settle(ctx); err != nil {
		return err
	}
	started, err := r.metric(ctx, "kubelet_started_containers_total")
	if err != nil {
		return err
	}
	after, err := r.containers(ctx)
	if err != nil {
		return err
	}
	wrote, err := r.patches(ctx)
	if err != nil {
		return err
	}
	other := 0
	for name, id := range before {
		if after[name] != id {
			other++
		}
	}
	r.add(Result{Operation: fmt.Sprintf("agent killed, another one knows %d pods: containers started %.0f, changed %d, statuses written %d", many, started, other, wrote-written), Count: 1, Elapsed: took}, 0, runtime)
	return r.empty(ctx)
}

// containers are the containers of pods and how often each was restarted, as the API tells.
func (r *nodeRun) containers(ctx context.Context) (map[string]string, error) {
	var list corev1.PodList
	if err := r.c.read(ctx, benchPods, &list); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i := range list.Items {
		for _, c := range list.Items[i].Status.ContainerStatuses {
			out[list.Items[i].Name+"/"+c.Name] = fmt.Sprint(c.ContainerID, c.RestartCount, c.Ready)
		}
	}
	return out, nil
}

// probes has containers probed twice a second each, over HTTP at a server that is
// this process.
func (r *nodeRun) probes(ctx context.Context) error {
	if r.Probes == 0 {
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var hits atomic.Int64
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) })}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	const each = 10
	probe := &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "127.0.0.1", Port: intstr.FromInt32(int32(l.Addr().(*net.TCPAddr).Port)), Path: "/"}}} //nolint:gosec // a port
	var names []string
	for i := range r.Probes / 2 / each {
		pod := r.pod(fmt.Sprint("probed-", i))
		one := pod.Spec.Containers[0]
		one.LivenessProbe, one.ReadinessProbe = probe, probe
		pod.Spec.Containers = nil
		for j := range each {
			one.Name = fmt.Sprint("c", j)
			pod.Spec.Containers = append(pod.Spec.Containers, one)
		}
		names = append(names, pod.Name)
		if err := r.make(ctx, pod); err != nil {
			return err
		}
	}
	if err := r.running(ctx, names); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	agent, runtime, began, before := r.agent.CPU(), r.runtime.CPU(), time.Now(), hits.Load()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(r.Idle):
	}
	rate := float64(hits.Load()-before) / time.Since(began).Seconds()
	r.add(Result{Operation: fmt.Sprintf("%.0f HTTP probes a second", rate), Count: 1, Elapsed: time.Since(began)}, agent, runtime)
	return nil
}
