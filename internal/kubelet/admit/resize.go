// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/component-helpers/resource"

	"kaji/internal/kubelet/podspec"
)

// Allocation is what the node has granted to the containers of a pod by name,
// and to the pod itself by the name "".
type Allocation map[string]corev1.ResourceRequirements

// Allocate grants a pod all that its specification asks for.
func Allocate(pod *corev1.Pod) Allocation {
	a := Allocation{}
	if r := pod.Spec.Resources; r != nil {
		a[""] = *r
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			a[list[i].Name] = list[i].Resources
		}
	}
	return a
}

// Recall restores what was granted by an earlier process from the pod's status.
func Recall(pod *corev1.Pod) Allocation {
	a := Allocate(pod)
	if r, ok := a[""]; ok && pod.Status.AllocatedResources != nil {
		r.Requests = among(r.Requests, pod.Status.AllocatedResources)
		if pod.Status.Resources != nil {
			r.Limits = among(r.Limits, pod.Status.Resources.Limits)
		}
		a[""] = r
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			s := &list[i]
			granted, ok := a[s.Name]
			if !ok || s.AllocatedResources == nil && s.Resources == nil {
				continue
			}
			if s.AllocatedResources != nil {
				granted.Requests = s.AllocatedResources
			}
			if s.Resources != nil && s.State.Running != nil {
				granted.Limits = s.Resources.Limits
			}
			a[s.Name] = granted
		}
	}
	return a
}

// among takes the values of known for the names in list.
func among(list, known corev1.ResourceList) corev1.ResourceList {
	out := list.DeepCopy()
	for name := range out {
		if q, ok := known[name]; ok {
			out[name] = q
		}
	}
	return out
}

// Apply returns the pod with the granted resources in place of those that it
// asks for; the pod itself where they are the same.
func (a Allocation) Apply(pod *corev1.Pod) *corev1.Pod {
	if a.Same(pod) {
		return pod
	}
	granted := pod.DeepCopy()
	if r, ok := a[""]; ok && granted.Spec.Resources != nil {
		granted.Spec.Resources = r.DeepCopy()
	}
	for _, list := range [][]corev1.Container{granted.Spec.Containers, granted.Spec.InitContainers} {
		for i := range list {
			if r, ok := a[list[i].Name]; ok {
				list[i].Resources = *r.DeepCopy()
			}
		}
	}
	return granted
}

// Same says whether a pod asks for just what it was granted.
func (a Allocation) Same(pod *corev1.Pod) bool {
	if r, ok := a[""]; ok && pod.Spec.Resources != nil && !equality.Semantic.DeepEqual(r, *pod.Spec.Resources) {
		return false
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if r, ok := a[list[i].Name]; ok && !equality.Semantic.DeepEqual(r, list[i].Resources) {
				return false
			}
		}
	}
	return true
}

// Resize decides whether a pod may have what it asks for now. Pods of the node
// leave out the pod itself. A refusal has the reason "Infeasible", if it can
// never be, or "Deferred".
func Resize(n Node, pod *corev1.Pod) *Rejection {
	if podspec.Static(pod) {
		return &Rejection{corev1.PodReasonInfeasible, "In-place resize of static-pods is not supported"}
	}
	used := sum(n.Pods)
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	var deferred *Rejection
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, have, taken := requests[name], n.Allocatable[name], used[name]
		requested, capacity, inUse := request.Value(), have.Value(), taken.Value()
		if name == corev1.ResourceCPU {
			requested, capacity, inUse = request.MilliValue(), have.MilliValue(), taken.MilliValue()
		}
		if requested > capacity {
			return &Rejection{corev1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, requested, capacity)}
		}
		if requested > capacity-inUse && deferred == nil {
			deferred = &Rejection{corev1.PodReasonDeferred, fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, inUse, capacity)}
		}
	}
	return deferred
}
