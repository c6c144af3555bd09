// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/netfilter"
	"kaji/internal/proxy/plan"
)

// stale describes the UDP flows the kernel would go on sending to the wrong
// place: UDP has no end, so a flow lives as long as packets come.
type stale struct {
	frontend plan.Frontend
	// backend is where the flows go; the zero Addr means nowhere: they were
	// seen before the Service had an endpoint and pass untranslated.
	backend netip.Addr
}

// staleFlows compares what a frontend did with what it does now.
func staleFlows(f plan.Frontend, before, now plan.Target) []stale {
	if f.Protocol != corev1.ProtocolUDP {
		return nil
	}
	if len(before.Backends) == 0 {
		if len(now.Backends) > 0 {
			return []stale{{frontend: f}}
		}
		return nil
	}
	var out []stale
	for _, b := range before.Backends {
		if !slices.Contains(now.Backends, b) {
			out = append(out, stale{f, b.Addr})
		}
	}
	return out
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP || flow.Forward.DstPort != s.frontend.Port {
		return false
	}
	if !s.frontend.IsNodePort() && !equal(flow.Forward.DstIP, s.frontend.Addr) {
		return false
	}
	if s.backend.IsValid() {
		return equal(flow.Reverse.SrcIP, s.backend)
	}
	return flow.Reverse.SrcIP.Equal(flow.Forward.DstIP) && flow.Reverse.SrcPort == flow.Forward.DstPort
}

func equal(ip net.IP, addr netip.Addr) bool {
	got, ok := netip.AddrFromSlice(ip)
	return ok && got.Unmap() == addr
}

// forget deletes flows from the connection tracking table. It is read once for
// all of a family.
func forget(netns int, all []stale) error {
	return netfilter.Within(netns, func() error { return forgetHere(all) })
}

func forgetHere(all []stale) error {
	var errs []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		var filters []netlink.CustomConntrackFilter
		for _, s := range all {
			if s.frontend.Addr.Is6() == (family == unix.AF_INET6) {
				filters = append(filters, s)
			}
		}
		if len(filters) > 0 {
			_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filters...)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
