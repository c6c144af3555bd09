// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"kaji/internal/scheduler/plugin"
)

// model is the reference: plain objects, and rules written down as slowly and
// plainly as possible.
type model struct {
	nodes map[string]*corev1.Node
	pods  map[types.UID]*corev1.Pod // placed ones, with spec.nodeName
}

func (m *model) on(node string) (out []*corev1.Pod) {
	for _, p := range m.pods {
		if p.Spec.NodeName == node {
			out = append(out, p)
		}
	}
	return out
}

// domain returns the placed pods of the node's domain; false when the node has
// no such label.
func (m *model) domain(node *corev1.Node, key string) (out []*corev1.Pod, ok bool) {
	value, ok := node.Labels[key]
	for _, n := range m.nodes {
		if v, has := n.Labels[key]; ok && has && v == value {
			out = append(out, m.on(n.Name)...)
		}
	}
	return out, ok
}

func selects(owner *corev1.Pod, t *corev1.PodAffinityTerm, pod *corev1.Pod) bool {
	s, _ := metav1.LabelSelectorAsSelector(t.LabelSelector)
	return owner.Namespace == pod.Namespace && s.Matches(labels.Set(pod.Labels))
}

func required(p *corev1.Pod) []corev1.PodAffinityTerm {
	if p.Spec.Affinity == nil || p.Spec.Affinity.PodAffinity == nil {
		return nil
	}
	return p.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

func requiredAnti(p *corev1.Pod) []corev1.PodAffinityTerm {
	if p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	return p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

func (m *model) fits(pod *corev1.Pod, node *corev1.Node) bool {
	return m.room(pod, node) && m.admits(pod, node) && m.ports(pod, node) && m.affinity(pod, node) && m.antiAffinity(pod, node) && m.spreads(pod, node)
}

func (m *model) room(pod *corev1.Pod, node *corev1.Node) bool {
	cpu, count := pod.Spec.Containers[0].Resources.Requests.Cpu().MilliValue(), int64(1)
	for _, p := range m.on(node.Name) {
		cpu += p.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
		count++
	}
	return count <= node.Status.Allocatable.Pods().Value() &&
		(pod.Spec.Containers[0].Resources.Requests.Cpu().IsZero() || cpu <= node.Status.Allocatable.Cpu().MilliValue())
}

func (m *model) admits(pod *corev1.Pod, node *corev1.Node) bool {
	clean := !node.Spec.Unschedulable && len(node.Spec.Taints) == 0
	return (clean || len(pod.Spec.Tolerations) > 0) &&
		labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(node.Labels))
}

func (m *model) ports(pod *corev1.Pod, node *corev1.Node) bool {
	for _, p := range m.on(node.Name) {
		for _, a := range p.Spec.Containers[0].Ports {
			for _, b := range pod.Spec.Containers[0].Ports {
				if a.HostPort == b.HostPort {
					return false
				}
			}
		}
	}
	return true
}

func (m *model) affinity(pod *corev1.Pod, node *corev1.Node) bool {
	terms := required(pod)
	matchesAll := func(p *corev1.Pod) bool {
		return !slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return !selects(pod, &t, p) })
	}
	all, anywhere := true, false
	for i := range terms {
		near, ok := m.domain(node, terms[i].TopologyKey)
		if !ok {
			return false
		}
		all = all && slices.ContainsFunc(near, matchesAll)
		for _, n := range m.nodes {
			somewhere, _ := m.domain(n, terms[i].TopologyKey)
			anywhere = anywhere || slices.ContainsFunc(somewhere, matchesAll)
		}
	}
	return all || !anywhere && matchesAll(pod)
}

func (m *model) antiAffinity(pod *corev1.Pod, node *corev1.Node) bool {
	for _, t := range requiredAnti(pod) {
		near, _ := m.domain(node, t.TopologyKey)
		if slices.ContainsFunc(near, func(p *corev1.Pod) bool { return selects(pod, &t, p) }) {
			return false
		}
	}
	for _, other := range m.pods {
		home := m.nodes[other.Spec.NodeName]
		for _, t := range requiredAnti(other) {
			if home == nil || !selects(other, &t, pod) {
				continue
			}
			a, hasA := home.Labels[t.TopologyKey]
			b, hasB := node.Labels[t.TopologyKey]
			if hasA && hasB && a == b {
				return false
			}
		}
	}
	return true
}

func (m *model) spreads(pod *corev1.Pod, node *corev1.Node) bool {
	for _, c := range pod.Spec.TopologySpreadConstraints {
		value, ok := node.Labels[c.TopologyKey]
		if !ok {
			return false
		}
		counts := map[string]int{}
		s, _ := metav1.LabelSelectorAsSelector(c.LabelSelector)
		for _, n := range m.nodes {
			if v, has := n.Labels[c.TopologyKey]; has && labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(n.Labels)) {
				counts[v] += 0
				for _, p := range m.on(n.Name) {
					if s.Matches(labels.Set(p.Labels)) {
						counts[v]++
					}
				}
			}
		}
		least := 0
		if len(counts) > 0 {
			least = slices.Min(slices.Collect(maps.Values(counts)))
		}
		self := 0
		if s.Matches(labels.Set(pod.Labels)) {
			self = 1
		}
		if counts[value]+self-least > int(c.MaxSkew) {
			return false
		}
	}
	return true
}

// script makes random objects from few names, so that they concern each other.
type script struct{ *rand.Rand }

func (r script) chance(percent int) bool { return r.IntN(100) < percent }

func (r script) node(i int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), Labels: map[string]string{corev1.LabelHostname: fmt.Sprint("n", i)}}}
	if r.chance(80) {
		n.Labels[corev1.LabelTopologyZone] = fmt.Sprint("z", r.IntN(3))
	}
	if r.chance(30) {
		n.Labels["disk"] = "ssd"
	}
	if r.chance(15) {
		n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
	}
	n.Spec.Unschedulable = r.chance(5)
	n.Status.Allocatable = corev1.ResourceList{"cpu": *resource.NewMilliQuantity(int64(1000+r.IntN(4)*500), resource.DecimalSI), "pods": *resource.NewQuantity(int64(3+r.IntN(6)), resource.DecimalSI)}
	return n
}

func (r script) pod(i int) *corev1.Pod {
	app := fmt.Sprint("app", r.IntN(3))
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "default", UID: types.UID(fmt.Sprint(i)), Generation: 1, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{SchedulerName: "default-scheduler", Priority: ptr.To[int32](0), Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	c := &p.Spec.Containers[0]
	if r.chance(80) {
		c.Resources.Requests = corev1.ResourceList{"cpu": *resource.NewMilliQuantity(int64(100*(1+r.IntN(5))), resource.DecimalSI)}
	}
	if r.chance(15) {
		c.Ports = []corev1.ContainerPort{{HostPort: int32(8000 + r.IntN(2)), ContainerPort: 80}}
	}
	if r.chance(20) {
		p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	if r.chance(20) {
		p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	}
	keys := []string{corev1.LabelHostname, corev1.LabelTopologyZone}
	term := func() corev1.PodAffinityTerm {
		return corev1.PodAffinityTerm{TopologyKey: keys[r.IntN(2)], LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("app", r.IntN(3))}}}
	}
	if r.chance(40) {
		p.Spec.Affinity = &corev1.Affinity{}
		if r.chance(50) {
			a := &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term()}}
			if r.chance(30) {
				a.RequiredDuringSchedulingIgnoredDuringExecution = append(a.RequiredDuringSchedulingIgnoredDuringExecution, term())
			}
			p.Spec.Affinity.PodAffinity = a
		} else {
			p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term()}}
		}
	}
	if r.chance(20) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: int32(1 + r.IntN(2)), TopologyKey: keys[r.IntN(2)], WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}
	}
	return p
}

// TestDecisionsAgreeWithTheModel runs random histories of a cluster and
// compares, for every pod, which nodes the engine finds feasible with what the
// model says, and that preemption's trials leave no trace.
func TestDecisionsAgreeWithTheModel(t *testing.T) {
	for seed := range uint64(80) {
		r := script{rand.New(rand.NewPCG(seed, 7))}
		s := newBench(t, 0)
		m := &model{nodes: map[string]*corev1.Node{}, pods: map[types.UID]*corev1.Pod{}}
		for step := range 150 {
			switch {
			case len(m.nodes) < 3 || r.chance(8):
				n := r.node(r.IntN(8))
				s.nodeChanged(m.nodes[n.Name], n)
				m.nodes[n.Name] = n
			case r.chance(3):
				name := slices.Sorted(maps.Keys(m.nodes))[0]
				s.nodeChanged(m.nodes[name], nil)
				delete(m.nodes, name)
			case r.chance(25) && len(m.pods) > 0:
				uid := slices.Sorted(maps.Keys(m.pods))[r.IntN(len(m.pods))]
				s.podChanged(m.pods[uid], nil)
				delete(m.pods, uid)
			default:
				decide(t, s, m, r.pod(step), seed, step)
			}
			if t.Failed() {
				return
			}
		}
	}
}

// decide lets both sides judge a pod and places it where the engine says.
func decide(t *testing.T, s *bench, m *model, pod *corev1.Pod, seed uint64, step int) {
	t.Helper()
	parsed, err := s.snap.NewPod(pod)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for name, n := range m.nodes {
		if m.fits(pod, n) {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	ch := s.choosers["default-scheduler"]
	c := &plugin.Cycle{Pod: parsed, Snapshot: s.snap}
	where, err := ch.choose(t.Context(), c)
	if err == nil {
		// Each node on its own, past everything that is remembered.
		var got []string
		for _, n := range s.snap.Slots() {
			if n != nil && c.Fits(t.Context(), n).OK() {
				got = append(got, n.Name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("seed %d step %d: feasible nodes are %v, the model says %v", seed, step, got, want)
		}
		if !slices.Contains(want, where.node.Name) {
			t.Errorf("seed %d step %d: %s was chosen, the model says %v", seed, step, where.node.Name, want)
		}
		placed := pod.DeepCopy()
		placed.Spec.NodeName = where.node.Name
		s.podChanged(nil, placed)
		m.pods[pod.UID] = placed
		return
	}
	var fit *fitError
	if !errors.As(err, &fit) || len(want) > 0 {
		t.Errorf("seed %d step %d: %v, the model says %v", seed, step, err, want)
	}
}
