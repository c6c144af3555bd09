// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	corev1 "k8s.io/api/core/v1"
)

// Node is one node and what is used on it. Plugins read it; only the Snapshot
// changes it.
type Node struct {
	// Slot is the node's place in every column.
	Slot   int32
	Name   string
	Object *corev1.Node

	// Allocatable is what pods may request in sum, Requested what they do.
	Allocatable, Requested Resources
	// AllowedPods bounds the number of pods.
	AllowedPods int64
	// NonZero is like Requested, with a default for containers that request no
	// CPU (in thousandths) or memory (in bytes); scores use it.
	NonZero NonZero

	// Pods are placed here, in no order.
	Pods []*Pod
	// Nominated are pending pods that preempted others here, or that are
	// expected here for another reason.
	Nominated []*Pod
	// Ports are the host ports in use; a port is listed once for each pod.
	Ports []HostPort

	// HardTaints keep pods away (NoSchedule and NoExecute), SoftTaints count
	// against the node (PreferNoSchedule).
	HardTaints, SoftTaints []corev1.Taint

	claims map[string]int
	images map[string]struct{}
}

// HasImage says whether the node reports an image of that name.
func (n *Node) HasImage(name string) bool {
	_, ok := n.images[name]
	return ok
}

// ClaimUsers returns how many pods here use the claim "namespace/name".
func (n *Node) ClaimUsers(key string) int { return n.claims[key] }

func (n *Node) setTaints(taints []corev1.Taint) {
	n.HardTaints, n.SoftTaints = nil, nil
	for i := range taints {
		switch taints[i].Effect {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute:
			n.HardTaints = append(n.HardTaints, taints[i])
		case corev1.TaintEffectPreferNoSchedule:
			n.SoftTaints = append(n.SoftTaints, taints[i])
		}
	}
}

func (n *Node) add(p *Pod) {
	p.at = int32(len(n.Pods))
	n.Pods = append(n.Pods, p)
	n.Requested.add(&p.Requests, 1)
	n.NonZero.MilliCPU += p.NonZero.MilliCPU
	n.NonZero.Memory += p.NonZero.Memory
	n.Ports = append(n.Ports, p.Ports...)
	for _, claim := range p.Claims {
		if n.claims == nil {
			n.claims = map[string]int{}
		}
		n.claims[claim]++
	}
}

func (n *Node) remove(p *Pod) {
	last := len(n.Pods) - 1
	moved := n.Pods[last]
	n.Pods[p.at] = moved
	moved.at = p.at
	n.Pods[last] = nil
	n.Pods = n.Pods[:last]
	n.Requested.add(&p.Requests, -1)
	n.NonZero.MilliCPU -= p.NonZero.MilliCPU
	n.NonZero.Memory -= p.NonZero.Memory
	for _, port := range p.Ports {
		for i := range n.Ports {
			if n.Ports[i] == port {
				k := len(n.Ports) - 1
				n.Ports[i] = n.Ports[k]
				n.Ports = n.Ports[:k]
				break
			}
		}
	}
	for _, claim := range p.Claims {
		if n.claims[claim]--; n.claims[claim] == 0 {
			delete(n.claims, claim)
		}
	}
}

// HostPort is a port of the host that a pod occupies.
type HostPort struct {
	IP       string
	Protocol corev1.Protocol
	Port     int32
}

// Conflicts says whether two pods with these ports exclude each other: a
// wildcard address takes the port on every address.
func (p HostPort) Conflicts(q HostPort) bool {
	return p.Port == q.Port && p.Protocol == q.Protocol &&
		(p.IP == q.IP || p.IP == anyAddress || q.IP == anyAddress)
}

const anyAddress = "0.0.0.0"
