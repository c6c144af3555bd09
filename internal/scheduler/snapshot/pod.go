// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"
)

// Pod is a pod with everything worked out that decisions ask for again and
// again. It is immutable but for the fields that the Snapshot keeps.
type Pod struct {
	Object   *corev1.Pod
	Requests Resources
	// NonZero is what the pod counts as in scores where it is placed, Asks while
	// a node is looked for.
	NonZero, Asks NonZero
	Ports         []HostPort
	// Claims are the keys "namespace/name" of the claims the pod uses.
	Claims []string
	// Affinity holds the parsed inter-pod terms, nil for none.
	Affinity *Affinity

	// NodeName is where the pod is placed, Nominated where it is expected.
	NodeName, Nominated string

	at int32 // place in Node.Pods
}

// Affinity are the parsed inter-pod terms of one pod.
type Affinity struct {
	Required, RequiredAnti   []Term
	Preferred, PreferredAnti []WeightedTerm
}

// WeightedTerm is a preferred term.
type WeightedTerm struct {
	Term
	Weight int64
}

// UID returns the pod's UID.
func (p *Pod) UID() types.UID { return p.Object.UID }

// Priority returns the pod's priority, 0 when none was given.
func (p *Pod) Priority() int32 {
	if v := p.Object.Spec.Priority; v != nil {
		return *v
	}
	return 0
}

// NewPod parses a pod. The error names what in its spec cannot be parsed; the
// pod returned beside it is usable and lacks those parts.
func (s *Snapshot) NewPod(obj *corev1.Pod) (*Pod, error) {
	p := &Pod{Object: obj}
	p.Requests, p.NonZero, p.Asks = s.requests(obj)
	p.Ports = HostPorts(obj)
	for i := range obj.Spec.Volumes {
		v := &obj.Spec.Volumes[i]
		switch {
		case v.PersistentVolumeClaim != nil:
			p.Claims = append(p.Claims, obj.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			p.Claims = append(p.Claims, obj.Namespace+"/"+ephemeral.VolumeClaimName(obj, v))
		}
	}
	var err error
	p.Affinity, err = parseAffinity(obj)
	return p, err
}

// sameUse says whether o, the same pod later, counts exactly as p does.
func (p *Pod) sameUse(o *Pod) bool {
	return p.NodeName == o.Object.Spec.NodeName && p.Requests.equal(&o.Requests) && p.NonZero == o.NonZero &&
		labels.Equals(p.Object.Labels, o.Object.Labels) && (p.Object.DeletionTimestamp == nil) == (o.Object.DeletionTimestamp == nil)
}

// HostPorts returns the ports of the host that a pod occupies.
func HostPorts(obj *corev1.Pod) []HostPort {
	var ports []HostPort
	collect := func(c *corev1.Container) {
		for i := range c.Ports {
			port := &c.Ports[i]
			if port.HostPort <= 0 {
				continue
			}
			hp := HostPort{IP: port.HostIP, Protocol: port.Protocol, Port: port.HostPort}
			if hp.IP == "" {
				hp.IP = anyAddress
			}
			if hp.Protocol == "" {
				hp.Protocol = corev1.ProtocolTCP
			}
			ports = append(ports, hp)
		}
	}
	for i := range obj.Spec.InitContainers {
		c := &obj.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			collect(c)
		}
	}
	for i := range obj.Spec.Containers {
		collect(&obj.Spec.Containers[i])
	}
	return ports
}

func parseAffinity(obj *corev1.Pod) (*Affinity, error) {
	a := obj.Spec.Affinity
	if a == nil || a.PodAffinity == nil && a.PodAntiAffinity == nil {
		return nil, nil
	}
	var out Affinity
	var failed error
	parse := func(t *corev1.PodAffinityTerm) (Term, bool) {
		term, err := NewTerm(obj, t)
		if err != nil {
			failed = fmt.Errorf("parsing pod affinity: %w", err)
		}
		return term, err == nil
	}
	required := func(in []corev1.PodAffinityTerm) (terms []Term) {
		for i := range in {
			if t, ok := parse(&in[i]); ok {
				terms = append(terms, t)
			}
		}
		return terms
	}
	preferred := func(in []corev1.WeightedPodAffinityTerm) (terms []WeightedTerm) {
		for i := range in {
			if in[i].Weight == 0 {
				continue
			}
			if t, ok := parse(&in[i].PodAffinityTerm); ok {
				terms = append(terms, WeightedTerm{t, int64(in[i].Weight)})
			}
		}
		return terms
	}
	if p := a.PodAffinity; p != nil {
		out.Required = required(p.RequiredDuringSchedulingIgnoredDuringExecution)
		out.Preferred = preferred(p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		out.RequiredAnti = required(p.RequiredDuringSchedulingIgnoredDuringExecution)
		out.PreferredAnti = preferred(p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return &out, failed
}
