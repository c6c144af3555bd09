// SPDX-License-Identifier: Apache-2.0

package endpointslice

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/endpointslice/util"

	"kaji/internal/controller/podstate"
)

// group is endpoints of one family that have the same ports; its slices hold
// no others.
type group struct {
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
}

// wanted returns the groups of a Service, and why pods are in none. A family
// without endpoints has a group without ports, so that it has one empty slice.
func (c *Controller) wanted(svc *corev1.Service, pods []*corev1.Pod) (out []*group, skipped []error) {
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	for _, family := range families(svc) {
		byPorts := map[util.PortMapKey]*group{}
		for _, pod := range pods {
			addresses := addressesOf(pod, family)
			if len(addresses) == 0 || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
				continue
			}
			node, err := c.nodes.Cached("", pod.Spec.NodeName)
			if err != nil {
				if !svc.Spec.PublishNotReadyAddresses {
					skipped = append(skipped, fmt.Errorf("skipping Pod %s for Service %s/%s: Node %s Not Found", pod.Name, svc.Namespace, svc.Name, pod.Spec.NodeName))
					continue // until the node shows up
				}
				node = nil
			}
			ports := portsOf(svc, pod)
			id := util.NewPortMapKey(ports) // and in upstream's order
			g := byPorts[id]
			if g == nil {
				g = &group{family: family, ports: ports}
				byPorts[id] = g
				out = append(out, g)
			}
			g.endpoints = append(g.endpoints, endpoint(svc, pod, node, addresses))
		}
		if len(byPorts) == 0 {
			out = append(out, &group{family: family})
		}
	}
	return out, skipped
}

func families(svc *corev1.Service) []discoveryv1.AddressType {
	var out []discoveryv1.AddressType
	for _, f := range svc.Spec.IPFamilies {
		out = append(out, discoveryv1.AddressType(f))
	}
	if len(out) > 0 {
		return out
	}
	if ip, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil {
		if ip.Is4() {
			return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4}
		}
		return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv6}
	}
	return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}
}

func addressesOf(pod *corev1.Pod, family discoveryv1.AddressType) []string {
	var out []string
	for _, a := range podstate.Addresses(pod) {
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is4() == (family == discoveryv1.AddressTypeIPv4) {
			out = append(out, a)
		}
	}
	return out
}

func portsOf(svc *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if n, ok := podstate.TargetPort(pod, p); ok {
			out = append(out, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &n, AppProtocol: p.AppProtocol})
		}
	}
	return out
}

// portsID is equal for equal sets of ports.
func portsID(ports []discoveryv1.EndpointPort) string {
	ids := make([]string, len(ports))
	for i, p := range ports {
		ids[i] = fmt.Sprintf("%s/%s/%d/%s", value(p.Name), value(p.Protocol), value(p.Port), value(p.AppProtocol))
	}
	slices.Sort(ids)
	return strings.Join(ids, ",")
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func endpoint(svc *corev1.Service, pod *corev1.Pod, node *corev1.Node, addresses []string) discoveryv1.Endpoint {
	_, serving := podstate.Ready(pod)
	terminating := pod.DeletionTimestamp != nil
	ready := svc.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  addresses,
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		e.NodeName = &pod.Spec.NodeName
	}
	if node != nil {
		if zone := node.Labels[corev1.LabelTopologyZone]; zone != "" {
			e.Zone = &zone
		}
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == svc.Name {
		e.Hostname = &pod.Spec.Hostname
	}
	if d := value(svc.Spec.TrafficDistribution); d != "" && ready && !spreads(svc) {
		e.Hints = hints(d, &e)
	}
	return e
}

// hints asks proxies to stay near an endpoint (KEP-4444, KEP-3015).
func hints(distribution string, e *discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	h := &discoveryv1.EndpointHints{}
	if e.Zone != nil {
		h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
	}
	if distribution == corev1.ServiceTrafficDistributionPreferSameNode && e.NodeName != nil {
		h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
	}
	if h.ForZones == nil && h.ForNodes == nil {
		return nil
	}
	return h
}
