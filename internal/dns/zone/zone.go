// SPDX-License-Identifier: Apache-2.0

// Package zone answers questions about the cluster's own names as the DNS
// specification for Kubernetes 1.1.0 has it, from the informers of Services,
// EndpointSlices and namespaces. It reads and never writes; package dns asks it.
package zone

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"kaji/internal/client"
)

// version is the specification's, as dns-version.<domain> tells it.
const version = "1.1.0"

const (
	byAddress = "dns.address"
	byService = "dns.service"
)

// Config says what the zone is like.
type Config struct {
	Client client.Interface
	// Domain is the cluster's domain, without dots at its ends.
	Domain string
	// TTL is that of the answers, in seconds.
	TTL uint32
	// Pods lets names of pods made of their addresses be answered
	// (a-b-c-d.namespace.pod.<domain>).
	Pods bool
}

// Zone answers from the informers. It is safe for concurrent use.
type Zone struct {
	domain     string // with dots at its end
	ttl        uint32
	pods       bool
	services   client.Typed[*corev1.Service]
	slices     client.Typed[*discoveryv1.EndpointSlice]
	namespaces client.Typed[*corev1.Namespace]
}

// Informers are what a Zone reads, shared by all zones of one client.
type Informers struct {
	services   client.Typed[*corev1.Service]
	slices     client.Typed[*discoveryv1.EndpointSlice]
	namespaces client.Typed[*corev1.Namespace]
}

// NewInformers prepares the informers; the client starts them.
func NewInformers(c client.Interface) *Informers {
	i := &Informers{client.For[*corev1.Service](c), client.For[*discoveryv1.EndpointSlice](c), client.For[*corev1.Namespace](c)}
	i.services.AddIndex(byAddress, func(s *corev1.Service) []string { return clusterIPs(s) })
	i.slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string {
		if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
			return []string{s.Namespace + "/" + name}
		}
		return nil
	})
	i.slices.AddIndex(byAddress, func(s *discoveryv1.EndpointSlice) []string {
		var out []string
		for i := range s.Endpoints {
			out = append(out, s.Endpoints[i].Addresses...)
		}
		return out
	})
	i.namespaces.Informer()
	return i
}

// HasSynced says whether everything was read once.
func (i *Informers) HasSynced() bool {
	return i.services.HasSynced() && i.slices.HasSynced() && i.namespaces.HasSynced()
}

// New returns a zone over the informers.
func New(i *Informers, cfg Config) *Zone {
	return &Zone{domain: dns.Fqdn(strings.ToLower(cfg.Domain)), ttl: cfg.TTL, pods: cfg.Pods,
		services: i.services, slices: i.slices, namespaces: i.namespaces}
}

// Answer is what the zone knows about a question.
type Answer struct {
	// Known says that the name exists, perhaps with records of other types only.
	Known   bool
	Records []dns.RR
	Extra   []dns.RR
	// Alias is where an ExternalName leads; its records come from elsewhere.
	Alias string
}

// Covers says whether a name belongs to the zone, the reverse ones excepted.
func (z *Zone) Covers(name string) bool { return dns.IsSubDomain(z.domain, name) }

// Lookup answers a question; name is fully qualified and in lower case.
func (z *Zone) Lookup(name string, kind uint16) Answer {
	rest := strings.TrimSuffix(strings.TrimSuffix(name, z.domain), ".")
	if rest == "" {
		return z.apex(name, kind)
	}
	labels := strings.Split(rest, ".")
	last := len(labels) - 1
	switch {
	case rest == "dns-version":
		return z.text(name, kind)
	case rest == "ns.dns":
		return Answer{Known: true}
	case labels[last] == "svc":
		return z.service(name, labels[:last], kind)
	case labels[last] == "pod":
		return z.pod(name, labels[:last], kind)
	}
	return Answer{}
}

func (z *Zone) header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: z.ttl}
}

// SOA is the record that negative answers carry.
func (z *Zone) SOA() dns.RR {
	return &dns.SOA{Hdr: z.header(z.domain, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: z.ttl}
}

func (z *Zone) apex(name string, kind uint16) Answer {
	a := Answer{Known: true}
	switch kind {
	case dns.TypeSOA:
		a.Records = []dns.RR{z.SOA()}
	case dns.TypeNS:
		a.Records = []dns.RR{&dns.NS{Hdr: z.header(name, dns.TypeNS), Ns: "ns.dns." + z.domain}}
	}
	return a
}

func (z *Zone) text(name string, kind uint16) Answer {
	a := Answer{Known: true}
	if kind == dns.TypeTXT {
		a.Records = []dns.RR{&dns.TXT{Hdr: z.header(name, dns.TypeTXT), Txt: []string{version}}}
	}
	return a
}

// namespace says whether a namespace exists.
func (z *Zone) namespace(name string) bool {
	_, err := z.namespaces.Cached("", name)
	return err == nil
}

// addresses makes A or AAAA records of those addresses that are of the type.
func (z *Zone) addresses(name string, kind uint16, ips []string) []dns.RR {
	var out []dns.RR
	for _, ip := range ips {
		addr, err := netip.ParseAddr(ip)
		switch {
		case err != nil:
		case kind == dns.TypeA && addr.Is4():
			out = append(out, &dns.A{Hdr: z.header(name, dns.TypeA), A: addr.AsSlice()})
		case kind == dns.TypeAAAA && addr.Is6():
			out = append(out, &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: addr.AsSlice()})
		}
	}
	return out
}

// pod answers names made of addresses.
func (z *Zone) pod(name string, labels []string, kind uint16) Answer {
	switch {
	case len(labels) == 0:
		return Answer{Known: true}
	case !z.pods || len(labels) > 2 || !z.namespace(labels[len(labels)-1]):
		return Answer{}
	case len(labels) == 1:
		return Answer{Known: true}
	}
	ip := strings.ReplaceAll(labels[0], "-", ".")
	if strings.Count(labels[0], "-") != 3 || !isAddress(ip) {
		if ip = strings.ReplaceAll(labels[0], "-", ":"); !isAddress(ip) {
			return Answer{}
		}
	}
	return Answer{Known: true, Records: z.addresses(name, kind, []string{ip})}
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// clusterIPs returns a Service's addresses, none for headless ones.
func clusterIPs(s *corev1.Service) []string {
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 && s.Spec.ClusterIP != "" {
		ips = []string{s.Spec.ClusterIP}
	}
	return slices.DeleteFunc(slices.Clone(ips), func(ip string) bool { return ip == corev1.ClusterIPNone })
}
