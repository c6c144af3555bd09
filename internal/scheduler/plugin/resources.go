// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"encoding/binary"
	"strings"

	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"kaji/internal/scheduler/snapshot"
)

// SignResources appends what a pod requests to a signature, and says whether
// that is all there is: huge pages of the pod as a whole count for filters and
// not for scores.
func SignResources(p *snapshot.Pod, key []byte) ([]byte, bool) {
	if r := p.Object.Spec.Resources; r != nil {
		for name := range r.Requests {
			if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
				return key, false
			}
		}
	}
	r := &p.Requests
	for _, v := range [...]int64{r.MilliCPU, r.Memory, r.EphemeralStorage, p.Asks.MilliCPU, p.Asks.Memory} {
		key = binary.AppendVarint(key, v)
	}
	for id, v := range r.Scalars {
		if v != 0 {
			key = binary.AppendVarint(binary.AppendVarint(key, int64(id)), v)
		}
	}
	return key, true
}

// Amount is one resource as a score looks at it: what the pod adds to what a
// node has in use.
type Amount struct {
	Weight int64

	name    corev1.ResourceName
	scalar  int
	nonZero bool
	adds    int64
	absent  bool
}

// Amounts prepares the resources of a score for a pod. nonZero counts
// containers without a request for CPU or memory with a default.
func Amounts(s *snapshot.Snapshot, p *snapshot.Pod, resources []configv1.ResourceSpec, nonZero bool) []Amount {
	out := make([]Amount, 0, len(resources))
	for _, spec := range resources {
		a := Amount{Weight: spec.Weight, name: corev1.ResourceName(spec.Name), nonZero: nonZero}
		switch {
		case a.name == corev1.ResourceCPU && nonZero:
			a.adds = p.Asks.MilliCPU
		case a.name == corev1.ResourceMemory && nonZero:
			a.adds = p.Asks.Memory
		case nonZero && p.Object.Spec.Resources != nil:
			q := snapshot.ContainerRequests(p.Object)[a.name]
			a.adds = q.Value()
		default:
			a.adds = s.Amount(&p.Requests, a.name)
		}
		switch a.name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		default:
			a.scalar = s.Scalar(a.name)
			// A node is not judged by an extended resource the pod does not use.
			a.absent = a.adds == 0 && scalarName(spec.Name)
		}
		out = append(out, a)
	}
	return out
}

// Adds returns what the pod itself requests.
func (a *Amount) Adds() int64 { return a.adds }

// On returns what would be requested with the pod on n, and of how much; a
// capacity of zero means that the resource has no say.
func (a *Amount) On(n *snapshot.Node) (requested, capacity int64) {
	switch a.name {
	case corev1.ResourceCPU:
		if a.nonZero {
			return n.NonZero.MilliCPU + a.adds, n.Allocatable.MilliCPU
		}
		return n.Requested.MilliCPU + a.adds, n.Allocatable.MilliCPU
	case corev1.ResourceMemory:
		if a.nonZero {
			return n.NonZero.Memory + a.adds, n.Allocatable.Memory
		}
		return n.Requested.Memory + a.adds, n.Allocatable.Memory
	case corev1.ResourceEphemeralStorage:
		return n.Requested.EphemeralStorage + a.adds, n.Allocatable.EphemeralStorage
	}
	if a.absent {
		return 0, 0
	}
	return n.Requested.Scalar(a.scalar) + a.adds, n.Allocatable.Scalar(a.scalar)
}

func scalarName(name string) bool {
	return strings.Contains(name, "/") || strings.HasPrefix(name, corev1.ResourceHugePagesPrefix) ||
		strings.HasPrefix(name, corev1.ResourceAttachableVolumesPrefix)
}
