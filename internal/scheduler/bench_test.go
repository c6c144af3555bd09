// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"fmt"
	goruntime "runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/scheduler/config"
)

// sink is a client that accepts every write and has no objects.
type sink struct {
	client.Interface
	informers map[schema.GroupVersionResource]cache.SharedIndexInformer
}

func newSink() *sink {
	return &sink{informers: map[schema.GroupVersionResource]cache.SharedIndexInformer{}}
}

func (c *sink) Create(_ context.Context, _ client.Resource, _ string, obj runtime.Object, _ metav1.CreateOptions) (runtime.Object, error) {
	return obj, nil
}

func (c *sink) Patch(context.Context, client.Resource, string, types.PatchType, []byte, metav1.PatchOptions) (runtime.Object, error) {
	return &corev1.Pod{}, nil
}

func (c *sink) Delete(context.Context, client.Resource, string, metav1.DeleteOptions) error {
	return nil
}

func (c *sink) Informer(gvr schema.GroupVersionResource, _ client.InformerOptions) cache.SharedIndexInformer {
	if c.informers[gvr] == nil {
		c.informers[gvr] = cache.NewSharedIndexInformer(&cache.ListWatch{}, nil, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}
	return c.informers[gvr]
}

// bench is a scheduler whose loop the benchmark turns by hand.
type bench struct {
	*Scheduler
	b testing.TB
}

func newBench(b testing.TB, nodes int) *bench {
	s, err := New(Config{Client: newSink(), Configuration: config.Default(), Seed: 1, Hostname: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	s.recorder.start(ctx, s.workers.Go)
	b.Cleanup(func() { cancel(); s.workers.Wait() })
	for i := range nodes {
		s.nodeChanged(nil, BenchNode(i))
	}
	return &bench{s, b}
}

// BenchNode is a node of 64 cores in one of ten zones.
func BenchNode(i int) *corev1.Node {
	res := corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("250")}
	name := fmt.Sprintf("node-%d", i)
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%10),
		}},
		Status: corev1.NodeStatus{Allocatable: res, Capacity: res},
	}
}

// BenchPod is a small pod with what change does to it.
func BenchPod(i int, change func(i int, p *corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", i), Namespace: "default", UID: types.UID(fmt.Sprint("uid-", i)), Generation: 1,
			Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{SchedulerName: "default-scheduler", Priority: ptr.To[int32](0), Containers: []corev1.Container{{Name: "c", Image: "img:1",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")}}}}},
	}
	if change != nil {
		change(i, p)
	}
	return p
}

// run schedules pods from informer event to accepted binding.
func (s *bench) run(from, count int, change func(i int, p *corev1.Pod)) {
	for i := from; i < from+count; i++ {
		s.podChanged(nil, BenchPod(i, change))
		s.inbox.drain()
		if it := s.queue.Pop(time.Now()); it != nil {
			s.attempt(s.ctx, it)
		}
	}
	s.workersDone(from + count)
}

func (s *bench) workersDone(want int) {
	for s.snap.Pods() < want || s.queue.Counts().InFlight > 0 {
		<-s.inbox.wake
		s.inbox.drain()
		if it := s.queue.Pop(time.Now()); it != nil {
			s.attempt(s.ctx, it)
		}
	}
}

// BenchShape is a kind of pod that the benchmarks schedule.
type BenchShape struct {
	Name   string
	Change func(i int, p *corev1.Pod) // nil for a plain pod
}

// BenchShapes are like those of upstream's scheduler_perf.
func BenchShapes() []BenchShape {
	return []BenchShape{
		{"plain", nil},
		{"distinct", func(i int, p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["cpu"] = *resource.NewMilliQuantity(int64(1+i%100000), resource.DecimalSI)
		}},
		{"nodeaffinity", func(_ int, p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"zone-1", "zone-2"}}}}}}}}
		}},
		{"podaffinity", func(i int, p *corev1.Pod) {
			p.Labels["app"] = fmt.Sprint("app-", i%50)
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				TopologyKey: corev1.LabelTopologyZone, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}}}}}}
		}},
		{"podantiaffinity", func(i int, p *corev1.Pod) {
			p.Labels["app"] = fmt.Sprint("app-", i/500)
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}}}}}}
		}},
		{"spreadhard", func(i int, p *corev1.Pod) {
			p.Labels["app"] = fmt.Sprint("app-", i%50)
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone,
				WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}}}}
		}},
		{"spreadsoft", func(i int, p *corev1.Pod) {
			p.Labels["app"] = fmt.Sprint("app-", i%50)
			for _, key := range []string{corev1.LabelHostname, corev1.LabelTopologyZone} {
				p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{MaxSkew: 3, TopologyKey: key,
					WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}}})
			}
		}},
	}
}

// BenchmarkSchedule decides alone: writes are accepted by nobody.
func BenchmarkSchedule(b *testing.B) {
	for _, nodes := range []int{1000, 5000, 50000} {
		for _, shape := range BenchShapes() {
			b.Run(fmt.Sprintf("nodes=%d/%s", nodes, shape.Name), func(b *testing.B) {
				s := newBench(b, nodes)
				s.run(0, 1000, shape.Change)
				b.ReportAllocs()
				b.ResetTimer()
				s.run(1000, b.N, shape.Change)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
			})
		}
	}
}

// BenchmarkMemory tells what the scheduler holds of a node, of a bound pod and of
// a pod that waits, beyond the objects, which it shares with the cache.
func BenchmarkMemory(b *testing.B) {
	const nodes, pods = 5000, 50000
	for b.Loop() {
		s := newBench(b, 0)
		objects := make([]*corev1.Node, nodes)
		for i := range objects {
			objects[i] = BenchNode(i)
		}
		before := live()
		for _, n := range objects {
			s.nodeChanged(nil, n)
		}
		s.inbox.drain()
		afterNodes := live()
		b.ReportMetric(float64(afterNodes-before)/nodes, "B/node")
		for _, shape := range []struct {
			unit  string
			bound bool
		}{{"B/bound-pod", true}, {"B/waiting-pod", false}} {
			made := make([]*corev1.Pod, pods)
			for i := range made {
				made[i] = BenchPod(i, nil)
				made[i].UID += types.UID(shape.unit)
				if shape.bound {
					made[i].Spec.NodeName = objects[i%nodes].Name
				}
			}
			before := live()
			for _, p := range made {
				s.podChanged(nil, p)
			}
			s.inbox.drain()
			b.ReportMetric(float64(live()-before)/pods, shape.unit)
			goruntime.KeepAlive(made)
		}
		goruntime.KeepAlive(objects)
	}
}

// live is the heap in use after a collection.
func live() uint64 {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return m.HeapAlloc
}
