// SPDX-License-Identifier: Apache-2.0

package status

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/podspec"
)

// lose marks containers of which nobody knows how they ended, or whether they
// ever ran, as failed: nothing is to take them for a success.
func lose(list []corev1.ContainerStatus) {
	for i := range list {
		if c := &list[i]; c.State.Terminated == nil {
			c.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reasonStatusUnknown,
				Message: "The container could not be located when the pod was terminated", ExitCode: 137}}
			c.Ready = false
		}
	}
}

// everInitialized says whether the pod's ordinary containers may have run.
func everInitialized(pod *corev1.Pod, s *corev1.PodStatus) bool {
	if len(pod.Spec.InitContainers) == 0 {
		return true
	}
	for i := range s.ContainerStatuses {
		if c := &s.ContainerStatuses[i]; c.LastTerminationState.Terminated != nil || c.State.Waiting == nil {
			return true
		}
	}
	if len(s.InitContainerStatuses) == 0 {
		return false
	}
	last := &s.InitContainerStatuses[len(s.InitContainerStatuses)-1]
	if spec := podspec.Container(pod, last.Name); spec != nil && podspec.Sidecar(spec) {
		return last.State.Running != nil && last.Started != nil && *last.Started
	}
	ok := func(t *corev1.ContainerStateTerminated) bool { return t != nil && t.ExitCode == 0 }
	return ok(last.LastTerminationState.Terminated) || ok(last.State.Terminated)
}

// begun are the init containers up to the last that ever started, at least one.
func begun(list []corev1.ContainerStatus) []corev1.ContainerStatus {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].State.Waiting == nil || list[i].LastTerminationState.Terminated != nil {
			return list[:i+1]
		}
	}
	return list[:min(1, len(list))]
}
