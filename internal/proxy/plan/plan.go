// SPDX-License-Identifier: Apache-2.0

// Package plan decides, for one Service and its endpoints, what a node does with
// packets to each of the Service's addresses. It is pure: package proxy feeds it
// objects and hands the result to package kernel. It touches no network.
package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// Frontend is an address a Service answers at. A node port has an unspecified
// Addr of its family: every address of the node.
type Frontend struct {
	Addr     netip.Addr
	Protocol corev1.Protocol
	Port     uint16
}

// IsNodePort says whether the frontend is a port of the node itself.
func (f Frontend) IsNodePort() bool { return f.Addr.IsUnspecified() }

// Backend is an endpoint traffic is sent to.
type Backend struct {
	Addr netip.Addr
	Port uint16
}

// Masquerade says whose packets get the node's source address.
type Masquerade int

// The masquerading rules: packets from outside the pod network (ClusterIPs),
// all packets (external addresses with policy Cluster), or none (policy Local,
// which keeps the client's address).
const (
	MasqueradeOutside Masquerade = iota
	MasqueradeAll
	MasqueradeNone
)

// Target says what happens to packets to a Frontend.
type Target struct {
	Masquerade Masquerade
	// Backends are balanced over; with none the packet is refused, or dropped
	// when Drop is set.
	Backends []Backend
	// PreferLocal sends packets from outside the pod network to Local only,
	// and drops them when Local is empty (externalTrafficPolicy Local).
	PreferLocal bool
	Local       []Backend
	// Drop drops instead of refusing when there is no backend: another node
	// may have one (traffic policy Local).
	Drop bool
	// Affinity keeps a client address with its backend for so long; zero does not.
	Affinity time.Duration
	// Sources are the client ranges let in; nil lets all in.
	Sources []netip.Prefix
}

// Equal says whether two targets treat packets alike.
func (t Target) Equal(o Target) bool {
	return t.Masquerade == o.Masquerade && t.PreferLocal == o.PreferLocal && t.Drop == o.Drop && t.Affinity == o.Affinity &&
		slices.Equal(t.Backends, o.Backends) && slices.Equal(t.Local, o.Local) && slices.Equal(t.Sources, o.Sources)
}

// Node is what the plan must know of its node.
type Node struct {
	Name, Zone string
	// IPv4 and IPv6 say which families the node programs.
	IPv4, IPv6 bool
}

// proxyNameLabel hands a Service to another proxy.
const proxyNameLabel = "service.kubernetes.io/service-proxy-name"

// Handles says whether a Service is balanced here at all.
func Handles(svc *corev1.Service) bool {
	_, foreign := svc.Labels[proxyNameLabel]
	return !foreign && svc.Spec.Type != corev1.ServiceTypeExternalName &&
		svc.Spec.ClusterIP != "" && svc.Spec.ClusterIP != corev1.ClusterIPNone
}

// Service computes the frontends of a Service on a node.
func Service(node Node, svc *corev1.Service, slicesOf []*discoveryv1.EndpointSlice) map[Frontend]Target {
	out := map[Frontend]Target{}
	if !Handles(svc) {
		return out
	}
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		for _, v6 := range []bool{false, true} {
			if v6 && !node.IPv6 || !v6 && !node.IPv4 || !hasFamily(svc, v6) {
				continue
			}
			frontends(out, svc, port, v6, choose(node, svc, port, v6, slicesOf))
		}
	}
	return out
}

func hasFamily(svc *corev1.Service, v6 bool) bool {
	if len(svc.Spec.IPFamilies) == 0 {
		ip, err := netip.ParseAddr(svc.Spec.ClusterIP)
		return err == nil && ip.Is6() == v6
	}
	want := corev1.IPv4Protocol
	if v6 {
		want = corev1.IPv6Protocol
	}
	return slices.Contains(svc.Spec.IPFamilies, want)
}

// choice holds the endpoints of one port: all that may be used from anywhere,
// and those on this node.
type choice struct {
	cluster, local []Backend
}

func frontends(out map[Frontend]Target, svc *corev1.Service, port *corev1.ServicePort, v6 bool, c choice) {
	var affinity time.Duration
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		affinity = 3 * time.Hour
		if cfg := svc.Spec.SessionAffinityConfig; cfg != nil && cfg.ClientIP != nil && cfg.ClientIP.TimeoutSeconds != nil {
			affinity = time.Duration(*cfg.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	internal := Target{Masquerade: MasqueradeOutside, Backends: c.cluster, Affinity: affinity}
	if ptr.Deref(svc.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster) == corev1.ServiceInternalTrafficPolicyLocal {
		internal.Backends, internal.Drop = c.local, len(c.local) == 0 && len(c.cluster) > 0
	}
	external := Target{Masquerade: MasqueradeAll, Backends: c.cluster, Affinity: affinity}
	if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		external.Masquerade, external.PreferLocal, external.Local = MasqueradeNone, true, c.local
	}
	add := func(ip string, number int32, t Target) {
		if addr, err := netip.ParseAddr(ip); err == nil && addr.Is6() == v6 && number > 0 {
			out[Frontend{addr.Unmap(), port.Protocol, uint16(number)}] = t
		}
	}
	for _, ip := range clusterIPs(svc) {
		add(ip, port.Port, internal)
	}
	for _, ip := range svc.Spec.ExternalIPs {
		add(ip, port.Port, external)
	}
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		balanced := external
		balanced.Sources = sourceRanges(svc, v6)
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			if ptr.Deref(ingress.IPMode, corev1.LoadBalancerIPModeVIP) == corev1.LoadBalancerIPModeVIP {
				add(ingress.IP, port.Port, balanced)
			}
		}
	}
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer || svc.Spec.Type == corev1.ServiceTypeNodePort {
		any := netip.IPv4Unspecified()
		if v6 {
			any = netip.IPv6Unspecified()
		}
		add(any.String(), port.NodePort, external)
	}
}

func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	return []string{svc.Spec.ClusterIP}
}

// sourceRanges returns the ranges of one family, or nil when all are let in.
// Ranges of the other family only still restrict this one.
func sourceRanges(svc *corev1.Service, v6 bool) []netip.Prefix {
	all := svc.Spec.LoadBalancerSourceRanges
	if text := strings.TrimSpace(svc.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]); len(all) == 0 && text != "" {
		all = strings.Split(text, ",") // the field's forerunner, as clouds read it
	}
	if len(all) == 0 {
		return nil
	}
	ranges := []netip.Prefix{}
	for _, r := range all {
		if p, err := netip.ParsePrefix(strings.TrimSpace(r)); err == nil && p.Addr().Is6() == v6 {
			if p.Bits() == 0 {
				return nil
			}
			ranges = append(ranges, p.Masked())
		}
	}
	return ranges
}

// candidate is an endpoint with what the choice depends on.
type candidate struct {
	Backend
	ready, terminating, local bool
	hints                     *discoveryv1.EndpointHints
}

// choose picks the endpoints of a port as upstream does: the ready ones, or
// when there are none the serving ones that are terminating (KEP-1669), near
// ones when hints say so (KEP-2433).
func choose(node Node, svc *corev1.Service, port *corev1.ServicePort, v6 bool, slicesOf []*discoveryv1.EndpointSlice) choice {
	all := candidates(node, svc, port, v6, slicesOf)
	return choice{
		cluster: backends(near(node, usable(all, func(candidate) bool { return true }))),
		local:   backends(usable(all, func(c candidate) bool { return c.local })),
	}
}

func candidates(node Node, svc *corev1.Service, port *corev1.ServicePort, v6 bool, slicesOf []*discoveryv1.EndpointSlice) []candidate {
	family := discoveryv1.AddressTypeIPv4
	if v6 {
		family = discoveryv1.AddressTypeIPv6
	}
	var all []candidate
	for _, slice := range slicesOf {
		if slice.AddressType != family {
			continue
		}
		number, ok := portNumber(slice, port)
		if !ok {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			ready := ptr.Deref(e.Conditions.Ready, true) || svc.Spec.PublishNotReadyAddresses
			draining := ptr.Deref(e.Conditions.Serving, ready) && ptr.Deref(e.Conditions.Terminating, false)
			if len(e.Addresses) == 0 || !ready && !draining {
				continue
			}
			addr, err := netip.ParseAddr(e.Addresses[0])
			if err != nil {
				continue
			}
			all = append(all, candidate{
				Backend: Backend{addr.Unmap(), number}, ready: ready, terminating: draining && !ready,
				local: ptr.Deref(e.NodeName, "") == node.Name, hints: e.Hints,
			})
		}
	}
	return all
}

func portNumber(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) (uint16, bool) {
	for _, p := range slice.Ports {
		if ptr.Deref(p.Name, "") == port.Name && ptr.Deref(p.Protocol, corev1.ProtocolTCP) == port.Protocol && p.Port != nil {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

func usable(all []candidate, keep func(candidate) bool) []candidate {
	var ready, draining []candidate
	for _, c := range all {
		switch {
		case !keep(c):
		case c.ready:
			ready = append(ready, c)
		case c.terminating:
			draining = append(draining, c)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return draining
}

// near applies hints for this node, then for its zone, if every endpoint has
// such hints and some match; otherwise all are used.
func near(node Node, all []candidate) []candidate {
	byNode := func(h *discoveryv1.EndpointHints) (has, match bool) {
		return len(h.ForNodes) > 0, slices.ContainsFunc(h.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == node.Name })
	}
	byZone := func(h *discoveryv1.EndpointHints) (has, match bool) {
		return len(h.ForZones) > 0, node.Zone != "" && slices.ContainsFunc(h.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == node.Zone })
	}
	for _, hinted := range []func(*discoveryv1.EndpointHints) (bool, bool){byNode, byZone} {
		if kept, ok := matching(all, hinted); ok {
			return kept
		}
	}
	return all
}

func matching(all []candidate, hinted func(*discoveryv1.EndpointHints) (has, match bool)) ([]candidate, bool) {
	var kept []candidate
	for _, c := range all {
		if c.hints == nil {
			return nil, false
		}
		has, match := hinted(c.hints)
		if !has {
			return nil, false
		}
		if match {
			kept = append(kept, c)
		}
	}
	return kept, len(kept) > 0
}

// backends sorts and removes duplicates (an endpoint may stand in two slices).
func backends(all []candidate) []Backend {
	out := make([]Backend, len(all))
	for i, c := range all {
		out[i] = c.Backend
	}
	slices.SortFunc(out, func(a, b Backend) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(out)
}

// LocalReady counts the endpoints on the node, for the health check of a
// Service with externalTrafficPolicy Local.
func LocalReady(node Node, slicesOf []*discoveryv1.EndpointSlice) int {
	seen := map[string]bool{}
	for _, slice := range slicesOf {
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if ptr.Deref(e.Conditions.Ready, true) && ptr.Deref(e.NodeName, "") == node.Name && len(e.Addresses) > 0 {
				seen[e.Addresses[0]] = true
			}
		}
	}
	return len(seen)
}
