// SPDX-License-Identifier: Apache-2.0

package status

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"
)

// Group is what the control group of a pod holds it to. Zero is no limit.
type Group struct{ Shares, Quota, Period, Memory int64 }

// podResources tells what a pod as a whole was granted and what it is held to:
// the sums over its containers where it asks for nothing itself (KEP-5419).
func podResources(in Input, s *corev1.PodStatus) {
	s.AllocatedResources = helper.PodRequests(in.Pod, helper.PodResourcesOptions{})
	s.Resources = in.Pod.Spec.Resources.DeepCopy()
	if s.Resources == nil {
		s.Resources = &corev1.ResourceRequirements{}
	}
	if in.Pod.Status.Phase != corev1.PodRunning || in.Group == nil {
		s.Resources.Requests = s.AllocatedResources.DeepCopy()
		s.Resources.Limits = helper.PodLimits(in.Pod, helper.PodResourcesOptions{})
		return
	}
	if s.Resources.Requests == nil {
		s.Resources.Requests = corev1.ResourceList{}
	}
	if s.Resources.Limits == nil {
		s.Resources.Limits = corev1.ResourceList{}
	}
	requests, limits, g := s.Resources.Requests, s.Resources.Limits, in.Group
	milli, asked := (g.Shares*1000+1023)/1024, requests.Cpu().MilliValue()
	if g.Shares >= minShares && (milli > minShares || asked > minShares) && max(asked*1024/1000, minShares) != g.Shares {
		requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	if _, ok := requests[corev1.ResourceMemory]; !ok {
		if memory, ok := s.AllocatedResources[corev1.ResourceMemory]; ok {
			requests[corev1.ResourceMemory] = memory.DeepCopy()
		}
	}
	if g.Quota > 0 && g.Period > 0 {
		if milli := g.Quota * 1000 / g.Period; milli > minMilliCPU || limits.Cpu().MilliValue() > minMilliCPU {
			limits[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
		}
	}
	if g.Memory > 0 {
		limits[corev1.ResourceMemory] = *resource.NewQuantity(g.Memory, resource.BinarySI)
	}
}
