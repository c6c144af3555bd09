// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// API is a load of the verbs that clients use most.
type API struct {
	// Objects is how many pods are made and then read, changed and deleted.
	Objects int
	// Lists is how often they are listed, in each of the ways.
	Lists int
	// Watchers see each of Events changes of one object.
	Watchers, Events int
	// Workers send requests at the same time.
	Workers int
	// Idle is how long the target is left alone at the end.
	Idle time.Duration
	// Only names the operations to run, all when empty. Pods are made and
	// deleted in any case.
	Only []string
}

// DefaultAPI is a load that a machine of two cores carries in a minute.
func DefaultAPI() API {
	return API{Objects: 2000, Lists: 20, Watchers: 500, Events: 50, Workers: 8, Idle: 10 * time.Second}
}

// Operations are the names that Only knows, in the order they run in.
func Operations() []string {
	return []string{"create", "get", "status update", "strategic patch", "apply", "list JSON", "list protobuf", "list selector", "list paged", "watch", "idle", "delete"}
}

type apiRun struct {
	API
	c    *client
	p    *Process
	ns   string
	pods string // path of the collection
}

// Run puts the load on t and reports what each operation cost. What it made it
// deletes, also after a failure.
func (a API) Run(ctx context.Context, t *Target, report *Report) error {
	for _, name := range a.Only {
		if !slices.Contains(Operations(), name) {
			return fmt.Errorf("no operation %q: there are %s", name, strings.Join(Operations(), ", "))
		}
	}
	c, err := t.client()
	if err != nil {
		return err
	}
	ns := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	done, err := c.namespace(ctx, ns)
	if err != nil {
		return err
	}
	defer done()
	r := &apiRun{API: a, c: c, p: t.Process, ns: ns, pods: "/api/v1/namespaces/" + ns + "/pods"}
	for _, op := range []struct {
		name  string
		count int
		do    func(context.Context, int) (int64, error)
	}{
		{"create", a.Objects, r.create},
		{"get", a.Objects, r.get},
		{"status update", a.Objects, r.status},
		{"strategic patch", a.Objects, r.patch},
		{"apply", a.Objects, r.apply},
		{"list JSON", a.Lists, r.lister(asJSON, "")},
		{"list protobuf", a.Lists, r.lister(asProtobuf, "")},
		{"list selector", a.Lists, r.lister(asJSON, "labelSelector="+url.QueryEscape("shard=3"))},
		{"list paged", a.Lists, r.paged},
	} {
		if op.name != "create" && !a.wants(op.name) {
			continue
		}
		add(report, t, measure(ctx, op.name, r.p, a.Workers, op.count, op.do))
	}
	if a.wants("watch") {
		res, err := r.watch(ctx)
		if err != nil {
			return err
		}
		add(report, t, res)
	}
	if a.wants("idle") {
		add(report, t, idle(ctx, t.Process, a.Idle))
	}
	add(report, t, measure(ctx, "delete", r.p, a.Workers, a.Objects, r.delete))
	return ctx.Err()
}

func (a API) wants(op string) bool { return len(a.Only) == 0 || slices.Contains(a.Only, op) }

func add(report *Report, t *Target, res Result) {
	res.Target = t.Name
	report.Add(res)
}

// idle leaves the process alone; the CPU of the whole time is the result's.
func idle(ctx context.Context, p *Process, d time.Duration) Result {
	before := p.CPU()
	began := time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	res := Result{Operation: "idle", Count: 1, Elapsed: time.Since(began), CPU: p.CPU() - before}
	res.RSS, res.Anonymous = p.Memory()
	return res
}

func podName(i int) string { return fmt.Sprintf("pod-%06d", i) }

// newPod is a pod of about 4 KB as the API server stores it: what a Deployment of a
// usual chart makes.
func newPod(i int) *corev1.Pod {
	env := make([]corev1.EnvVar, 12)
	for j := range env {
		env[j] = corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", j), Value: strings.Repeat("v", 20+j)}
	}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}}, PeriodSeconds: 10}
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        podName(i),
			Labels:      map[string]string{"app": "bench", "shard": fmt.Sprint(i % 100), "app.kubernetes.io/name": "bench", "pod-template-hash": "5d4f8c7b9"},
			Annotations: map[string]string{"prometheus.io/scrape": "true", "checksum/config": strings.Repeat("0123456789abcdef", 4)},
		},
		Spec: corev1.PodSpec{
			// No scheduler of this name: the load is the API server's alone.
			SchedulerName:                "bench.invalid",
			AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example/bench/main:v1.2.3", Args: []string{"--listen=:8080", "--verbose"}, Env: env,
				Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Resources:      corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("10m"), "memory": resource.MustParse("32Mi")}},
				ReadinessProbe: probe, LivenessProbe: probe,
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/bench"}, {Name: "scratch", MountPath: "/tmp"}},
			}},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "bench"}}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
}

func (r *apiRun) create(ctx context.Context, i int) (int64, error) {
	b, err := json.Marshal(newPod(i))
	if err != nil {
		return 0, err
	}
	return r.c.do(ctx, http.MethodPost, r.pods, asJSON, asJSON, b)
}

func (r *apiRun) get(ctx context.Context, i int) (int64, error) {
	return r.c.get(ctx, r.pods+"/"+podName(i), asJSON)
}

func (r *apiRun) status(ctx context.Context, i int) (int64, error) {
	p := newPod(i)
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "192.0.2.1", PodIPs: []corev1.PodIP{{IP: "192.0.2.1"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue}},
	}
	b, err := json.Marshal(p)
	if err != nil {
		return 0, err
	}
	return r.c.do(ctx, http.MethodPut, r.pods+"/"+podName(i)+"/status", asJSON, asJSON, b)
}

func (r *apiRun) patch(ctx context.Context, i int) (int64, error) {
	b := fmt.Appendf(nil, `{"metadata":{"annotations":{"bench/patched":"%d"}},"spec":{"containers":[{"name":"main","image":"registry.example/bench/main:v1.2.4"}]}}`, i)
	return r.c.do(ctx, http.MethodPatch, r.pods+"/"+podName(i), asStrategic, asJSON, b)
}

func (r *apiRun) apply(ctx context.Context, i int) (int64, error) {
	b := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"%s","labels":{"app":"bench"}},"data":{"a":"%d","b":%q}}`, podName(i), i, strings.Repeat("x", 500))
	return r.c.do(ctx, http.MethodPatch, "/api/v1/namespaces/"+r.ns+"/configmaps/"+podName(i)+"?fieldManager=bench", asApply, asJSON, b)
}

func (r *apiRun) lister(accept, query string) func(context.Context, int) (int64, error) {
	return func(ctx context.Context, _ int) (int64, error) { return r.c.get(ctx, r.pods+"?"+query, accept) }
}

// paged lists all pods by 500 at a time.
func (r *apiRun) paged(ctx context.Context, _ int) (int64, error) {
	var sum int64
	for next := ""; ; {
		body, err := r.c.open(ctx, http.MethodGet, r.pods+"?limit=500&continue="+url.QueryEscape(next), "", asJSON, nil)
		if err != nil {
			return sum, err
		}
		b, err := io.ReadAll(body)
		body.Close()
		sum += int64(len(b))
		if err != nil {
			return sum, err
		}
		var page struct{ Metadata metav1.ListMeta }
		if err := json.Unmarshal(b, &page); err != nil {
			return sum, err
		}
		if next = page.Metadata.Continue; next == "" {
			return sum, nil
		}
	}
}

func (r *apiRun) delete(ctx context.Context, i int) (int64, error) {
	return r.c.do(ctx, http.MethodDelete, r.pods+"/"+podName(i)+"?gracePeriodSeconds=0", "", asJSON, nil)
}

// watch counts one operation for each event that reached a watcher.
func (r *apiRun) watch(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	path := "/api/v1/namespaces/" + r.ns + "/configmaps"
	if err := r.c.post(ctx, path, map[string]any{"metadata": map[string]any{"name": "watched"}, "data": map[string]string{"text": strings.Repeat("x", 2000)}}); err != nil {
		return Result{}, err
	}
	var list struct{ Metadata metav1.ListMeta }
	if err := r.c.read(ctx, path+"?fieldSelector=metadata.name%3Dwatched", &list); err != nil {
		return Result{}, err
	}
	var (
		all    sync.WaitGroup
		bytes  atomic.Int64
		failed = make(chan error, r.Watchers)
	)
	query := "?watch=1&fieldSelector=metadata.name%3Dwatched&resourceVersion=" + list.Metadata.ResourceVersion
	for range r.Watchers {
		body, err := r.c.open(ctx, http.MethodGet, path+query, "", asJSON, nil)
		if err != nil {
			return Result{}, fmt.Errorf("opening a watch: %w", err)
		}
		all.Go(func() {
			defer body.Close()
			in := bufio.NewReader(body)
			for range r.Events {
				n, err := line(in)
				bytes.Add(n)
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	before, began := r.p.CPU(), time.Now()
	for i := range r.Events {
		if _, err := r.c.do(ctx, http.MethodPatch, path+"/watched", asMerge, asJSON, fmt.Appendf(nil, `{"data":{"n":"%d"}}`, i)); err != nil {
			return Result{}, err
		}
	}
	all.Wait()
	res := Result{Operation: "watch", Count: r.Watchers * r.Events, Elapsed: time.Since(began), CPU: r.p.CPU() - before, Bytes: bytes.Load(), Errors: len(failed)}
	res.RSS, res.Anonymous = r.p.Memory()
	if len(failed) > 0 {
		res.Error = (<-failed).Error()
	}
	return res, ctx.Err()
}

// line reads past the next line break and returns how far it was.
func line(in *bufio.Reader) (n int64, err error) {
	for {
		part, err := in.ReadSlice('\n')
		n += int64(len(part))
		if err != bufio.ErrBufferFull {
			return n, err
		}
	}
}
