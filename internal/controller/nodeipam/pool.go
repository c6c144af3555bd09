// SPDX-License-Identifier: Apache-2.0

package nodeipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"kaji/internal/controller/meter"
)

// pool is one range, cut into parts of equal size.
type pool struct {
	cidr   netip.Prefix
	out    []netip.Prefix // none of them is given to nodes
	mask   int
	taken  map[netip.Prefix]string // by node
	byNode map[string]netip.Prefix
	next   netip.Prefix
}

func newPool(cidr netip.Prefix, mask int) (*pool, error) {
	if mask < cidr.Bits() || mask > cidr.Addr().BitLen() || mask-cidr.Bits() > 16 {
		return nil, fmt.Errorf("a node's part of %s cannot be a /%d: it must be between /%d and /%d", cidr, mask, cidr.Bits(), min(cidr.Bits()+16, cidr.Addr().BitLen()))
	}
	return &pool{cidr: cidr.Masked(), mask: mask, taken: map[netip.Prefix]string{}, byNode: map[string]netip.Prefix{},
		next: netip.PrefixFrom(cidr.Masked().Addr(), mask)}, nil
}

// hold marks a part as a node's; ranges of other pools are none of its business.
func (p *pool) hold(part netip.Prefix, node string) {
	if part.Bits() == p.mask && p.cidr.Contains(part.Addr()) {
		p.taken[part.Masked()], p.byNode[node] = node, part.Masked()
	}
}

// release says whether the node had a part.
func (p *pool) release(node string) bool {
	part, ok := p.byNode[node]
	if ok {
		delete(p.byNode, node)
		delete(p.taken, part)
	}
	return ok
}

// observe tells how full the pool is.
func (p *pool) observe(ctx context.Context) {
	meter.From(ctx).RangeUsed(p.cidr.String(), len(p.taken), 1<<(p.mask-p.cidr.Bits()))
}

// take gives the next free part, going round, and says how many it passed by;
// less than none when the node had one already.
func (p *pool) take(node string) (part netip.Prefix, tries int, err error) {
	if part, ok := p.byNode[node]; ok {
		return part, -1, nil
	}
	for tries := range 1 << (p.mask - p.cidr.Bits()) {
		part := p.next
		p.next = p.after(part)
		if _, ok := p.taken[part]; !ok && !slices.ContainsFunc(p.out, part.Overlaps) {
			p.taken[part], p.byNode[node] = node, part
			return part, tries, nil
		}
	}
	return netip.Prefix{}, 0, fmt.Errorf("CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range %s", p.cidr)
}

// after is the part behind another, around the end of the range.
func (p *pool) after(part netip.Prefix) netip.Prefix {
	bytes := part.Addr().AsSlice()
	carry := uint16(1) << (7 - (p.mask-1)%8)
	for i := (p.mask - 1) / 8; i >= 0 && carry > 0; i-- {
		sum := uint16(bytes[i]) + carry
		bytes[i] = byte(sum)
		carry = sum >> 8
	}
	addr, _ := netip.AddrFromSlice(bytes)
	if next := netip.PrefixFrom(addr, p.mask); p.cidr.Contains(addr) {
		return next
	}
	return netip.PrefixFrom(p.cidr.Addr(), p.mask)
}
