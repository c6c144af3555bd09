// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/podspec"
)

// owned are the conditions that the node agent writes; all others it keeps.
func owned(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReadyToStartContainers,
		corev1.PodResizeInProgress, corev1.PodResizePending, corev1.AllContainersRestarting:
		return true
	}
	return false
}

func conditions(in Input, s *corev1.PodStatus) {
	pod := in.Pod
	for _, c := range pod.Status.Conditions {
		if !owned(c.Type) && c.Type != corev1.DisruptionTarget {
			s.Conditions = append(s.Conditions, c)
		}
	}
	s.Conditions = append(s.Conditions, in.Resize...)
	// A disruption is noted once, where it was decided.
	for _, from := range [][]corev1.PodCondition{in.Old.Conditions, pod.Status.Conditions} {
		if c := Condition(from, corev1.DisruptionTarget); c != nil {
			s.Conditions = append(s.Conditions, *c)
			break
		}
	}
	add := func(t corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: pod.Generation}
		if ok {
			c.Status = corev1.ConditionTrue
		}
		s.Conditions = append(s.Conditions, c)
	}
	if problem := sandboxProblem(pod, in.Actual); problem != "" {
		add(corev1.PodReadyToStartContainers, false, "PodSandboxNotReady", problem)
	} else {
		add(corev1.PodReadyToStartContainers, true, "", "")
	}
	ok, reason, message := initialized(in, s)
	add(corev1.PodInitialized, ok, reason, message)
	ok, reason, message = containersReady(pod, s)
	gateOK, gateReason, gateMessage := ok, reason, message
	if ok {
		gateOK, gateReason, gateMessage = gates(pod, s)
	}
	add(corev1.PodReady, gateOK, gateReason, gateMessage)
	add(corev1.ContainersReady, ok, reason, message)
	add(corev1.PodScheduled, true, "", "")
	if podspec.CouldRestartAll(pod) {
		s.Conditions = append(s.Conditions, restarting(in, s))
	}
}

// sandboxProblem says why containers cannot start in the pod's sandbox, "" for
// no reason.
func sandboxProblem(pod *corev1.Pod, a *actual.Pod) string {
	newest := a.Sandbox()
	if newest == nil {
		return "no pod sandbox exists"
	}
	ready := 0
	for _, s := range a.Sandboxes {
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			ready++
		}
	}
	switch {
	case ready > 1:
		return "multiple pod sandboxes are ready and need to be reconciled"
	case newest.State != runtimeapi.PodSandboxState_SANDBOX_READY:
		return "pod sandbox is not ready"
	case (newest.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE) != pod.Spec.HostNetwork:
		return "network namespace mode changed and sandbox needs to be recreated"
	case !pod.Spec.HostNetwork && len(a.IPs()) == 0:
		return "pod sandbox has no IP address"
	}
	return ""
}

// Condition returns the condition of a type, nil for none.
func Condition(conditions []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range conditions {
		if conditions[i].Type == t {
			return &conditions[i]
		}
	}
	return nil
}

func initialized(in Input, s *corev1.PodStatus) (ok bool, reason, message string) {
	if s.ContainerStatuses == nil && s.InitContainerStatuses == nil && len(in.Pod.Spec.InitContainers) > 0 {
		return false, "UnknownContainerStatuses", ""
	}
	var unknown, incomplete []string
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		one := find(s.InitContainerStatuses, c.Name)
		switch {
		case one == nil:
			unknown = append(unknown, c.Name)
		case podspec.Sidecar(c):
			if one.Started == nil || !*one.Started {
				incomplete = append(incomplete, c.Name)
			}
		case !one.Ready:
			incomplete = append(incomplete, c.Name)
		}
	}
	if s.Phase == corev1.PodSucceeded && len(unknown) == 0 {
		return true, "PodCompleted", ""
	}
	for i := range s.ContainerStatuses {
		c := &s.ContainerStatuses[i]
		if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil {
			return true, "", ""
		}
	}
	if message = list("incomplete", unknown, incomplete); message != "" {
		// A pod that restarts where it is does not cease to be initialized.
		if c := Condition(in.Old.Conditions, corev1.PodInitialized); c != nil && c.Status == corev1.ConditionTrue {
			return true, "", ""
		}
		return false, "ContainersNotInitialized", message
	}
	return true, "", ""
}

func containersReady(pod *corev1.Pod, s *corev1.PodStatus) (ok bool, reason, message string) {
	if s.ContainerStatuses == nil && s.InitContainerStatuses == nil {
		return false, "UnknownContainerStatuses", ""
	}
	var unknown, unready []string
	check := func(name string, statuses []corev1.ContainerStatus) {
		if one := find(statuses, name); one == nil {
			unknown = append(unknown, name)
		} else if !one.Ready {
			unready = append(unready, name)
		}
	}
	for i := range pod.Spec.InitContainers {
		if podspec.Sidecar(&pod.Spec.InitContainers[i]) {
			check(pod.Spec.InitContainers[i].Name, s.InitContainerStatuses)
		}
	}
	for i := range pod.Spec.Containers {
		check(pod.Spec.Containers[i].Name, s.ContainerStatuses)
	}
	switch {
	case s.Phase == corev1.PodSucceeded && len(unknown) == 0:
		return false, "PodCompleted", ""
	case s.Phase == corev1.PodFailed:
		return false, "PodFailed", ""
	}
	if message = list("unready", unknown, unready); message != "" {
		return false, "ContainersNotReady", message
	}
	return true, "", ""
}

func list(what string, unknown, others []string) string {
	var parts []string
	if len(unknown) > 0 {
		parts = append(parts, fmt.Sprintf("containers with unknown status: %s", unknown))
	}
	if len(others) > 0 {
		parts = append(parts, fmt.Sprintf("containers with %s status: %s", what, others))
	}
	return strings.Join(parts, ", ")
}

func gates(pod *corev1.Pod, s *corev1.PodStatus) (ok bool, reason, message string) {
	var parts []string
	for _, gate := range pod.Spec.ReadinessGates {
		c := Condition(s.Conditions, gate.ConditionType)
		if c == nil {
			parts = append(parts, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(gate.ConditionType)))
		} else if c.Status != corev1.ConditionTrue {
			parts = append(parts, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", string(gate.ConditionType), c.Status))
		}
	}
	if len(parts) > 0 {
		return false, "ReadinessGatesNotReady", strings.Join(parts, ", ")
	}
	return true, "", ""
}
