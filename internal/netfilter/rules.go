// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// MasqueradeMark is the packet mark that asks for masquerading after routing;
// it is upstream's bit, so that rules of others that know it keep working.
const MasqueradeMark = 0x4000

// Rules writes rule fragments of one family over the 32-bit registers (8 to
// 23): keys grow from Key, a value found is at Found, its port behind it.
type Rules struct {
	Key, Found uint32
	// Width is the number of registers an address takes.
	Width          uint32
	source, target uint32 // offsets of the addresses in the network header
	length         uint32
	V6             bool
}

// For returns the fragments of a family.
func For(v6 bool) Rules {
	if v6 {
		return Rules{Key: 8, Found: 18, Width: 4, source: 8, target: 24, length: 16, V6: true}
	}
	return Rules{Key: 8, Found: 18, Width: 1, source: 12, target: 16, length: 4}
}

// AddrType is the set type of the family's addresses.
func (r Rules) AddrType() nftables.SetDatatype {
	if r.V6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

// Source loads the source address.
func (r Rules) Source(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: r.source, Len: r.length}
}

// Destination loads the destination address.
func (r Rules) Destination(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: r.target, Len: r.length}
}

// Port loads protocol . destination port.
func (r Rules) Port(reg uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Payload{DestRegister: reg + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// Frontend loads destination address . protocol . port.
func (r Rules) Frontend() []expr.Any {
	return append([]expr.Any{r.Destination(r.Key)}, r.Port(r.Key+r.Width)...)
}

// NodePort loads the unspecified address . protocol . port.
func (r Rules) NodePort() []expr.Any {
	return append([]expr.Any{&expr.Immediate{Register: r.Key, Data: make([]byte, r.length)}}, r.Port(r.Key+r.Width)...)
}

// Client loads source . destination . protocol . port.
func (r Rules) Client() []expr.Any {
	load := []expr.Any{r.Source(r.Key), r.Destination(r.Key + r.Width)}
	return append(load, r.Port(r.Key+2*r.Width)...)
}

// ToNode matches packets to one of the node's own addresses.
func (r Rules) ToNode() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: r.Key, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: r.Key, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// FromNode matches packets from one of the node's own addresses.
func (r Rules) FromNode() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: r.Key, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: r.Key, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// FromNetwork matches packets that came over a link, not from the node itself.
func FromNetwork() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: 8},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 8, Data: binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK)},
	}
}

// FromLink matches packets that came over a link of that name, or of one that
// begins like it where it ends in "*"; inverted, all others, those of the node
// itself among them.
func FromLink(name string, invert bool) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	if start, ok := strings.CutSuffix(name, "*"); ok {
		data = []byte(start)
	}
	op := expr.CmpOpEq
	if invert {
		op = expr.CmpOpNeq
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 8}, &expr.Cmp{Op: op, Register: 8, Data: data}}
}

// First matches the packets that begin a connection. Others were decided about
// with it; and those that the kernel takes for no connection's must not be
// answered, lest a client that tries again be refused.
func (r Rules) First() []expr.Any {
	bit := binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW)
	return []expr.Any{
		&expr.Ct{Register: r.Key, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: r.Key, DestRegister: r.Key, Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: r.Key, Data: bit},
	}
}

// DNAT sends the packet to the endpoint found.
func (r Rules) DNAT() expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if r.V6 {
		family = unix.NFPROTO_IPV6
	}
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: r.Found, RegAddrMax: r.Found,
		RegProtoMin: r.Found + r.Width, RegProtoMax: r.Found + r.Width, Specified: true}
}

// Lookup finds the value of the key loaded.
func (r Rules) Lookup(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: r.Key, DestRegister: r.Found, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}
}

// Verdict finds the verdict of the key loaded and follows it.
func (r Rules) Verdict(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: r.Key, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}
}

// SourceIn matches packets whose source is in a set, or is not.
func (r Rules) SourceIn(set *nftables.Set, invert bool) []expr.Any {
	return []expr.Any{r.Source(r.Key), &expr.Lookup{SourceRegister: r.Key, SetName: set.Name, SetID: set.ID, Invert: invert}}
}

// DestinationIn matches packets whose destination is in a set, or is not.
func (r Rules) DestinationIn(set *nftables.Set, invert bool) []expr.Any {
	return []expr.Any{r.Destination(r.Key), &expr.Lookup{SourceRegister: r.Key, SetName: set.Name, SetID: set.ID, Invert: invert}}
}

// Mark asks for masquerading after routing.
func (r Rules) Mark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: r.Key},
		&expr.Bitwise{SourceRegister: r.Key, DestRegister: r.Key, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^uint32(MasqueradeMark)), Xor: binaryutil.NativeEndian.PutUint32(MasqueradeMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: r.Key},
	}
}

// MasqueradeMarked masquerades what was marked and takes the mark away, so
// that it cannot act again on an encapsulated packet.
func (r Rules) MasqueradeMarked() []expr.Any {
	bit := binaryutil.NativeEndian.PutUint32(MasqueradeMark)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: r.Key},
		&expr.Bitwise{SourceRegister: r.Key, DestRegister: r.Key + 1, Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: r.Key + 1, Data: bit},
		&expr.Bitwise{SourceRegister: r.Key, DestRegister: r.Key, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^uint32(MasqueradeMark)), Xor: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: r.Key},
		Masquerade(),
	}
}

// MasqueradeHairpin masquerades what was sent to its own sender; the set holds
// each such address paired with itself.
func (r Rules) MasqueradeHairpin(hairpin *nftables.Set) []expr.Any {
	return []expr.Any{
		r.Source(r.Key), r.Destination(r.Key + r.Width),
		&expr.Lookup{SourceRegister: r.Key, SetName: hairpin.Name, SetID: hairpin.ID},
		Masquerade(),
	}
}

// Masquerade gives the packet the node's source address and a random port:
// sequential ports collide under concurrent connections.
func Masquerade() expr.Any { return &expr.Masq{FullyRandom: true} }

// Refuse answers with "port unreachable", as if nobody listened.
func (r Rules) Refuse() []expr.Any {
	code := uint8(3) // ICMP_PORT_UNREACH
	if r.V6 {
		code = 4 // ICMPV6_PORT_UNREACH
	}
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}
}

// Jump calls another chain.
func Jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// ToLoopback matches packets to loopback addresses.
func (r Rules) ToLoopback() []expr.Any { return r.loopback(r.target) }

// FromLoopback matches packets from loopback addresses.
func (r Rules) FromLoopback() []expr.Any { return r.loopback(r.source) }

func (r Rules) loopback(offset uint32) []expr.Any {
	load := &expr.Payload{DestRegister: r.Key, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1}
	data := []byte{127}
	if r.V6 {
		load.Len, data = r.length, netip.IPv6Loopback().AsSlice()
	}
	return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpEq, Register: r.Key, Data: data}}
}

// Join makes one rule of several fragments.
func Join(parts ...[]expr.Any) []expr.Any {
	var rule []expr.Any
	for _, p := range parts {
		rule = append(rule, p...)
	}
	return rule
}
