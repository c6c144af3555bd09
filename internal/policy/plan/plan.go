// SPDX-License-Identifier: Apache-2.0

// Package plan decides which connections of a node's pods the cluster's
// NetworkPolicies allow. It is pure: package policy feeds it objects and hands
// each Delta to package kernel. It touches no network.
//
// A pod of the node that policies select in a direction is isolated in it: its
// address leads to a chain, the list of what is allowed. Pods with equal lists
// share a chain. Rules name peers by sets; there is one set for each distinct
// selector of a chain, so that a pod that comes or goes anywhere in the cluster
// changes elements of sets only.
package plan

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Key names a namespaced object.
type Key struct{ Namespace, Name string }

// Plan holds what is known of the cluster and what follows for the node. It is
// used by one goroutine.
type Plan struct {
	node       string
	namespaces map[string]labels.Set
	pods       map[string]map[Key]*pod // by namespace
	policies   map[string]map[Key]*policy
	sets       map[string]*set
	chains     map[string]*chain
	local      map[Key]*isolation
	early      map[Key]early
	directions [2]*verdicts
}

// early are the addresses of a pod whose status does not tell them yet.
type early struct {
	uid       types.UID
	addresses []netip.Addr
}

// pod is what policies look at of a pod.
type pod struct {
	key       Key
	uid       types.UID
	labels    labels.Set
	addresses []netip.Addr
	ports     []namedPort
	local     bool
}

type namedPort struct {
	name     string
	protocol corev1.Protocol
	port     uint16
}

func (p *pod) equal(o *pod) bool {
	return p.uid == o.uid && p.local == o.local && slices.Equal(p.addresses, o.addresses) && slices.Equal(p.ports, o.ports) && labels.Equals(p.labels, o.labels)
}

// New returns the plan of a node that knows nothing yet.
func New(node string) *Plan {
	p := &Plan{node: node, namespaces: map[string]labels.Set{}, pods: map[string]map[Key]*pod{}, policies: map[string]map[Key]*policy{},
		sets: map[string]*set{}, chains: map[string]*chain{}, local: map[Key]*isolation{}, early: map[Key]early{}}
	for d := range p.directions {
		p.directions[d] = newVerdicts()
	}
	// The set of the node's own pods is there always.
	p.acquire(&content{id: Local, kind: Addresses, local: true})
	return p
}

// SetNamespace takes over a namespace's labels.
func (p *Plan) SetNamespace(ns *corev1.Namespace) {
	if old, ok := p.namespaces[ns.Name]; ok && labels.Equals(old, ns.Labels) {
		return
	}
	p.namespaces[ns.Name] = ns.Labels
	p.refreshNamespace(ns.Name)
}

// DeleteNamespace forgets a namespace: no selector of namespaces matches it.
func (p *Plan) DeleteNamespace(name string) {
	delete(p.namespaces, name)
	p.refreshNamespace(name)
}

func (p *Plan) refreshNamespace(name string) {
	for _, pod := range p.pods[name] {
		p.refresh(pod.key, pod)
	}
}

// SetPod takes over a pod of any node. Pods that ended and pods in the network
// of their host are no subject of policies, and no peer either.
func (p *Plan) SetPod(object *corev1.Pod) {
	now := p.podOf(object)
	key := Key{object.Namespace, object.Name}
	if now == nil {
		p.DeletePod(key)
		return
	}
	if old := p.pods[key.Namespace][key]; old != nil && old.equal(now) {
		return
	}
	p.put(key, now)
}

func (p *Plan) put(key Key, now *pod) {
	insert(p.pods, key, now)
	p.refresh(key, now)
	p.isolate(key, now)
}

// SetAddresses tells the addresses of a pod of the node before its status does;
// they count for the pod of that UID until then.
func (p *Plan) SetAddresses(key Key, uid types.UID, addresses []netip.Addr) {
	p.early[key] = early{uid, addresses}
	if o := p.pods[key.Namespace][key]; o != nil && o.uid == uid && len(o.addresses) == 0 {
		now := *o
		now.addresses = addresses
		p.put(key, &now)
	}
}

// Knows says whether the plan holds a pod, of that UID.
func (p *Plan) Knows(key Key, uid types.UID) bool {
	o := p.pods[key.Namespace][key]
	return o != nil && o.uid == uid
}

// Isolates says whether policies isolate a pod of the node.
func (p *Plan) Isolates(key Key) bool {
	i := p.local[key]
	return i != nil && i.chains != [2]string{}
}

// DeletePod forgets a pod.
func (p *Plan) DeletePod(key Key) {
	delete(p.early, key)
	if p.pods[key.Namespace][key] == nil {
		return
	}
	remove(p.pods, key)
	p.refresh(key, nil)
	p.isolate(key, nil)
}

// SetPolicy takes over a policy, new or changed.
func (p *Plan) SetPolicy(object *networkingv1.NetworkPolicy) {
	key := Key{object.Namespace, object.Name}
	insert(p.policies, key, compile(object))
	p.isolateNamespace(key.Namespace)
}

// DeletePolicy forgets a policy.
func (p *Plan) DeletePolicy(key Key) {
	if p.policies[key.Namespace][key] == nil {
		return
	}
	remove(p.policies, key)
	p.isolateNamespace(key.Namespace)
}

func (p *Plan) isolateNamespace(namespace string) {
	for _, pod := range p.pods[namespace] {
		if pod.local {
			p.isolate(pod.key, pod)
		}
	}
}

// podOf returns nil for a pod that policies do not know.
func (p *Plan) podOf(o *corev1.Pod) *pod {
	if o.Spec.HostNetwork || o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
		return nil
	}
	out := &pod{key: Key{o.Namespace, o.Name}, uid: o.UID, labels: o.Labels, local: o.Spec.NodeName != "" && o.Spec.NodeName == p.node}
	for _, ip := range o.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			out.addresses = append(out.addresses, addr.Unmap())
		}
	}
	if addr, err := netip.ParseAddr(o.Status.PodIP); err == nil && len(out.addresses) == 0 {
		out.addresses = append(out.addresses, addr.Unmap())
	}
	if len(out.addresses) > 0 {
		delete(p.early, out.key)
	} else if told := p.early[out.key]; told.uid == out.uid {
		out.addresses = told.addresses
	}
	for _, c := range o.Spec.Containers {
		out.addPorts(c)
	}
	for _, c := range o.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out.addPorts(c)
		}
	}
	return out
}

func (p *pod) addPorts(c corev1.Container) {
	for _, port := range c.Ports {
		if port.Name != "" {
			p.ports = append(p.ports, namedPort{port.Name, protocolOf(port.Protocol), uint16(port.ContainerPort)})
		}
	}
}

func protocolOf(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

func insert[T any](to map[string]map[Key]T, key Key, v T) {
	if to[key.Namespace] == nil {
		to[key.Namespace] = map[Key]T{}
	}
	to[key.Namespace][key] = v
}

func remove[T any](from map[string]map[Key]T, key Key) {
	delete(from[key.Namespace], key)
	if len(from[key.Namespace]) == 0 {
		delete(from, key.Namespace)
	}
}
