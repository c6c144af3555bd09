// SPDX-License-Identifier: Apache-2.0

// Package neighbour speaks with the neighbours on an Ethernet link: ARP
// (RFC 826, RFC 5227) for IPv4 and neighbour discovery (RFC 4861) for IPv6. It
// hears who asks for an address and who announces one, answers and announces.
// Package loadbalancer is its only caller. It decides nothing, and it gives the
// kernel no address.
package neighbour

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
)

// Message is what a neighbour said.
type Message struct {
	// Asked says that somebody looks for Addr; otherwise Addr was announced.
	Asked bool
	Addr  netip.Addr
	// From and FromMAC are who asks; From may be unspecified.
	From    netip.Addr
	FromMAC net.HardwareAddr
}

const (
	typeARP  = 0x0806
	typeIPv6 = 0x86dd

	headerLength = 14
	arpLength    = 28
	ipv6Length   = 40
	ndLength     = 24 // without options

	arpRequest = 1
	arpReply   = 2

	icmpv6        = 58
	solicitation  = 135
	advertisement = 136
	hopLimit      = 255 // nothing else came from the link itself
)

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.MustParseAddr("ff02::1")
)

// parse reads a frame; ok is false for what is none of our business, be it
// damaged or another protocol.
func parse(frame []byte) (m Message, ok bool) {
	if len(frame) < headerLength {
		return m, false
	}
	body := frame[headerLength:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeARP:
		return parseARP(body)
	case typeIPv6:
		m, ok = parseND(body)
		m.FromMAC = bytes.Clone(frame[6:12])
		return m, ok
	}
	return m, false
}

var arpStart = []byte{0, 1, 0x08, 0, 6, 4} // Ethernet, IPv4

func parseARP(b []byte) (m Message, ok bool) {
	if len(b) < arpLength || !bytes.Equal(b[:6], arpStart) {
		return m, false
	}
	from, to := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	m = Message{Addr: to, From: from, FromMAC: bytes.Clone(b[8:14])}
	op := binary.BigEndian.Uint16(b[6:])
	m.Asked = op == arpRequest && from != to
	return m, m.Asked || from == to
}

func parseND(b []byte) (m Message, ok bool) {
	if len(b) < ipv6Length+ndLength || b[6] != icmpv6 || b[7] != hopLimit {
		return m, false
	}
	m = Message{From: netip.AddrFrom16([16]byte(b[8:24])), Addr: netip.AddrFrom16([16]byte(b[ipv6Length+8 : ipv6Length+24]))}
	m.Asked = b[ipv6Length] == solicitation
	const solicited = 1 << 6
	return m, m.Asked || b[ipv6Length] == advertisement && b[ipv6Length+4]&solicited == 0
}

// frameOf puts an Ethernet header before a body.
func frameOf(to, from net.HardwareAddr, kind uint16, body []byte) []byte {
	out := append(append([]byte{}, to...), from...)
	return append(binary.BigEndian.AppendUint16(out, kind), body...)
}

// arp says that addr is at own. Without a receiver it is an announcement to
// everybody.
func arp(own net.HardwareAddr, addr netip.Addr, to *Message) []byte {
	op, target, targetMAC, receiver := uint16(arpRequest), addr, make(net.HardwareAddr, 6), broadcast
	if to != nil {
		op, target, targetMAC, receiver = arpReply, to.From, to.FromMAC, to.FromMAC
	}
	body := binary.BigEndian.AppendUint16(append([]byte{}, arpStart...), op)
	body = append(append(body, own...), addr.AsSlice()...)
	body = append(append(body, targetMAC...), target.AsSlice()...)
	return frameOf(receiver, own, typeARP, body)
}

// advertise says the same of an IPv6 address, from another address of ours.
func advertise(own net.HardwareAddr, from, addr netip.Addr, to *Message) []byte {
	const solicitedFlag, override = 1 << 6, 1 << 5
	receiver, mac, flags := allNodes, multicast(allNodes), byte(override)
	if to != nil && !to.From.IsUnspecified() {
		receiver, mac, flags = to.From, to.FromMAC, solicitedFlag|override
	}
	nd := append([]byte{advertisement, 0, 0, 0, flags, 0, 0, 0}, addr.AsSlice()...)
	nd = append(append(nd, 2, 1), own...) // the target's link-layer address
	ip := []byte{0x60, 0, 0, 0, 0, byte(len(nd)), icmpv6, hopLimit}
	ip = append(append(ip, from.AsSlice()...), receiver.AsSlice()...)
	binary.BigEndian.PutUint16(nd[2:], checksum(ip[8:40], nd))
	return frameOf(mac, own, typeIPv6, append(ip, nd...))
}

// checksum is ICMPv6's, over the addresses, the length, the protocol and the
// message.
func checksum(addresses, message []byte) uint16 {
	sum := uint32(len(message)) + icmpv6
	for _, part := range [][]byte{addresses, message} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// multicast returns the link's group of an IPv6 group.
func multicast(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// solicited returns the group that those who look for an address ask.
func solicited(addr netip.Addr) netip.Addr {
	b := netip.MustParseAddr("ff02::1:ff00:0").As16()
	a := addr.As16()
	copy(b[13:], a[13:])
	return netip.AddrFrom16(b)
}
