// SPDX-License-Identifier: Apache-2.0

package zone

import (
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// service answers below svc.<domain>; labels are what stands before it.
func (z *Zone) service(name string, labels []string, kind uint16) Answer {
	if len(labels) == 0 {
		return Answer{Known: true}
	}
	namespace := labels[len(labels)-1]
	if !z.namespace(namespace) {
		return Answer{}
	}
	if len(labels) == 1 {
		return Answer{Known: true}
	}
	svc, err := z.services.Cached(namespace, labels[len(labels)-2])
	if err != nil {
		return Answer{}
	}
	before := labels[:len(labels)-2]
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return z.external(name, svc, before)
	}
	switch {
	case len(before) == 0:
		return z.whole(name, svc, kind)
	case len(before) == 1 && !strings.HasPrefix(before[0], "_"):
		return z.member(name, svc, before[0], kind)
	case len(before) == 1:
		return Answer{Known: z.hasProtocol(svc, before[0])}
	case len(before) == 2 && strings.HasPrefix(before[0], "_") && strings.HasPrefix(before[1], "_"):
		return z.port(name, svc, before[0][1:], before[1][1:], kind)
	}
	return Answer{}
}

func (z *Zone) external(name string, svc *corev1.Service, before []string) Answer {
	if len(before) > 0 {
		return Answer{}
	}
	target := dns.Fqdn(svc.Spec.ExternalName)
	return Answer{Known: true, Alias: target, Records: []dns.RR{&dns.CNAME{Hdr: z.header(name, dns.TypeCNAME), Target: target}}}
}

// whole answers the Service's own name.
func (z *Zone) whole(name string, svc *corev1.Service, kind uint16) Answer {
	ips := clusterIPs(svc)
	if len(ips) > 0 {
		a := Answer{Known: true, Records: z.addresses(name, kind, ips)}
		if kind == dns.TypeSRV {
			for _, p := range svc.Spec.Ports {
				a.Records = append(a.Records, z.srv(name, name, uint16(p.Port), 1))
			}
			a.Extra = z.both(name, ips)
		}
		return a
	}
	members := z.members(svc)
	a := Answer{Known: len(members) > 0}
	var all []string
	for _, m := range members {
		all = append(all, m.addresses...)
	}
	a.Records = z.addresses(name, kind, all)
	if kind == dns.TypeSRV {
		z.memberPorts(&a, name, svc, members, func(discoveryv1.EndpointPort) bool { return true })
	}
	return a
}

func (z *Zone) both(name string, ips []string) []dns.RR {
	return append(z.addresses(name, dns.TypeA, ips), z.addresses(name, dns.TypeAAAA, ips)...)
}

func (z *Zone) srv(name, target string, port uint16, of int) dns.RR {
	return &dns.SRV{Hdr: z.header(name, dns.TypeSRV), Priority: 0, Weight: uint16(100 / max(of, 1)), Port: port, Target: target}
}

func (z *Zone) hasProtocol(svc *corev1.Service, label string) bool {
	for _, p := range svc.Spec.Ports {
		if p.Name != "" && strings.EqualFold(string(p.Protocol), label[1:]) {
			return true
		}
	}
	return false
}

// port answers _port._protocol.<service>.
func (z *Zone) port(name string, svc *corev1.Service, port, protocol string, kind uint16) Answer {
	base := z.fqdn(svc)
	if ips := clusterIPs(svc); len(ips) > 0 {
		var a Answer
		for _, p := range svc.Spec.Ports {
			if p.Name == port && strings.EqualFold(string(p.Protocol), protocol) {
				a.Known = true
				if kind == dns.TypeSRV {
					a.Records = append(a.Records, z.srv(name, base, uint16(p.Port), 1))
				}
			}
		}
		if len(a.Records) > 0 {
			a.Extra = z.both(base, ips)
		}
		return a
	}
	var a Answer
	z.memberPorts(&a, name, svc, z.members(svc), func(p discoveryv1.EndpointPort) bool {
		return p.Name != nil && *p.Name == port && p.Protocol != nil && strings.EqualFold(string(*p.Protocol), protocol)
	})
	a.Known = len(a.Records) > 0
	if kind != dns.TypeSRV {
		a.Records, a.Extra = nil, nil
	}
	return a
}

func (z *Zone) fqdn(svc *corev1.Service) string {
	return svc.Name + "." + svc.Namespace + ".svc." + z.domain
}

// member is one ready endpoint of a Service.
type member struct {
	host      string
	addresses []string
	ports     []discoveryv1.EndpointPort
}

// members returns the ready endpoints of a Service.
func (z *Zone) members(svc *corev1.Service) []member {
	var out []member
	for _, slice := range z.slices.ByIndex(byService, svc.Namespace+"/"+svc.Name) {
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if e.Conditions.Ready != nil && !*e.Conditions.Ready || len(e.Addresses) == 0 {
				continue
			}
			out = append(out, member{host(e), e.Addresses, slice.Ports})
		}
	}
	return out
}

// host is the name of an endpoint below its Service.
func host(e *discoveryv1.Endpoint) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return *e.Hostname
	}
	if len(e.Addresses) == 0 {
		return ""
	}
	return strings.NewReplacer(".", "-", ":", "-").Replace(e.Addresses[0])
}

// memberPorts adds the SRV records of the endpoints' ports.
func (z *Zone) memberPorts(a *Answer, name string, svc *corev1.Service, members []member, wanted func(discoveryv1.EndpointPort) bool) {
	base := z.fqdn(svc)
	for _, m := range members {
		target, used := m.host+"."+base, false
		for _, p := range m.ports {
			if p.Port != nil && wanted(p) {
				a.Records = append(a.Records, z.srv(name, target, uint16(*p.Port), len(members)))
				used = true
			}
		}
		if used {
			a.Extra = append(a.Extra, z.both(target, m.addresses)...)
		}
	}
}

// member answers the name of one endpoint.
func (z *Zone) member(name string, svc *corev1.Service, hostname string, kind uint16) Answer {
	var a Answer
	for _, m := range z.members(svc) {
		if strings.EqualFold(m.host, hostname) {
			a.Known = true
			a.Records = append(a.Records, z.addresses(name, kind, m.addresses)...)
		}
	}
	return a
}

// Reverse answers who has an address: Services by their cluster addresses, and
// endpoints that have a name. ok is false for addresses the cluster does not
// know.
func (z *Zone) Reverse(name, address string) (records []dns.RR, ok bool) {
	pointer := func(target string) dns.RR {
		return &dns.PTR{Hdr: z.header(name, dns.TypePTR), Ptr: target}
	}
	for _, svc := range z.services.ByIndex(byAddress, address) {
		records = append(records, pointer(z.fqdn(svc)))
	}
	if len(records) > 0 {
		return records, true
	}
	seen := map[string]bool{}
	for _, slice := range z.slices.ByIndex(byAddress, address) {
		svc, err := z.services.Cached(slice.Namespace, slice.Labels[discoveryv1.LabelServiceName])
		if err != nil || len(clusterIPs(svc)) > 0 && !named(slice, address) {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if len(e.Addresses) == 0 || e.Addresses[0] != address {
				continue
			}
			if target := host(e) + "." + z.fqdn(svc); !seen[target] {
				seen[target] = true
				records = append(records, pointer(target))
			}
		}
	}
	return records, len(records) > 0
}

// named says whether the endpoint with the address has a host name of its own.
func named(slice *discoveryv1.EndpointSlice, address string) bool {
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		if len(e.Addresses) > 0 && e.Addresses[0] == address && e.Hostname != nil && *e.Hostname != "" {
			return true
		}
	}
	return false
}
