// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/netfilter"
	"kaji/internal/proxy/plan"
)

// flows are the UDP frontends that changed, with what they do now, or all of
// them. UDP has no end: the kernel would go on sending a flow to where it was
// sent first, as long as packets come.
type flows struct {
	now map[plan.Frontend]plan.Target
	// own are the node's addresses, where its ports answer.
	own map[netip.Addr]bool
}

// add notes what a frontend does now, if that makes flows stale.
func (f *flows) add(at plan.Frontend, before, now plan.Target) {
	if at.Protocol != corev1.ProtocolUDP {
		return
	}
	if lost(before, now) || len(before.Backends) == 0 && len(now.Backends) > 0 {
		if f.now == nil {
			f.now = map[plan.Frontend]plan.Target{}
		}
		f.now[at] = now
	}
}

// lost says whether a frontend has a backend no more.
func lost(before, now plan.Target) bool {
	return slices.ContainsFunc(before.Backends, func(b plan.Backend) bool { return !slices.Contains(now.Backends, b) })
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter: it picks flows
// that would go elsewhere if they began now.
func (f *flows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	return f.stale(plan.Frontend{Addr: address(flow.Forward.DstIP), Protocol: corev1.ProtocolUDP, Port: flow.Forward.DstPort},
		plan.Backend{Addr: address(flow.Reverse.SrcIP), Port: flow.Reverse.SrcPort})
}

// stale says whether what was asked of an address and went to a backend would go
// elsewhere now.
func (f *flows) stale(at plan.Frontend, from plan.Backend) bool {
	to := at.Addr
	now, known := f.now[at]
	if !known {
		anywhere := netip.IPv4Unspecified()
		if to.Is6() {
			anywhere = netip.IPv6Unspecified()
		}
		if now, known = f.now[plan.Frontend{Addr: anywhere, Protocol: at.Protocol, Port: at.Port}]; !known || !f.own[to] {
			return false
		}
	}
	if slices.Contains(now.Backends, from) || slices.Contains(now.Local, from) {
		return false
	}
	translated := from.Addr != to || from.Port != at.Port
	// One that passes untranslated was seen before there was an endpoint.
	return translated || len(now.Backends) > 0
}

func address(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// forget deletes stale flows from the connection tracking table. It is read
// once for all of a family.
func (p *Proxy) forget(f flows) error {
	if len(f.now) == 0 {
		return nil
	}
	return netfilter.Within(p.c.NetNS, func() error {
		var err error
		if f.own, err = ownAddresses(); err != nil {
			return err
		}
		var errs []error
		for _, fam := range p.families {
			started, family := time.Now(), netlink.InetFamily(unix.AF_INET)
			if fam.v6 {
				family = unix.AF_INET6
			}
			n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, &f)
			p.metrics.forgot(fam.v6, started, n)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

func ownAddresses() (map[netip.Addr]bool, error) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]bool{}
	for _, a := range all {
		out[address(a.IP)] = true
	}
	return out, nil
}
