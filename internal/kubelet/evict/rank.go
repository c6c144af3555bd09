// SPDX-License-Identifier: Apache-2.0

package evict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podresource "k8s.io/component-helpers/resource"
)

// Use is what a pod takes of the node.
type Use struct {
	// Memory is the working set; Disk and Inodes are ephemeral storage.
	Memory, Disk, Inodes, Processes uint64
	// Layers and LayerInodes are what of Disk and Inodes containers have written to
	// their images' file systems; Apart says that those are not the node's own. Split
	// says that images alone lie on another one.
	Layers, LayerInodes uint64
	Apart, Split        bool
	// Volumes and Containers are bytes on disk by name.
	Volumes, Containers map[string]uint64
	// ContainerMemory is the working set by name.
	ContainerMemory map[string]uint64
}

func (u Use) of(s Signal) uint64 {
	if u.Split && (s == ImageFsAvailable || s == ImageFsInodes) {
		return 0 // images are no pod's
	}
	switch s {
	case MemoryAvailable, AllocatableMemory:
		return u.Memory
	case PIDAvailable:
		return u.Processes
	case NodeFsInodes, ImageFsInodes, ContainerFsInodes:
		switch {
		case !u.Apart:
			return u.Inodes
		case s == ImageFsInodes:
			return u.LayerInodes
		}
		return u.Inodes - min(u.Inodes, u.LayerInodes)
	}
	switch {
	case !u.Apart:
		return u.Disk
	case s == ImageFsAvailable:
		return u.Layers
	}
	return u.Disk - min(u.Disk, u.Layers)
}

func request(pod *corev1.Pod, s Signal) uint64 {
	requests := podresource.PodRequests(pod, podresource.PodResourcesOptions{})
	q := requests[s.Resource()]
	return uint64(q.Value())
}

// Rank sorts pods, the first to be evicted first: those that take more than
// they requested, then by priority, then by how much more they take.
func Rank(pods []*corev1.Pod, use map[*corev1.Pod]Use, s Signal) {
	over := func(p *corev1.Pod) int64 { return int64(use[p].of(s)) - int64(request(p, s)) }
	first := func(b bool) int {
		if b {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		exceeds := 0
		if s != PIDAvailable && s.Resource() != "inodes" {
			exceeds = cmp.Compare(first(over(a) > 0), first(over(b) > 0))
		}
		return cmp.Or(exceeds, cmp.Compare(priority(a), priority(b)), cmp.Compare(over(b), over(a)))
	})
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

func quantity(bytes uint64) string {
	return resource.NewQuantity(int64(bytes), resource.BinarySI).String()
}

// Message is what an evicted pod's status says.
func Message(pod *corev1.Pod, use Use, t Threshold, seen Observation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: %v. ", t.Signal.Resource())
	a := seen[t.Signal]
	fmt.Fprintf(&b, "Threshold quantity: %s, available: %s. ", quantity(t.Value(a.Capacity)), quantity(a.Available))
	used := map[string]uint64{}
	switch t.Signal.Resource() {
	case corev1.ResourceMemory:
		used = use.ContainerMemory
	case corev1.ResourceEphemeralStorage:
		used = use.Containers
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		asked := c.Resources.Requests[t.Signal.Resource()]
		if n := used[c.Name]; n > uint64(asked.Value()) {
			fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of %v. ", c.Name, quantity(n), asked.String(), t.Signal.Resource())
		}
	}
	return b.String()
}
