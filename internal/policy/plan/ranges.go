// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// Range is the addresses from First to Last of one family.
type Range struct{ First, Last netip.Addr }

// Contains says whether an address lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

func rangeOf(cidr string) (Range, bool) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return Range{}, false
	}
	p = p.Masked()
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return Range{p.Addr(), end}, true
}

// blockRanges returns the block without its exceptions.
func blockRanges(b *networkingv1.IPBlock) []Range {
	whole, ok := rangeOf(b.CIDR)
	if !ok {
		return nil
	}
	var holes []Range
	for _, e := range b.Except {
		if hole, ok := rangeOf(e); ok && whole.Contains(hole.First) {
			holes = append(holes, hole)
		}
	}
	var out []Range
	next := whole.First
	for _, hole := range merge(holes) {
		if next.Less(hole.First) {
			out = append(out, Range{next, hole.First.Prev()})
		}
		if next = hole.Last.Next(); !next.IsValid() {
			return out
		}
	}
	if !whole.Last.Less(next) {
		out = append(out, Range{next, whole.Last})
	}
	return out
}

// merge returns the same addresses as disjoint ranges in order, with a gap
// between any two.
func merge(all []Range) []Range {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Range) int { return a.First.Compare(b.First) })
	var out []Range
	for _, r := range all {
		if n := len(out); n > 0 && out[n-1].First.BitLen() == r.First.BitLen() {
			if end := out[n-1].Last.Next(); !end.IsValid() || r.First.Compare(end) <= 0 {
				if out[n-1].Last.Less(r.Last) {
					out[n-1].Last = r.Last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}
