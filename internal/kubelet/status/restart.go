// SPDX-License-Identifier: Apache-2.0

package status

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/podspec"
)

// reasonRestartingAll is that of containers which went because another one's
// end restarts the whole pod where it is (KEP-5532).
const (
	reasonRestartingAll  = "RestartingAllContainers"
	messageRestartingAll = "The container is removed because RestartAllContainers in place"
)

// Restarting says whether all containers of a pod are to be removed, to start
// from the first init container again.
func Restarting(s *corev1.PodStatus) bool {
	c := Condition(s.Conditions, corev1.AllContainersRestarting)
	return c != nil && c.Status == corev1.ConditionTrue
}

// restartsAll says whether such a restart is under way or due.
func restartsAll(in Input) bool {
	if Restarting(in.Old) {
		return true
	}
	for _, list := range [][]corev1.Container{in.Pod.Spec.InitContainers, in.Pod.Spec.Containers} {
		for i := range list {
			if seen := in.Actual.Container(list[i].Name); seen.Exited() && podspec.RestartsAll(&list[i], seen.ExitCode) {
				return true
			}
		}
	}
	return false
}

// emptied says whether the runtime has nothing left of the pod's containers.
func emptied(in Input) bool {
	for _, list := range [][]corev1.Container{in.Pod.Spec.InitContainers, in.Pod.Spec.Containers} {
		for i := range list {
			if in.Actual.Container(list[i].Name) != nil {
				return false
			}
		}
	}
	return true
}

// restarting is the condition AllContainersRestarting of a pod that can have it.
func restarting(in Input, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.AllContainersRestarting, Status: corev1.ConditionFalse}
	switch {
	case s.Phase == corev1.PodSucceeded:
		c.Reason = "PodCompleted"
	case s.Phase == corev1.PodFailed:
		c.Reason = "PodFailed"
	case restartsAll(in) && !emptied(in):
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "RestartAllContainersStarted", "container exited with restart policy rule"
	}
	return c
}

// removed shows a container that was removed to be started again.
func removed(s, old *corev1.ContainerStatus) {
	s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reasonRestartingAll, Message: messageRestartingAll}}
	s.LastTerminationState = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reasonRestartingAll,
		Message: messageRestartingAll, ExitCode: 137}}
	s.RestartCount = old.RestartCount + 1
}

// comesBack says whether a container that ended so will run again.
func comesBack(pod *corev1.Pod, c *corev1.Container, t *corev1.ContainerStateTerminated) bool {
	return t.Reason == reasonRestartingAll || podspec.ShouldRestart(pod, c, t.ExitCode)
}
