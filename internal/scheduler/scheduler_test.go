// SPDX-License-Identifier: Apache-2.0

package scheduler_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/scheduler"
	"kaji/internal/scheduler/config"
	"kaji/kajitest"
)

// world is a control plane with a scheduler.
type world struct {
	t *testing.T
	client.Interface
	mu     sync.Mutex
	events []*eventsv1.Event
	web    http.Handler // the scheduler's

	held     string        // a resource whose updates wait
	waiting  chan struct{} // closed when one does
	released chan struct{}
}

// hold has the scheduler's updates of a resource wait until release is called.
// The channel is closed when the first does.
func (w *world) hold(resource string) (waiting <-chan struct{}, release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held, w.waiting, w.released = resource, make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(w.released) })
	w.t.Cleanup(release)
	return w.waiting, release
}

// Update implements client.Verbs.
func (w *world) Update(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	w.mu.Lock()
	waits := w.held == r.Resource && r.Subresource == ""
	if waits {
		w.held = ""
		close(w.waiting)
	}
	w.mu.Unlock()
	if waits {
		<-w.released
	}
	return w.Interface.Update(ctx, r, name, obj, opts)
}

// Create implements client.Verbs and remembers the events written.
func (w *world) Create(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	if e, ok := obj.(*eventsv1.Event); ok {
		w.mu.Lock()
		w.events = append(w.events, e)
		w.mu.Unlock()
	}
	return w.Interface.Create(ctx, r, name, obj, opts)
}

// start runs a scheduler until the test ends.
func start(t *testing.T, change ...func(*configv1.KubeSchedulerConfiguration)) *world {
	t.Helper()
	// Pods say themselves how important they are.
	own := kajitest.WithServer(func(c *apiserver.Config) { c.DisabledAdmission = append(c.DisabledAdmission, "Priority") })
	w := &world{t: t, Interface: kajitest.Start(t, own).Client()}
	cfg := config.Default()
	cfg.LeaderElection.LeaderElect = ptr.To(false)
	for _, f := range change {
		f(cfg)
	}
	w.run(scheduler.Config{Client: w, Configuration: cfg, Seed: 1, Hostname: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	return w
}

// run runs a scheduler in the world until the test ends.
func (w *world) run(cfg scheduler.Config) {
	w.t.Helper()
	s, err := scheduler.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.web = s.Handler()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func create[T client.Object](w *world, obj T) T {
	w.t.Helper()
	out, err := client.For[T](w).Create(w.t.Context(), obj)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func node(name, cpu string, change ...func(*corev1.Node)) *corev1.Node {
	res := corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status:     corev1.NodeStatus{Capacity: res, Allocatable: res},
	}
	for _, f := range change {
		f(n)
	}
	return n
}

func pod(name, cpu string, change ...func(*corev1.Pod)) *corev1.Pod {
	c := corev1.Container{Name: "c", Image: "img:1"}
	if cpu != "" {
		c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(cpu)}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
	for _, f := range change {
		f(p)
	}
	return p
}

// eventually polls cond until it holds.
func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s did not happen", what)
		}
		<-tick.C
	}
}

func (w *world) pod(name string) *corev1.Pod {
	w.t.Helper()
	p, err := client.For[*corev1.Pod](w).Get(w.t.Context(), "default", name)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// lands waits until the pod is on one of the nodes.
func (w *world) lands(name string, nodes ...string) {
	w.t.Helper()
	var got string
	w.eventually(fmt.Sprintf("binding %s", name), func() bool { got = w.pod(name).Spec.NodeName; return got != "" })
	for _, n := range nodes {
		if n == got {
			return
		}
	}
	w.t.Errorf("%s landed on %s, want one of %v", name, got, nodes)
}

// refused waits until the pod's condition says why it waits.
func (w *world) refused(name, message string) {
	w.t.Helper()
	var got string
	defer func() {
		if w.t.Failed() {
			w.t.Logf("%s: condition says %q, want %q", name, got, message)
		}
	}()
	w.eventually(name+" being refused", func() bool {
		for _, c := range w.pod(name).Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				got = c.Message
				return got == message && c.Reason == corev1.PodReasonUnschedulable
			}
		}
		return false
	})
}

func TestPlainPodIsBound(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	create(w, pod("p", "100m"))
	w.lands("p", "n1")
	w.eventually("the Scheduled event", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.events, func(e *eventsv1.Event) bool {
			return e.Reason == "Scheduled" && e.Action == "Binding" && e.Note == "Successfully assigned default/p to n1" &&
				e.ReportingController == "default-scheduler" && e.Regarding.Name == "p" && e.Regarding.Kind == "Pod"
		})
	})
}

func TestMessages(t *testing.T) {
	w := start(t)
	create(w, pod("lonely", ""))
	w.refused("lonely", "no nodes available to schedule pods")
	create(w, node("n1", "1"))
	create(w, node("n2", "4", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule}}
	}))
	w.lands("lonely", "n1")
	create(w, pod("big", "2"))
	w.refused("big", "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). "+
		"preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")
	create(w, pod("tolerant", "2", func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
	}))
	w.lands("tolerant", "n2")
	create(w, pod("picky", "", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }))
	w.refused("picky", "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s). "+
		"preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")
	n, err := client.For[*corev1.Node](w).Get(t.Context(), "", "n1")
	if err != nil {
		t.Fatal(err)
	}
	n = n.DeepCopy()
	n.Labels["a"] = "b"
	if _, err := client.For[*corev1.Node](w).Update(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	w.lands("picky", "n1")
}

func TestGatesHoldAPodBack(t *testing.T) {
	w := start(t)
	create(w, node("n1", "4"))
	create(w, pod("gated", "", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/gate"}} }))
	create(w, pod("free", ""))
	w.lands("free", "n1")
	if got := w.pod("gated"); got.Spec.NodeName != "" {
		t.Fatal("a gated pod was bound")
	}
	if _, err := client.For[*corev1.Pod](w).MergePatch(t.Context(), "default", "gated", map[string]any{"spec": map[string]any{"schedulingGates": nil}}, ""); err != nil {
		t.Fatal(err)
	}
	w.lands("gated", "n1")
}
