// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Scheduler measures how fast pods are bound through the API, on nodes that
// exist as objects only. The shapes are those of upstream's scheduler_perf.
type Scheduler struct {
	Nodes, Pods int
	Shapes      []string // all when empty
	Workers     int      // that create objects
	// Binary is this program; it is started as API server and scheduler unless a
	// target is given. Upstream is the kube-scheduler to start instead of
	// the own one.
	Binary, Upstream string
}

// DefaultScheduler is the size of upstream's middle cases.
func DefaultScheduler() Scheduler { return Scheduler{Nodes: 1000, Pods: 2000, Workers: 8} }

// Run measures every shape. With a target its scheduler is measured, while pods
// are being created; t.Process is the scheduler's then. Without one each
// shape gets a control plane of its own, and its scheduler starts when all pods are there.
func (s Scheduler) Run(ctx context.Context, t *Target, report *Report) error {
	for _, name := range s.Shapes {
		if !slices.Contains(Shapes(), name) {
			return fmt.Errorf("no shape %q: there are %s", name, strings.Join(Shapes(), ", "))
		}
	}
	for _, sh := range shapes() {
		if len(s.Shapes) > 0 && !slices.Contains(s.Shapes, sh.name) {
			continue
		}
		if err := s.one(ctx, sh, t, report); err != nil {
			return fmt.Errorf("%s: %w", sh.name, err)
		}
	}
	return nil
}

func (s Scheduler) one(ctx context.Context, sh shape, t *Target, report *Report) error {
	var own *plane
	if t == nil {
		var err error
		if own, err = startPlane(ctx, s.Binary); err != nil {
			return err
		}
		defer own.stop()
		t = own.Target
	}
	c, err := t.client()
	if err != nil {
		return err
	}
	r := &schedulerRun{Scheduler: s, shape: sh, c: c, ns: fmt.Sprintf("bench-%d", time.Now().UnixNano())}
	done, err := c.namespace(ctx, r.ns)
	if err != nil {
		return err
	}
	defer done()
	defer r.removeNodes(context.WithoutCancel(ctx), s.Nodes)
	if res := measure(ctx, "nodes", nil, s.Workers, s.Nodes, r.createNode); res.Errors > 0 {
		return fmt.Errorf("making nodes: %s", res.Error)
	}
	if own == nil && sh.undo != nil {
		defer r.undo(context.WithoutCancel(ctx))
	}
	if err := r.provide(ctx); err != nil {
		return err
	}
	if own == nil {
		return r.against(ctx, t, report)
	}
	return r.alone(ctx, own, report)
}

type schedulerRun struct {
	Scheduler
	shape shape
	c     *client
	ns    string
}

func (r *schedulerRun) pods() int {
	if r.shape.perNode {
		return min(r.Pods, r.Nodes)
	}
	return r.Pods
}

// provide makes what nodes and pods of the shape need, and the pods that wait.
func (r *schedulerRun) provide(ctx context.Context) error {
	if once := r.shape.once; once != nil {
		if err := once(ctx, r); err != nil {
			return err
		}
	}
	for _, step := range []struct {
		what string
		n    int
		make func(ctx context.Context, r *schedulerRun, i int) error
	}{{"what nodes have", r.Nodes, r.shape.onNode}, {"what pods need", r.pods(), r.shape.needs}, {"pods that wait", r.pods(), r.wait()}} {
		if step.make == nil {
			continue
		}
		res := measure(ctx, step.what, nil, r.Workers, step.n, func(ctx context.Context, i int) (int64, error) { return 0, step.make(ctx, r, i) })
		if res.Errors > 0 {
			return fmt.Errorf("making %s: %s", step.what, res.Error)
		}
	}
	return ctx.Err()
}

// wait returns what makes a pod that never finds a node, nil for none.
func (r *schedulerRun) wait() func(ctx context.Context, r *schedulerRun, i int) error {
	if r.shape.waits == nil {
		return nil
	}
	return func(ctx context.Context, r *schedulerRun, i int) error {
		p := r.pod("waits-" + strconv.Itoa(i))
		r.shape.waits(i, p)
		return r.c.post(ctx, "/api/v1/namespaces/"+r.ns+"/pods", p)
	}
}

func (r *schedulerRun) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	measure(ctx, "", nil, r.Workers, max(r.Nodes, r.pods()), func(ctx context.Context, i int) (int64, error) {
		r.shape.undo(ctx, r, i)
		return 0, nil
	})
}

// alone makes everything first and then starts a scheduler: what is measured is
// from its first binding to its last.
func (r *schedulerRun) alone(ctx context.Context, own *plane, report *Report) error {
	if r.shape.filler != nil {
		if err := r.fill(ctx); err != nil {
			return err
		}
	}
	if err := r.createPods(ctx); err != nil {
		return err
	}
	watch, err := r.bindings(ctx)
	if err != nil {
		return err
	}
	api := own.Process.CPU()
	pid, err := r.start(ctx, own)
	if err != nil {
		return err
	}
	process, err := Watch(pid)
	if err != nil {
		return own.explain("scheduler", err)
	}
	stop := r.stir(ctx)
	res, err := watch(process)
	stop()
	if err != nil {
		return own.explain("scheduler", err)
	}
	res.Target = fmt.Sprintf("%d nodes", r.Nodes)
	if r.Upstream != "" {
		res.Target = filepath.Base(r.Upstream) + ", " + res.Target
	}
	report.Add(res)
	report.Add(Result{Target: res.Target, Operation: r.shape.name + ", the API server's part", Count: res.Count, Elapsed: res.Elapsed, CPU: own.Process.CPU() - api})
	return nil
}

// start starts the scheduler to measure. Upstream's would send no more than 50
// requests a second by default.
func (r *schedulerRun) start(ctx context.Context, own *plane) (int, error) {
	args := []string{"--kubeconfig", own.config, "--leader-elect=false", "--secure-port", "0"}
	if other := r.Upstream; other != "" {
		return own.exec(ctx, "scheduler", other, append(args, "--kube-api-qps", "5000", "--kube-api-burst", "5000")...)
	}
	return own.run(ctx, "scheduler", args...)
}

// against measures a scheduler that runs already.
func (r *schedulerRun) against(ctx context.Context, t *Target, report *Report) error {
	if r.shape.filler != nil {
		if err := r.fill(ctx); err != nil {
			return err
		}
	}
	watch, err := r.bindings(ctx)
	if err != nil {
		return err
	}
	stop := r.stir(ctx)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- r.createPods(ctx) }()
	res, err := watch(t.Process)
	if createErr := <-failed; createErr != nil {
		return createErr
	}
	res.Target = t.Name
	report.Add(res)
	return err
}

func nodeName(i int) string { return fmt.Sprintf("bench-node-%06d", i) }

func (r *schedulerRun) createNode(ctx context.Context, i int) (int64, error) {
	room := corev1.ResourceList{"cpu": resource.MustParse("32"), "memory": resource.MustParse("128Gi"), "pods": resource.MustParse("500"), "ephemeral-storage": resource.MustParse("500Gi")}
	n := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{
			corev1.LabelHostname: nodeName(i), corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%zones), corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux"}},
		Status: corev1.NodeStatus{Capacity: room, Allocatable: room, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
	if r.shape.node != nil {
		r.shape.node(i, n)
	}
	taints, err := json.Marshal(append([]corev1.Taint{}, n.Spec.Taints...))
	if err != nil {
		return 0, err
	}
	if err := r.c.post(ctx, "/api/v1/nodes", n); err != nil {
		return 0, err
	}
	// A new node is tainted as not ready until somebody has seen it; nobody will.
	return r.c.do(ctx, http.MethodPatch, "/api/v1/nodes/"+n.Name, asMerge, asJSON, fmt.Appendf(nil, `{"spec":{"taints":%s}}`, taints))
}

func (r *schedulerRun) removeNodes(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	measure(ctx, "", nil, r.Workers, n, func(ctx context.Context, i int) (int64, error) {
		return r.c.do(ctx, http.MethodDelete, "/api/v1/nodes/"+nodeName(i), "", asJSON, nil)
	})
}

func (r *schedulerRun) pod(name string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"group": "bench"}},
		Spec: corev1.PodSpec{AutomountServiceAccountToken: ptr.To(false), Containers: []corev1.Container{{Name: "c", Image: "registry.example/pause:1",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("10m"), "memory": resource.MustParse("32Mi")}}}}},
	}
}

func (r *schedulerRun) createPods(ctx context.Context) error {
	res := measure(ctx, "pods", nil, r.Workers, r.pods(), func(ctx context.Context, i int) (int64, error) {
		p := r.pod(podName(i))
		if r.shape.pod != nil {
			r.shape.pod(i, p)
		}
		return 0, r.c.post(ctx, "/api/v1/namespaces/"+r.ns+"/pods", p)
	})
	if res.Errors > 0 {
		return fmt.Errorf("making pods: %s", res.Error)
	}
	return ctx.Err()
}

// fill puts one pod on each node, bound by name.
func (r *schedulerRun) fill(ctx context.Context) error {
	res := measure(ctx, "fill", nil, r.Workers, r.Nodes, func(ctx context.Context, i int) (int64, error) {
		p := r.pod("filler-" + strconv.Itoa(i))
		p.Labels = nil
		r.shape.filler(i, p)
		p.Spec.NodeName = nodeName(i)
		return 0, r.c.post(ctx, "/api/v1/namespaces/"+r.ns+"/pods", p)
	})
	if res.Errors > 0 {
		return fmt.Errorf("filling nodes: %s", res.Error)
	}
	return nil
}

// bindings starts to watch the pods without a node. A pod that is bound leaves
// the watch's selection, which it reports as a deletion, so that nothing needs decoding.
func (r *schedulerRun) bindings(ctx context.Context) (func(*Process) (Result, error), error) {
	path := "/api/v1/namespaces/" + r.ns + "/pods?fieldSelector=spec.nodeName%3D"
	var list struct{ Metadata metav1.ListMeta }
	if err := r.c.read(ctx, path+"&limit=1", &list); err != nil {
		return nil, err
	}
	body, err := r.c.open(ctx, http.MethodGet, path+"&watch=1&resourceVersion="+list.Metadata.ResourceVersion, "", asJSON, nil)
	if err != nil {
		return nil, err
	}
	return func(p *Process) (Result, error) {
		defer body.Close()
		in := bufio.NewReaderSize(body, 64<<10)
		res := Result{Operation: r.shape.name, Count: r.pods()}
		began, before := time.Now(), p.CPU()
		for bound := 0; bound < res.Count; {
			head, err := in.Peek(24)
			if err != nil {
				return res, fmt.Errorf("after %d bindings: %w", bound, err)
			}
			if bytes.HasPrefix(head, []byte(`{"type":"DELETED"`)) {
				if bound++; bound == 1 {
					began = time.Now()
				}
			}
			if _, err := line(in); err != nil {
				return res, fmt.Errorf("after %d bindings: %w", bound, err)
			}
		}
		res.Elapsed, res.CPU = time.Since(began), p.CPU()-before
		res.RSS, res.Anonymous = p.Memory()
		return res, nil
	}, nil
}

// stir makes and deletes nodes that nobody needs until the returned function is called.
func (r *schedulerRun) stir(ctx context.Context) (stop func()) {
	if !r.shape.churn {
		return func() {}
	}
	var ended atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !ended.Load() && ctx.Err() == nil; i++ {
			name := r.Nodes + i%10
			_, _ = r.createNode(ctx, name) // a failure shows in the next one's
			_, _ = r.c.do(ctx, http.MethodDelete, "/api/v1/nodes/"+nodeName(name), "", asJSON, nil)
		}
	}()
	return func() {
		ended.Store(true)
		<-done
	}
}
