// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"kaji/internal/kubelet/podspec"
)

// lack is what a node lacks for a pod, by resource; CPU in thousandths.
type lack map[corev1.ResourceName]int64

// lacks is what a node lacks for a pod that is to be taken.
func lacks(n Node, pod *corev1.Pod) lack {
	out := lack{}
	if most := n.Allocatable[corev1.ResourcePods]; !most.IsZero() && int64(len(n.Pods))+1 > most.Value() {
		out[corev1.ResourcePods] = int64(len(n.Pods)) + 1 - most.Value()
	}
	used := sum(n.Pods)
	for name, request := range resource.PodRequests(pod, resource.PodResourcesOptions{}) {
		have, known := n.Allocatable[name]
		if request.IsZero() || !known && strings.Contains(string(name), "/") {
			continue
		}
		have.Sub(used[name])
		request.Sub(have)
		if request.Sign() > 0 {
			out[name] = amount(name, request.MilliValue(), request.Value())
		}
	}
	return out
}

func amount(name corev1.ResourceName, milli, whole int64) int64 {
	if name == corev1.ResourceCPU {
		return milli
	}
	return whole
}

// requests is what a pod gives back of a resource when it ends.
func requests(pod *corev1.Pod, name corev1.ResourceName) int64 {
	if name == corev1.ResourcePods {
		return 1
	}
	q := resource.PodRequests(pod, resource.PodResourcesOptions{})[name]
	return amount(name, q.MilliValue(), q.Value())
}

// without is what is still lacking when pods have ended.
func (l lack) without(pods ...*corev1.Pod) lack {
	out := lack{}
	for name, short := range l {
		for _, pod := range pods {
			short -= requests(pod, name)
		}
		if short > 0 {
			out[name] = short
		}
	}
	return out
}

// distance is how far the end of a pod leaves from what is lacking; zero is not at all.
func (l lack) distance(pod *corev1.Pod) float64 {
	sum := 0.0
	for name, short := range l {
		if left := short - requests(pod, name); left > 0 {
			sum += math.Pow(float64(left)/float64(short), 2)
		}
	}
	return sum
}

func (l lack) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		parts = append(parts, fmt.Sprintf("(res: %v, q: %d), ", name, l[name]))
	}
	return "[" + strings.Join(parts, "") + "]"
}

// victims are the pods that a critical one ends to have room: of the class that
// counts least as many as help, then of the others, each time the pod whose end
// comes nearest to what is lacking.
func victims(pod *corev1.Pod, pods []*corev1.Pod, short lack) ([]*corev1.Pod, error) {
	classes := map[corev1.PodQOSClass][]*corev1.Pod{}
	var all []*corev1.Pod
	for _, p := range pods {
		if podspec.Critical(p) && !outranks(pod, p) {
			continue
		}
		classes[podspec.QOS(p)] = append(classes[podspec.QOS(p)], p)
		all = append(all, p)
	}
	if left := short.without(all...); len(left) > 0 {
		return nil, fmt.Errorf("no set of running pods found to reclaim resources: %v", left)
	}
	best, burstable, guaranteed := classes[corev1.PodQOSBestEffort], classes[corev1.PodQOSBurstable], classes[corev1.PodQOSGuaranteed]
	third := nearest(guaranteed, short.without(slices.Concat(best, burstable)...))
	second := nearest(burstable, short.without(slices.Concat(best, third)...))
	first := nearest(best, short.without(slices.Concat(second, third)...))
	return slices.Concat(first, second, third), nil
}

func outranks(a, b *corev1.Pod) bool {
	return a.Spec.Priority != nil && b.Spec.Priority != nil && *a.Spec.Priority > *b.Spec.Priority
}

// nearest are pods that together give back what is lacking, which they can.
func nearest(pods []*corev1.Pod, short lack) (out []*corev1.Pod) {
	pods = slices.Clone(pods)
	for len(short) > 0 && len(pods) > 0 {
		at := slices.Index(pods, slices.MinFunc(pods, func(a, b *corev1.Pod) int {
			return cmp.Or(cmp.Compare(short.distance(a), short.distance(b)),
				cmp.Compare(requests(a, corev1.ResourceMemory), requests(b, corev1.ResourceMemory)), cmp.Compare(requests(a, corev1.ResourceCPU), requests(b, corev1.ResourceCPU)))
		}))
		out = append(out, pods[at])
		short = short.without(pods[at])
		pods = slices.Delete(pods, at, at+1)
	}
	return out
}

// preempt makes room for a critical pod that lacks nothing but resources; why is
// the rejection that it has otherwise.
func preempt(n Node, pod *corev1.Pod, why *Rejection) *Rejection {
	if n.Preempt == nil || !podspec.Critical(pod) {
		return why
	}
	short := lacks(n, pod)
	ended, err := victims(pod, n.Pods, short)
	if err != nil {
		return &Rejection{"UnexpectedAdmissionError", fmt.Sprintf("Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: %v", err)}
	}
	name := ""
	for _, one := range slices.Sorted(maps.Keys(short)) {
		name = string(one)
		break
	}
	n.Preempt(ended, name)
	return nil
}
