// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podresource "k8s.io/component-helpers/resource"
)

// What a container without a request counts as in scores.
const (
	DefaultMilliCPU = 100
	DefaultMemory   = 200 * 1024 * 1024
)

// NonZero are requests for scores.
type NonZero struct{ MilliCPU, Memory int64 }

// Resources are amounts: CPU in thousandths, everything else in units or
// bytes. Scalars are the other resources, by the number Scalar gives them;
// a slice shorter than that number means zero.
type Resources struct {
	MilliCPU, Memory, EphemeralStorage int64
	Scalars                            []int64
}

// Scalar returns an amount by its number.
func (r *Resources) Scalar(id int) int64 {
	if id < len(r.Scalars) {
		return r.Scalars[id]
	}
	return 0
}

// Amount returns the amount of the named resource.
func (s *Snapshot) Amount(r *Resources, name corev1.ResourceName) int64 {
	switch name {
	case corev1.ResourceCPU:
		return r.MilliCPU
	case corev1.ResourceMemory:
		return r.Memory
	case corev1.ResourceEphemeralStorage:
		return r.EphemeralStorage
	}
	if id, ok := s.scalars[name]; ok {
		return r.Scalar(id)
	}
	return 0
}

func (r *Resources) add(d *Resources, sign int64) {
	r.MilliCPU += sign * d.MilliCPU
	r.Memory += sign * d.Memory
	r.EphemeralStorage += sign * d.EphemeralStorage
	if len(d.Scalars) > len(r.Scalars) {
		r.Scalars = append(r.Scalars, make([]int64, len(d.Scalars)-len(r.Scalars))...)
	}
	for i, v := range d.Scalars {
		r.Scalars[i] += sign * v
	}
}

func (r *Resources) equal(o *Resources) bool {
	if r.MilliCPU != o.MilliCPU || r.Memory != o.Memory || r.EphemeralStorage != o.EphemeralStorage {
		return false
	}
	for i := range max(len(r.Scalars), len(o.Scalars)) {
		if r.Scalar(i) != o.Scalar(i) {
			return false
		}
	}
	return true
}

// Scalar returns the number of a resource other than CPU, memory and
// ephemeral storage; it gives out a new one for a new name.
func (s *Snapshot) Scalar(name corev1.ResourceName) int {
	id, ok := s.scalars[name]
	if !ok {
		id = len(s.scalars)
		s.scalars[name] = id
		s.scalarName = append(s.scalarName, name)
	}
	return id
}

// ScalarName returns the name that Scalar numbered.
func (s *Snapshot) ScalarName(id int) corev1.ResourceName { return s.scalarName[id] }

// Resources converts a list; the number of pods is left out.
func (s *Snapshot) Resources(list corev1.ResourceList) Resources {
	var r Resources
	s.addList(&r, list)
	return r
}

func (s *Snapshot) addList(r *Resources, list corev1.ResourceList) {
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU += q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory += q.Value()
		case corev1.ResourceEphemeralStorage:
			r.EphemeralStorage += q.Value()
		case corev1.ResourcePods:
		default:
			id := s.Scalar(name)
			if id >= len(r.Scalars) {
				r.Scalars = append(r.Scalars, make([]int64, id+1-len(r.Scalars))...)
			}
			r.Scalars[id] += q.Value()
		}
	}
}

// requests works out what a pod uses of a node: in fact, as it counts in scores
// once it is placed, and as it counts while a node is looked for. The two
// differ, as upstream's do, where the pod has resources of its own: they count
// only once it is placed.
func (s *Snapshot) requests(pod *corev1.Pod) (r Resources, placed, asks NonZero) {
	if plain(pod) {
		var z NonZero
		for i := range pod.Spec.Containers {
			list := pod.Spec.Containers[i].Resources.Requests
			s.addList(&r, list)
			if q, ok := list[corev1.ResourceCPU]; ok {
				z.MilliCPU += q.MilliValue()
			} else {
				z.MilliCPU += DefaultMilliCPU
			}
			if q, ok := list[corev1.ResourceMemory]; ok {
				z.Memory += q.Value()
			} else {
				z.Memory += DefaultMemory
			}
		}
		return r, z, z
	}
	opts := podresource.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	requests := podresource.PodRequests(pod, opts)
	r = s.Resources(requests)
	opts.NonMissingContainerRequests = missing()
	if podresource.IsPodLevelRequestsSet(pod) {
		for name := range requests {
			delete(opts.NonMissingContainerRequests, name)
		}
	}
	z := s.Resources(podresource.PodRequests(pod, opts))
	own := s.Resources(ContainerRequests(pod))
	return r, NonZero{z.MilliCPU, z.Memory}, NonZero{own.MilliCPU, own.Memory}
}

// ContainerRequests returns what the containers of a pod request, with the
// defaults where they request no CPU or memory. What is written for the pod as
// a whole has no say in it.
func ContainerRequests(pod *corev1.Pod) corev1.ResourceList {
	return podresource.PodRequests(pod, podresource.PodResourcesOptions{NonMissingContainerRequests: missing(), SkipPodLevelResources: true})
}

func missing() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(DefaultMilliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(DefaultMemory, resource.BinarySI),
	}
}

// plain says that a pod's requests are the sum of its containers': nothing
// else has a say (init containers, overhead, pod-level resources, a resize).
func plain(pod *corev1.Pod) bool {
	if len(pod.Spec.InitContainers) > 0 || len(pod.Spec.Overhead) > 0 || pod.Spec.Resources != nil {
		return false
	}
	return !UsesStatus(pod)
}

// UsesStatus says that what a pod uses is not written in its spec alone.
func UsesStatus(pod *corev1.Pod) bool {
	for i := range pod.Status.ContainerStatuses {
		if cs := &pod.Status.ContainerStatuses[i]; cs.Resources != nil || cs.AllocatedResources != nil {
			return true
		}
	}
	return pod.Status.Resources != nil || len(pod.Status.AllocatedResources) > 0
}
