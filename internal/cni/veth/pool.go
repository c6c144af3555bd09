// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"fmt"
	"net/netip"
)

// pool hands out the addresses of one pod CIDR in rotation, so that an address
// given back rests as long as possible before its next pod.
type pool struct {
	cidr    netip.Prefix
	gateway netip.Addr
	last    netip.Addr
	taken   map[netip.Addr]struct{}
}

// newPool keeps the first address for the host and leaves out, in IPv4, the
// network's own and its broadcast address. The next address is the one behind that
// of after, or the highest taken one.
func newPool(cidr netip.Prefix, taken, after []netip.Addr) (*pool, error) {
	cidr = cidr.Masked()
	if cidr.Addr().BitLen()-cidr.Bits() < 2 {
		return nil, fmt.Errorf("pod CIDR %s is too small: it needs room for two addresses at least", cidr)
	}
	p := &pool{cidr: cidr, gateway: cidr.Addr().Next(), taken: map[netip.Addr]struct{}{}}
	p.last = p.gateway
	for _, ip := range taken {
		if cidr.Contains(ip) {
			p.taken[ip] = struct{}{}
			if p.last.Less(ip) {
				p.last = ip
			}
		}
	}
	for _, ip := range after {
		if cidr.Contains(ip) {
			p.last = ip
		}
	}
	return p, nil
}

// take leases the next free address.
func (p *pool) take() (netip.Addr, error) {
	start := p.last
	for ip := p.next(start); ; ip = p.next(ip) {
		if _, ok := p.taken[ip]; !ok {
			p.taken[ip], p.last = struct{}{}, ip
			return ip, nil
		}
		if ip == start {
			return netip.Addr{}, fmt.Errorf("all %d addresses of pod CIDR %s are in use", len(p.taken), p.cidr)
		}
	}
}

// next is the usable address behind ip, around the end of the range.
func (p *pool) next(ip netip.Addr) netip.Addr {
	ip = ip.Next()
	last := !ip.IsValid() || !p.cidr.Contains(ip) || ip.Is4() && !p.cidr.Contains(ip.Next())
	if last {
		return p.gateway.Next()
	}
	return ip
}

func (p *pool) release(ip netip.Addr) { delete(p.taken, ip) }
