// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	corev1 "k8s.io/api/core/v1"
)

// Action is what happened to an object, as a set of bits.
type Action int64

// The actions, as upstream has them.
const (
	Add Action = 1 << iota
	Delete

	UpdateNodeAllocatable
	UpdateNodeLabel
	UpdateNodeTaint
	UpdateNodeCondition
	UpdateNodeAnnotation
	UpdateNodeDeclaredFeature

	UpdatePodLabel
	UpdatePodScaleDown
	UpdatePodToleration
	UpdatePodSchedulingGatesEliminated
	UpdatePodGeneratedResourceClaim

	UpdateOther

	All = 1<<iota - 1

	// Update is any change of an existing object.
	Update = All &^ (Add | Delete)
)

var actionNames = map[Action]string{
	Add: "Add", Delete: "Delete", UpdateNodeAllocatable: "UpdateNodeAllocatable", UpdateNodeLabel: "UpdateNodeLabel",
	UpdateNodeTaint: "UpdateNodeTaint", UpdateNodeCondition: "UpdateNodeCondition", UpdateNodeAnnotation: "UpdateNodeAnnotation",
	UpdateNodeDeclaredFeature: "UpdateNodeDeclaredFeature", UpdatePodLabel: "UpdatePodLabel", UpdatePodScaleDown: "UpdatePodScaleDown",
	UpdatePodToleration: "UpdatePodToleration", UpdatePodSchedulingGatesEliminated: "UpdatePodSchedulingGatesEliminated",
	UpdatePodGeneratedResourceClaim: "UpdatePodGeneratedResourceClaim", UpdateOther: "Update", Update: "Update", All: "All",
}

// Resource is the kind of object an event is about.
type Resource string

// The resources, as upstream labels them. AssignedPod are pods on a node,
// UnscheduledPod pending ones, TargetPod the waiting pod itself.
const (
	AssignedPod           Resource = "AssignedPod"
	UnscheduledPod        Resource = "UnscheduledPod"
	TargetPod             Resource = "TargetPod"
	Node                  Resource = "Node"
	PersistentVolume      Resource = "PersistentVolume"
	PersistentVolumeClaim Resource = "PersistentVolumeClaim"
	CSINode               Resource = "storage.k8s.io/CSINode"
	CSIDriver             Resource = "storage.k8s.io/CSIDriver"
	VolumeAttachment      Resource = "storage.k8s.io/VolumeAttachment"
	CSIStorageCapacity    Resource = "storage.k8s.io/CSIStorageCapacity"
	StorageClass          Resource = "storage.k8s.io/StorageClass"
	ResourceClaim         Resource = "resource.k8s.io/ResourceClaim"
	ResourceSlice         Resource = "resource.k8s.io/ResourceSlice"
	DeviceClass           Resource = "resource.k8s.io/DeviceClass"
	PodGroup              Resource = "scheduling.k8s.io/PodGroup"
)

// Event is something that happened in the cluster.
type Event struct {
	Resource Resource
	Action   Action
}

// Label is the event's name in metrics and logs.
func (e Event) Label() string { return string(e.Resource) + actionNames[e.Action] }

// Matches says whether e, which happened, is among what want waits for.
func (want Event) Matches(e Event) bool {
	return want.Resource == e.Resource && want.Action&e.Action != 0
}

// EventHint is an event that may make a rejected pod schedulable.
type EventHint struct {
	Event
	// Worth says whether it may help this pod; nil means that it may help any.
	// before and after are the object, nil where it did not or does not exist.
	Worth func(pod *corev1.Pod, before, after any) bool
}
