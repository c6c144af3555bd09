// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"kaji/internal/api/rule"
)

// DefaultPod fills in the defaults of a pod: those of its spec, and what only
// pods get, so that templates stay as they were written.
func DefaultPod(pod *corev1.Pod) {
	Default(&pod.Spec)
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			requestLimits(&containers[i].Resources)
		}
	}
	pointerOrElse(&pod.Spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	if pod.Spec.HostNetwork {
		for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range containers {
				for j := range containers[i].Ports {
					orElse(&containers[i].Ports[j].HostPort, containers[i].Ports[j].ContainerPort)
				}
			}
		}
	}
	defaultPodStatus(&pod.Status)
}

// syncIPs makes the single address the first of the list, as both are one field.
func syncIPs(status *corev1.PodStatus) {
	switch {
	case status.PodIP != "" && (len(status.PodIPs) == 0 || status.PodIPs[0].IP != status.PodIP):
		status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	case status.PodIP == "" && len(status.PodIPs) > 0:
		status.PodIP = status.PodIPs[0].IP
	}
}

func defaultPodStatus(status *corev1.PodStatus) {
	syncIPs(status)
	rule.RoundUp(status.AllocatedResources)
	if status.Resources != nil {
		defaultResources(status.Resources)
	}
	for _, statuses := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses} {
		for i := range statuses {
			rule.RoundUp(statuses[i].AllocatedResources)
			if statuses[i].Resources != nil {
				defaultResources(statuses[i].Resources)
			}
		}
	}
}

// requestLimits requests what is limited, where nothing is requested.
func requestLimits(r *corev1.ResourceRequirements) {
	if r.Limits == nil {
		return
	}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	for name, limit := range r.Limits {
		if _, ok := r.Requests[name]; !ok {
			r.Requests[name] = limit.DeepCopy()
		}
	}
}

// CompletePodResources gives a pod that has resources of its own, of those it
// does not mention, what its containers add up to (KEP 2837). It belongs to the
// write, not to the defaults: nobody is noted as the one who set these.
func CompletePodResources(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil || len(r.Limits) == 0 && len(r.Requests) == 0 {
		return
	}
	limits, requests := podLimits(pod, r), maps.Clone(r.Requests)
	if requests == nil {
		requests = corev1.ResourceList{}
	}
	for name, sum := range resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{}) {
		if _, ok := requests[name]; !ok && resourcehelper.IsSupportedPodLevelResource(name) && rule.MayOvercommit(name) {
			requests[name] = sum.DeepCopy()
		}
	}
	for name, limit := range limits {
		if _, ok := requests[name]; !ok && resourcehelper.IsSupportedPodLevelResource(name) {
			requests[name] = limit.DeepCopy()
		}
	}
	if len(limits) > 0 {
		r.Limits = limits
	}
	if len(requests) > 0 {
		r.Requests = requests
	}
}

// podLimits are the limits of the pod with those that hold for all of its
// containers: a container without a limit leaves the pod without. Huge pages are
// limited in any case, and no limit is below what the pod requests.
func podLimits(pod *corev1.Pod, r *corev1.ResourceRequirements) corev1.ResourceList {
	limits := maps.Clone(r.Limits)
	if limits == nil {
		limits = corev1.ResourceList{}
	}
	for name, sum := range resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{}) {
		_, limited := limits[name]
		if limited || !resourcehelper.IsSupportedPodLevelResource(name) || !rule.IsHugePages(name) && !limitedEverywhere(&pod.Spec, name) {
			continue
		}
		if own, ok := r.Requests[name]; ok && own.Cmp(sum) > 0 {
			sum = own
		}
		limits[name] = sum.DeepCopy()
	}
	return limits
}

func limitedEverywhere(spec *corev1.PodSpec, name corev1.ResourceName) bool {
	without := func(c corev1.Container) bool {
		_, limited := c.Resources.Limits[name]
		return !limited
	}
	return !slices.ContainsFunc(spec.Containers, without) && !slices.ContainsFunc(spec.InitContainers, without)
}
