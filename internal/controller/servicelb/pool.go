// SPDX-License-Identifier: Apache-2.0

package servicelb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Pool is a range of addresses that may be given to Services, both ends
// included. Make it with ParsePools.
type Pool struct {
	text        string
	first, last netip.Addr
}

// String is the pool as it was written.
func (p Pool) String() string { return p.text }

// ParsePools reads pools: "192.0.2.64/28", "192.0.2.10-192.0.2.20" or a single
// address, of either family. Network and broadcast address of an IPv4 prefix
// are left out. Pools must not overlap.
func ParsePools(texts []string) ([]Pool, error) {
	var out []Pool
	for _, text := range texts {
		p, err := parsePool(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		for _, o := range out {
			if p.contains(o.first) || o.contains(p.first) {
				return nil, fmt.Errorf("the load balancer pools %s and %s overlap", o, p)
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func parsePool(text string) (Pool, error) {
	wrong := fmt.Errorf("the load balancer pool %q is neither an address, a range (192.0.2.10-192.0.2.20) nor a prefix (192.0.2.64/28)", text)
	from, to, isRange := strings.Cut(text, "-")
	if isRange {
		first, err1 := netip.ParseAddr(strings.TrimSpace(from))
		last, err2 := netip.ParseAddr(strings.TrimSpace(to))
		if err1 != nil || err2 != nil || first.Is4() != last.Is4() || last.Less(first) {
			return Pool{}, wrong
		}
		return usable(text, first, last)
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return usable(text, addr, addr)
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return Pool{}, wrong
	}
	first := prefix.Masked().Addr()
	bytes := first.AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	if first.Is4() && prefix.Bits() < 31 {
		first, last = first.Next(), last.Prev()
	}
	return usable(text, first, last)
}

// usable refuses what no Service can answer at.
func usable(text string, first, last netip.Addr) (Pool, error) {
	for _, a := range []netip.Addr{first, last} {
		if a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return Pool{}, fmt.Errorf("the load balancer pool %s: %s is no address of a Service", text, a)
		}
	}
	return Pool{text, first, last}, nil
}

func (p Pool) contains(a netip.Addr) bool {
	return a.Is4() == p.first.Is4() && p.first.Compare(a) <= 0 && a.Compare(p.last) <= 0
}

// private says whether the pool's addresses are for private networks.
func (p Pool) private() bool { return p.first.IsPrivate() }

// free returns the first address of the pool that is not taken.
func (p Pool) free(taken func(netip.Addr) bool) (netip.Addr, bool) {
	for a := p.first; ; a = a.Next() {
		if !taken(a) {
			return a, true
		}
		if a == p.last {
			return netip.Addr{}, false
		}
	}
}

func names(pools []Pool) string {
	var out []string
	for _, p := range pools {
		out = append(out, p.text)
	}
	return strings.Join(out, ", ")
}

func poolOf(pools []Pool, a netip.Addr) (Pool, bool) {
	i := slices.IndexFunc(pools, func(p Pool) bool { return p.contains(a) })
	if i < 0 {
		return Pool{}, false
	}
	return pools[i], true
}
