// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// status makes the node's status; conditions of others are kept.
func (k *Keeper) status(ctx context.Context, node *corev1.Node) corev1.NodeStatus {
	s := *node.Status.DeepCopy()
	runtime := k.cfg.Runtime(ctx)
	s.Capacity, s.Allocatable = k.resources(k.former(node))
	if !k.cfg.ExternalCloud || len(s.Addresses) == 0 {
		s.Addresses = nil
		for _, a := range k.cfg.Addresses {
			s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
		}
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: k.cfg.Hostname})
	}
	s.DaemonEndpoints.KubeletEndpoint.Port = k.cfg.Port
	m, inUserNamespace := k.cfg.Machine, k.cfg.Machine.InUserNamespace
	s.NodeInfo = corev1.NodeSystemInfo{MachineID: m.MachineID, SystemUUID: m.SystemUUID, BootID: m.BootID, KernelVersion: m.Kernel,
		OSImage: m.OSImage, ContainerRuntimeVersion: runtime.Version, KubeletVersion: k.cfg.Version, OperatingSystem: m.OS, Architecture: m.Arch, RunningInUserNamespace: &inUserNamespace}
	if m.Swap > 0 {
		s.NodeInfo.Swap = &corev1.NodeSwapStatus{Capacity: &m.Swap}
	}
	s.RuntimeHandlers = runtime.Handlers
	s.DeclaredFeatures = declared()
	if runtime.SupplementalGroupsPolicy {
		yes := true
		s.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: &yes}
	}
	if k.cfg.Images != nil {
		s.Images = k.cfg.Images(ctx)
	}
	k.mu.Lock()
	s.VolumesInUse = k.mu.inUse
	stopping := k.mu.stopping
	k.mu.Unlock()
	k.conditions(&s, runtime.Problems, stopping)
	return s
}

// declared are the features of this agent without which certain pods and changes
// of pods cannot be served; the API server and the scheduler ask for them.
func declared() []string {
	return []string{"ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers",
		"RestartAllContainersOnContainerExits"}
}

// former are the capacities that a node is shown with; none is left of the
// extended ones where they are of an earlier life of the machine.
func (k *Keeper) former(node *corev1.Node) corev1.ResourceList {
	k.mu.Lock()
	known := k.mu.known
	k.mu.Unlock()
	if known || !k.cfg.Fresh {
		return node.Status.Capacity
	}
	out := node.Status.Capacity.DeepCopy()
	for name := range out {
		if strings.Contains(string(name), "/") {
			out[name] = *resource.NewQuantity(0, resource.DecimalSI)
		}
	}
	return out
}

// resources are what the machine has and what of it pods may have.
func (k *Keeper) resources(old corev1.ResourceList) (capacity, allocatable corev1.ResourceList) {
	m := k.cfg.Machine
	capacity = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewMilliQuantity(m.MilliCPU, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(m.Memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(m.Disk, resource.DecimalSI),
	}
	for size, bytes := range m.HugePages {
		capacity[corev1.ResourceName("hugepages-"+size)] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	for name, quantity := range old { // extended resources that others advertise stay
		if _, ok := capacity[name]; !ok && strings.Contains(string(name), "/") {
			capacity[name] = quantity
		}
	}
	var usable corev1.ResourceList
	if k.cfg.Resources != nil {
		var more corev1.ResourceList
		more, usable = k.cfg.Resources()
		maps.Copy(capacity, more)
	}
	allocatable = capacity.DeepCopy()
	maps.Copy(allocatable, usable)
	for name, reserved := range k.cfg.Reserved {
		if have, ok := allocatable[name]; ok {
			have.Sub(reserved)
			if have.Sign() < 0 {
				have.Set(0)
			}
			allocatable[name] = have
		}
	}
	memory := allocatable[corev1.ResourceMemory]
	for _, bytes := range m.HugePages { // their memory serves nothing else
		memory.Sub(*resource.NewQuantity(bytes, resource.BinarySI))
	}
	allocatable[corev1.ResourceMemory] = memory
	return capacity, allocatable
}

// Allocatable is what pods may have of the node.
func (k *Keeper) Allocatable() corev1.ResourceList {
	var old corev1.ResourceList
	if node := k.cfg.Node(); node != nil {
		old = node.Status.Capacity
	}
	_, allocatable := k.resources(old)
	return allocatable
}

func (k *Keeper) conditions(s *corev1.NodeStatus, problems []string, stopping string) {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	set := func(t corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) {
		c := condition(s.Conditions, t)
		if c == nil {
			s.Conditions = append(s.Conditions, corev1.NodeCondition{Type: t})
			c = &s.Conditions[len(s.Conditions)-1]
		}
		if c.Status != status {
			c.LastTransitionTime = now
		}
		c.Status, c.Reason, c.Message, c.LastHeartbeatTime = status, reason, message, now
	}
	pressure := map[corev1.NodeConditionType]bool{}
	if k.cfg.Pressure != nil {
		pressure = k.cfg.Pressure()
	}
	for _, p := range []struct {
		kind                       corev1.NodeConditionType
		badReason, bad, good, well string
	}{
		{corev1.NodeMemoryPressure, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		{corev1.NodeDiskPressure, "KubeletHasDiskPressure", "kubelet has disk pressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		{corev1.NodePIDPressure, "KubeletHasInsufficientPID", "kubelet has insufficient PID available", "KubeletHasSufficientPID", "kubelet has sufficient PID available"},
	} {
		if pressure[p.kind] {
			set(p.kind, corev1.ConditionTrue, p.badReason, p.bad)
		} else {
			set(p.kind, corev1.ConditionFalse, p.good, p.well)
		}
	}
	if k.cfg.NotReady != nil {
		problems = append(problems, k.cfg.NotReady()...)
	}
	if stopping != "" {
		problems = append(problems, stopping)
	}
	status := corev1.ConditionTrue
	switch len(problems) {
	case 0:
		set(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
	case 1:
		status = corev1.ConditionFalse
		set(corev1.NodeReady, status, "KubeletNotReady", problems[0])
	default:
		status = corev1.ConditionFalse
		set(corev1.NodeReady, status, "KubeletNotReady", fmt.Sprintf("[%s]", strings.Join(problems, ", ")))
	}
	k.mu.Lock()
	k.mu.ready = status
	k.mu.Unlock()
}
