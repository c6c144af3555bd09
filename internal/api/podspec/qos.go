// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// QOSClass is the pod's class: the one it was given, else the one it gets.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	return ComputeQOSClass(pod)
}

// ComputeQOSClass is the class a pod gets for its requests and limits of CPU
// and memory: those of the pod as a whole if it has any, else the containers'.
func ComputeQOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	s := &qosSums{requests: map[corev1.ResourceName]resource.Quantity{}, limits: map[corev1.ResourceName]resource.Quantity{}, allLimited: true}
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		s.add(pod.Spec.Resources)
	} else {
		for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range containers {
				s.add(&containers[i].Resources)
			}
		}
	}
	if len(s.requests) == 0 && len(s.limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	if !s.allLimited || len(s.requests) != len(s.limits) {
		return corev1.PodQOSBurstable
	}
	for name, request := range s.requests {
		if limit, ok := s.limits[name]; !ok || limit.Cmp(request) != 0 {
			return corev1.PodQOSBurstable
		}
	}
	return corev1.PodQOSGuaranteed
}

type qosSums struct {
	requests, limits map[corev1.ResourceName]resource.Quantity
	allLimited       bool
}

func (s *qosSums) add(r *corev1.ResourceRequirements) {
	sum(s.requests, r.Requests)
	if sum(s.limits, r.Limits) < 2 {
		s.allLimited = false
	}
}

// sum adds the CPU and memory of list to the sums, and counts those it has.
func sum(sums map[corev1.ResourceName]resource.Quantity, list corev1.ResourceList) int {
	found := 0
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		q, ok := list[name]
		if !ok || q.Sign() <= 0 {
			continue
		}
		found++
		total := q.DeepCopy()
		total.Add(sums[name])
		sums[name] = total
	}
	return found
}
