// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	podresource "k8s.io/component-helpers/resource"

	"kaji/internal/scheduler/plugin"
)

// nodeActions says what changed in a node that may matter to waiting pods.
func nodeActions(old, node *corev1.Node) []plugin.Action {
	var out []plugin.Action
	add := func(changed bool, a plugin.Action) {
		if changed {
			out = append(out, a)
		}
	}
	same := equality.Semantic.DeepEqual
	add(old.Spec.Unschedulable && !node.Spec.Unschedulable || !same(old.Spec.Taints, node.Spec.Taints), plugin.UpdateNodeTaint)
	add(!same(old.Status.Allocatable, node.Status.Allocatable), plugin.UpdateNodeAllocatable)
	add(!same(old.Labels, node.Labels), plugin.UpdateNodeLabel)
	add(!sameConditions(old.Status.Conditions, node.Status.Conditions), plugin.UpdateNodeCondition)
	add(!same(old.Annotations, node.Annotations), plugin.UpdateNodeAnnotation)
	add(!same(old.Status.DeclaredFeatures, node.Status.DeclaredFeatures), plugin.UpdateNodeDeclaredFeature)
	return out
}

// sameConditions compares statuses, not heartbeats.
func sameConditions(a, b []corev1.NodeCondition) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Type != b[i].Type || a[i].Status != b[i].Status {
			return false
		}
	}
	return true
}

// podActions says what changed in a pod that may matter to waiting pods.
func podActions(old, pod *corev1.Pod) []plugin.Action {
	var out []plugin.Action
	same := equality.Semantic.DeepEqual
	if !same(old.Labels, pod.Labels) {
		out = append(out, plugin.UpdatePodLabel)
	}
	if scaledDown(old, pod) {
		out = append(out, plugin.UpdatePodScaleDown)
	}
	if len(old.Spec.SchedulingGates) > 0 && len(pod.Spec.SchedulingGates) == 0 {
		out = append(out, plugin.UpdatePodSchedulingGatesEliminated)
	}
	if len(old.Spec.Tolerations) != len(pod.Spec.Tolerations) {
		out = append(out, plugin.UpdatePodToleration)
	}
	if !same(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses) ||
		!same(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus) {
		out = append(out, plugin.UpdatePodGeneratedResourceClaim)
	}
	if len(out) == 0 {
		out = append(out, plugin.UpdateOther)
	}
	return out
}

func scaledDown(old, pod *corev1.Pod) bool {
	if old.Generation == pod.Generation && pod.Generation != 0 && equality.Semantic.DeepEqual(old.Status.ContainerStatuses, pod.Status.ContainerStatuses) {
		return false
	}
	opts := podresource.PodResourcesOptions{UseStatusResources: true}
	now := podresource.PodRequests(pod, opts)
	for name, before := range podresource.PodRequests(old, opts) {
		if after, ok := now[name]; !ok || before.MilliValue() > after.MilliValue() {
			return true
		}
	}
	return false
}
