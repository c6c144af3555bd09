// SPDX-License-Identifier: Apache-2.0

// Package status tells the API server how pods fare. Generate is pure: it
// makes a pod's status from its specification, its former status and what the
// runtime has of it. A Manager keeps the newest status of each pod and writes
// what changed, coalescing changes that come faster than writes.
package status

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/podspec"
)

// Reasons that are not errors of a container's start.
const (
	reasonContainerCreating = "ContainerCreating"
	reasonPodInitializing   = "PodInitializing"
	reasonStatusUnknown     = "ContainerStatusUnknown"
)

// Reason is why a container waits.
type Reason struct{ Reason, Message string }

// Health is what probes say of running containers.
type Health interface {
	// Started says whether the container has started as its startup probe sees it.
	Started(pod *corev1.Pod, container, id string) bool
	// Ready says whether a started container is ready as its readiness probe sees it.
	Ready(pod *corev1.Pod, container, id string) bool
}

// Input is what Generate makes a status from.
type Input struct {
	Pod *corev1.Pod
	// Old is the status last made, or the API server's where none was.
	Old    *corev1.PodStatus
	Actual *actual.Pod
	// RuntimeName is the scheme of container ids, such as "containerd".
	RuntimeName string
	// Waiting tells for a container why it could not be started.
	Waiting func(container string) (Reason, bool)
	Health  Health
	// Terminal says that nothing of the pod will run again.
	Terminal bool
	HostIPs  []string
	// Message reads the termination message of a container that ended.
	Message func(*actual.Container) string
	// Fail overrides the phase with Failed: eviction and deadlines.
	Fail *Reason
	// Resize are the conditions of a resize in progress.
	Resize []corev1.PodCondition
	// RecursiveReadOnly says whether the runtime can make mounts so.
	RecursiveReadOnly bool
	// Group is what the pod's control group says; nil where there is none.
	Group *Group

	restarting bool // the whole pod is restarted where it is
}

// Generate makes the status of a pod.
func Generate(in Input) corev1.PodStatus {
	pod, old := in.Pod, in.Old
	in.restarting = podspec.CouldRestartAll(pod) && restartsAll(in)
	s := corev1.PodStatus{ObservedGeneration: pod.Generation, QOSClass: podspec.QOS(pod),
		NominatedNodeName: pod.Status.NominatedNodeName, StartTime: old.StartTime,
		ResourceClaimStatuses: pod.Status.ResourceClaimStatuses, ExtendedResourceClaimStatus: pod.Status.ExtendedResourceClaimStatus}
	for _, ip := range in.Actual.IPs() {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(s.PodIPs) == 0 && !in.Actual.Ready() {
		s.PodIPs = slices.Clone(old.PodIPs) // where an ended pod was
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
	initialized := len(pod.Spec.InitContainers) > 0
	s.ContainerStatuses = containers(in, old.ContainerStatuses, pod.Spec.Containers, initialized, false)
	s.InitContainerStatuses = containers(in, old.InitContainerStatuses, pod.Spec.InitContainers, initialized, true)
	var ephemeral []corev1.Container
	for i := range pod.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, *podspec.Ephemeral(&pod.Spec.EphemeralContainers[i]))
	}
	s.EphemeralContainerStatuses = containers(in, old.EphemeralContainerStatuses, ephemeral, initialized, false)

	s.Phase = phase(in, append(slices.Clone(s.ContainerStatuses), s.InitContainerStatuses...))
	for _, known := range []*corev1.PodStatus{old, &pod.Status} {
		if final(known.Phase) && !final(s.Phase) {
			s.Phase = known.Phase // final phases are never left
		}
	}
	if s.Phase == old.Phase {
		s.Reason, s.Message = old.Reason, old.Message
		if s.Reason == "" {
			s.Reason = pod.Status.Reason
		}
		if s.Message == "" {
			s.Message = pod.Status.Message
		}
	}
	if in.Fail != nil {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, in.Fail.Reason, in.Fail.Message
	}
	if final(pod.Status.Phase) {
		s.Phase = pod.Status.Phase
	}
	health(in, &s)
	conditions(in, &s)
	addresses(in, &s)
	podResources(in, &s)
	return s
}

func final(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// health sets Started and Ready of each container.
func health(in Input, s *corev1.PodStatus) {
	set := func(c *corev1.ContainerStatus) {
		id := BareID(c.ContainerID)
		started := c.State.Running != nil && in.Health.Started(in.Pod, c.Name, id)
		c.Started = &started
		c.Ready = started && in.Health.Ready(in.Pod, c.Name, id)
	}
	for i := range s.ContainerStatuses {
		set(&s.ContainerStatuses[i])
	}
	for i := range s.InitContainerStatuses {
		c := &s.InitContainerStatuses[i]
		set(c)
		spec := podspec.Container(in.Pod, c.Name)
		if spec != nil && !podspec.Sidecar(spec) {
			c.Ready = c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
		}
	}
}

func addresses(in Input, s *corev1.PodStatus) {
	if len(in.HostIPs) == 0 {
		return
	}
	s.HostIP = in.HostIPs[0]
	for _, ip := range in.HostIPs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	if in.Pod.Spec.HostNetwork && s.PodIP == "" {
		s.PodIP = in.HostIPs[0]
		for _, ip := range in.HostIPs {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
		}
	}
}

// phase sums the containers up; statuses are those of init and ordinary ones.
func phase(in Input, statuses []corev1.ContainerStatus) corev1.PodPhase {
	pod := in.Pod
	byName := func(name string) *corev1.ContainerStatus {
		for i := range statuses {
			if statuses[i].Name == name {
				return &statuses[i]
			}
		}
		return nil
	}
	pendingInit, pendingSidecar, failedInit := 0, 0, 0
	unknown, running, waiting, stopped, stoppedForGood, succeeded := 0, 0, 0, 0, 0, 0
	failed := func(c *corev1.Container, t *corev1.ContainerStateTerminated) {
		if t.ExitCode != 0 && !comesBack(pod, c, t) {
			failedInit++
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		s := byName(c.Name)
		sidecar := podspec.Sidecar(c)
		switch {
		case s == nil && sidecar:
			unknown++
		case s == nil:
			pendingInit++
		case s.State.Running != nil && sidecar:
			if s.Started == nil || !*s.Started {
				// Started is set later; the probes decide here as they do there.
				if !in.Health.Started(pod, s.Name, BareID(s.ContainerID)) {
					pendingSidecar++
				}
			}
			running++
		case s.State.Running != nil:
			pendingInit++
		case s.State.Terminated != nil && sidecar:
		case s.State.Terminated != nil:
			failed(c, s.State.Terminated)
		case s.LastTerminationState.Terminated != nil && sidecar:
		case s.LastTerminationState.Terminated != nil:
			failed(c, s.LastTerminationState.Terminated)
		case sidecar:
			pendingSidecar++
			waiting++
		default:
			pendingInit++
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		s := byName(c.Name)
		end := func(t *corev1.ContainerStateTerminated) {
			stopped++
			if !comesBack(pod, c, t) {
				stoppedForGood++
			}
		}
		switch {
		case s == nil:
			unknown++
		case s.State.Running != nil:
			running++
		case s.State.Terminated != nil:
			end(s.State.Terminated)
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case s.State.Waiting != nil && s.LastTerminationState.Terminated != nil:
			end(s.LastTerminationState.Terminated)
		case s.State.Waiting != nil:
			waiting++
		default:
			unknown++
		}
	}
	switch {
	case failedInit > 0:
		return corev1.PodFailed
	case pendingInit > 0, pendingSidecar > 0 && !regularStarted(in), waiting > 0:
		return corev1.PodPending
	case running > 0 && unknown == 0:
		return corev1.PodRunning
	case running == 0 && stopped > 0 && unknown == 0:
		if !(in.Terminal && !podspec.Static(pod)) && stopped != stoppedForGood {
			return corev1.PodRunning
		}
		if stopped == succeeded {
			return corev1.PodSucceeded
		}
		return corev1.PodFailed
	}
	return corev1.PodPending
}

// regularStarted says whether an ordinary container has run in the newest sandbox.
func regularStarted(in Input) bool {
	sandbox := in.Actual.Sandbox()
	if sandbox == nil {
		return false
	}
	for i := range in.Pod.Spec.Containers {
		for _, c := range in.Actual.Containers {
			if c.Name == in.Pod.Spec.Containers[i].Name && c.SandboxID == sandbox.Id && (c.Running() || c.Exited()) {
				return true
			}
		}
	}
	return false
}

func now() metav1.Time { return metav1.Now() }
