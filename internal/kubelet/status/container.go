// SPDX-License-Identifier: Apache-2.0

package status

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/podspec"
)

// ContainerID is a container's identity in the API: "runtime://id".
func ContainerID(runtimeName, id string) string { return runtimeName + "://" + id }

// BareID strips the runtime's name off a container's identity.
func BareID(id string) string {
	if _, rest, ok := strings.Cut(id, "://"); ok {
		return rest
	}
	return id
}

// containers makes the statuses of one list of containers. The order of steps
// is that of upstream (convertToAPIContainerStatuses): default, former status,
// runtime, reasons of failed starts.
func containers(in Input, former []corev1.ContainerStatus, specs []corev1.Container, hasInit, isInit bool) []corev1.ContainerStatus {
	if len(specs) == 0 {
		return nil
	}
	creating := reasonContainerCreating
	if hasInit {
		creating = reasonPodInitializing
	}
	statuses := make([]corev1.ContainerStatus, 0, len(specs))
	for i := range specs {
		c := &specs[i]
		old := find(former, c.Name)
		seen := latest(in.Actual, c.Name)
		s := initial(c, old, creating, in.RecursiveReadOnly)
		switch {
		case len(seen) > 0 || old == nil:
		case in.restarting && old.State.Waiting == nil:
			removed(&s, old)
		default:
			lost(in.Pod, &s, old, creating)
		}
		if len(seen) > 0 {
			s = convert(in, c, seen[0], old)
			s.VolumeMounts = mounts(c, in.RecursiveReadOnly)
			switch {
			case len(seen) > 1:
				s.LastTerminationState = convert(in, c, seen[1], old).State
			case old != nil && old.ContainerID != s.ContainerID && old.State.Terminated != nil:
				s.LastTerminationState.Terminated = old.State.Terminated
			case old != nil && old.LastTerminationState.Terminated != nil:
				s.LastTerminationState.Terminated = old.LastTerminationState.Terminated
			}
		}
		waits(in, c, &s, seen, isInit)
		statuses = append(statuses, s)
	}
	if !isInit {
		slices.SortFunc(statuses, func(a, b corev1.ContainerStatus) int { return cmp.Compare(a.Name, b.Name) })
	}
	return statuses
}

func find(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}

// latest are the newest two containers of a name, newest first.
func latest(pod *actual.Pod, name string) []*actual.Container {
	var found []*actual.Container
	if pod == nil {
		return nil
	}
	for _, c := range pod.Containers {
		if c.Name == name && len(found) < 2 {
			found = append(found, c)
		}
	}
	return found
}

// initial is the status of a container of which the runtime says nothing.
func initial(c *corev1.Container, old *corev1.ContainerStatus, creating string, rro bool) corev1.ContainerStatus {
	if old != nil && old.State.Terminated != nil {
		return *old.DeepCopy()
	}
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, VolumeMounts: mounts(c, rro),
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: creating}}}
	if old != nil {
		s.RestartCount = old.RestartCount
		s.LastTerminationState = *old.LastTerminationState.DeepCopy()
	}
	return s
}

// lost marks a container that ran and that the runtime has forgotten.
func lost(pod *corev1.Pod, s, old *corev1.ContainerStatus, creating string) {
	if old.State.Running == nil || s.State.Waiting == nil || s.State.Waiting.Reason != creating || s.LastTerminationState.Terminated != nil {
		return
	}
	s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
		Reason:   reasonStatusUnknown,
		Message:  "The container could not be located when the pod was deleted.  The container used to be Running",
		ExitCode: 137,
	}
	if pod.DeletionTimestamp == nil {
		s.RestartCount++
	}
}

// epoch is the time that is shown for none: a container that ended without having
// started.
func epoch(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

// convert makes the status of a container that the runtime has.
func convert(in Input, spec *corev1.Container, c *actual.Container, old *corev1.ContainerStatus) corev1.ContainerStatus {
	id := ContainerID(in.RuntimeName, c.ID)
	s := corev1.ContainerStatus{Name: c.Name, RestartCount: c.RestartCount, Image: c.Image, ImageID: c.ImageRef, ContainerID: id}
	if old != nil && old.RestartCount > s.RestartCount {
		s.RestartCount = old.RestartCount
	}
	switch {
	case c.Running():
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt)}
		if old != nil && old.ContainerID != id && old.State.Terminated != nil && old.RestartCount >= c.RestartCount {
			s.RestartCount = old.RestartCount + 1 // it was restarted with the whole pod
		}
	case c.Exited() && old != nil && old.ContainerID == id && old.State.Terminated != nil && old.State.Terminated.ContainerID == id:
		s.State.Terminated = old.State.Terminated // read once, never changes
	case c.Exited():
		s.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message,
			StartedAt: metav1.NewTime(epoch(c.StartedAt)), FinishedAt: metav1.NewTime(c.FinishedAt), ContainerID: id}
		if in.Message != nil {
			if m := in.Message(c); m != "" {
				if c.Message != "" {
					m = c.Message + ": " + m
				}
				s.State.Terminated.Message = m
			}
		}
	case c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN && old != nil && old.State.Running != nil:
		reason := reasonStatusUnknown
		if in.restarting {
			reason = reasonRestartingAll
		}
		s.State.Terminated = &corev1.ContainerStateTerminated{Reason: reason,
			Message: "The container could not be located when the pod was terminated", ExitCode: 137}
		s.RestartCount = old.RestartCount + 1
	default:
		s.State.Waiting = &corev1.ContainerStateWaiting{}
	}
	s.AllocatedResources = spec.Resources.Requests
	s.Resources = spec.Resources.DeepCopy()
	if c.Running() {
		applied(s.Resources, c.Resources)
	}
	if c.User.GetLinux() != nil {
		s.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: c.User.Linux.Uid, GID: c.User.Linux.Gid,
			SupplementalGroups: c.User.Linux.SupplementalGroups}}
	}
	return s
}

// Limits that the kernel cannot go below.
const minMilliCPU, minShares = 10, 2

// applied replaces the limits of a container by those that the runtime
// enforces. Values at the kernel's minimum are left as they were asked for.
func applied(r *corev1.ResourceRequirements, linux *runtimeapi.LinuxContainerResources) {
	if linux == nil {
		return
	}
	if r.Limits != nil && linux.CpuQuota > 0 && linux.CpuPeriod > 0 {
		milli := linux.CpuQuota * 1000 / linux.CpuPeriod
		if milli > minMilliCPU || r.Limits.Cpu().MilliValue() > minMilliCPU {
			keep(r.Limits, corev1.ResourceCPU, resource.NewMilliQuantity(milli, resource.DecimalSI))
		}
	}
	if r.Limits != nil && linux.MemoryLimitInBytes > 0 {
		keep(r.Limits, corev1.ResourceMemory, resource.NewQuantity(linux.MemoryLimitInBytes, resource.BinarySI))
	}
	if r.Requests != nil && linux.CpuShares > 0 {
		milli := (linux.CpuShares*1000 + 1023) / 1024
		if wanted := r.Requests.Cpu().MilliValue(); wanted*1024/1000 == linux.CpuShares {
			milli = wanted // shares round down
		}
		if linux.CpuShares > minShares || r.Requests.Cpu().MilliValue() > minShares {
			keep(r.Requests, corev1.ResourceCPU, resource.NewMilliQuantity(milli, resource.DecimalSI))
		}
	}
}

// keep sets a value that differs, and only where there was one.
func keep(list corev1.ResourceList, name corev1.ResourceName, value *resource.Quantity) {
	if have, ok := list[name]; ok && have.Cmp(*value) != 0 {
		list[name] = *value
	}
}

// waits shows a container that is to be started, and could not be, as waiting.
func waits(in Input, c *corev1.Container, s *corev1.ContainerStatus, seen []*actual.Container, isInit bool) {
	if isInit {
		if len(seen) > 0 && seen[0].Exited() && seen[0].ExitCode == 0 && !podspec.Sidecar(c) {
			return
		}
		if len(seen) == 0 && !podspec.Sidecar(c) && s.State.Waiting != nil && regularStarted(in) {
			s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed",
				Message: "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"}}
			return
		}
	}
	if !Restarts(in.Pod, c, in.Actual) || in.Waiting == nil {
		return
	}
	reason, ok := in.Waiting(c.Name)
	if !ok {
		return
	}
	if s.State.Terminated != nil {
		s.LastTerminationState = s.State
	}
	s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason.Reason, Message: reason.Message}}
}

// Restarts says whether a container that does not run is to be started.
func Restarts(pod *corev1.Pod, c *corev1.Container, a *actual.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	seen := a.Container(c.Name)
	switch {
	case seen == nil:
		return true
	case seen.Running():
		return false
	case !seen.Exited(): // created and never started, or unknown
		return true
	}
	return podspec.ShouldRestart(pod, c, seen.ExitCode)
}

func mounts(c *corev1.Container, rro bool) []corev1.VolumeMountStatus {
	var out []corev1.VolumeMountStatus
	for _, m := range c.VolumeMounts {
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled && rro {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			s.RecursiveReadOnly = &mode
		}
		out = append(out, s)
	}
	return out
}
