// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// regs writes rule fragments of one family over the 32-bit registers (8 to 23):
// keys grow from key, a backend found is at found, its port behind it.
type regs struct {
	key, found     uint32
	width          uint32 // registers an address takes
	source, target uint32 // offsets of the addresses in the network header
	length         uint32
	v6             bool
}

func (k *Kernel) regs() regs {
	if k.c.IPv6 {
		return regs{key: 8, found: 18, width: 4, source: 8, target: 24, length: 16, v6: true}
	}
	return regs{key: 8, found: 18, width: 1, source: 12, target: 16, length: 4}
}

func (r regs) saddr(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: r.source, Len: r.length}
}

func (r regs) daddr(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: r.target, Len: r.length}
}

// port loads protocol . destination port.
func (r regs) port(reg uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Payload{DestRegister: reg + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// frontend loads destination address . protocol . port.
func (r regs) frontend() []expr.Any {
	return append([]expr.Any{r.daddr(r.key)}, r.port(r.key+r.width)...)
}

// nodePort loads the unspecified address . protocol . port.
func (r regs) nodePort() []expr.Any {
	return append([]expr.Any{&expr.Immediate{Register: r.key, Data: make([]byte, r.length)}}, r.port(r.key+r.width)...)
}

// client loads source . destination . protocol . port.
func (r regs) client() []expr.Any {
	load := []expr.Any{r.saddr(r.key), r.daddr(r.key + r.width)}
	return append(load, r.port(r.key+2*r.width)...)
}

func (r regs) dnat() expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if r.v6 {
		family = unix.NFPROTO_IPV6
	}
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: r.found, RegAddrMax: r.found,
		RegProtoMin: r.found + r.width, RegProtoMax: r.found + r.width, Specified: true}
}

func (r regs) lookup(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: r.key, DestRegister: r.found, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}
}

// fromPods matches packets whose source is a pod address, or is not.
func (r regs) fromPods(pods *nftables.Set, invert bool) []expr.Any {
	return []expr.Any{
		r.saddr(r.key),
		&expr.Lookup{SourceRegister: r.key, SetName: pods.Name, SetID: pods.ID, Invert: invert},
	}
}

// mark asks for masquerading after routing.
func (r regs) mark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: r.key},
		&expr.Bitwise{SourceRegister: r.key, DestRegister: r.key, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^uint32(masqueradeMark)), Xor: binaryutil.NativeEndian.PutUint32(masqueradeMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: r.key},
	}
}

// masqueradeMarked masquerades what was marked and takes the mark away, so
// that it cannot act again on an encapsulated packet.
func (r regs) masqueradeMarked() []expr.Any {
	bit := binaryutil.NativeEndian.PutUint32(masqueradeMark)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: r.key},
		&expr.Bitwise{SourceRegister: r.key, DestRegister: r.key + 1, Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: r.key + 1, Data: bit},
		&expr.Bitwise{SourceRegister: r.key, DestRegister: r.key, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^uint32(masqueradeMark)), Xor: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: r.key},
		&expr.Masq{FullyRandom: true},
	}
}

// masqueradeHairpin masquerades what was sent to its own sender.
func (r regs) masqueradeHairpin(hairpin *nftables.Set) []expr.Any {
	return []expr.Any{
		r.saddr(r.key), r.daddr(r.key + r.width),
		&expr.Lookup{SourceRegister: r.key, SetName: hairpin.Name, SetID: hairpin.ID},
		&expr.Masq{FullyRandom: true},
	}
}

// refuse answers with "port unreachable", as if nobody listened.
func (r regs) refuse() []expr.Any {
	code := uint8(unix.NFT_REJECT_ICMPX_PORT_UNREACH)
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: code}}
}

// loopback leaves packets to loopback addresses alone: their source cannot be
// routed off the node.
func (r regs) loopback() []expr.Any {
	if r.v6 {
		return []expr.Any{
			r.daddr(r.key),
			&expr.Cmp{Op: expr.CmpOpEq, Register: r.key, Data: netip.IPv6Loopback().AsSlice()},
			&expr.Verdict{Kind: expr.VerdictReturn},
		}
	}
	return []expr.Any{
		&expr.Payload{DestRegister: r.key, Base: expr.PayloadBaseNetworkHeader, Offset: r.target, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: r.key, Data: []byte{127}},
		&expr.Verdict{Kind: expr.VerdictReturn},
	}
}

// interval returns the two elements of an interval set that hold a prefix.
func interval(p netip.Prefix) []nftables.SetElement {
	first := p.Masked().Addr()
	elements := []nftables.SetElement{{Key: first.AsSlice()}}
	if end, ok := after(p); ok {
		elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return elements
}

// after returns the first address behind a prefix; ok is false at the end of
// the address space.
func after(p netip.Prefix) (netip.Addr, bool) {
	bytes := p.Masked().Addr().AsSlice()
	bits := p.Bits()
	if bits == 0 {
		return netip.Addr{}, false
	}
	i := (bits - 1) / 8
	carry := uint16(1) << (7 - (bits-1)%8)
	for ; i >= 0; i-- {
		sum := uint16(bytes[i]) + carry
		bytes[i] = byte(sum)
		if carry = sum >> 8; carry == 0 {
			addr, ok := netip.AddrFromSlice(bytes)
			return addr, ok
		}
	}
	return netip.Addr{}, false
}

// hash64 is FNV-1a, for short stable chain names.
func hash64(data ...[]byte) uint64 {
	h := uint64(14695981039346656037)
	for _, d := range data {
		for _, b := range binary.BigEndian.AppendUint32(d, uint32(len(d))) {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}
	return h
}
