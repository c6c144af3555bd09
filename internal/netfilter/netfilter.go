// SPDX-License-Identifier: Apache-2.0

// Package netfilter holds what every writer of nftables rules needs: the
// connection to the kernel, fragments of rules for either address family, and
// elements of interval sets. The pod network, the service proxy, the network
// policies and the load balancer call it; it owns no table of its own.
package netfilter

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// socketBuffer holds the largest transaction's messages.
const socketBuffer = 32 << 20

// chunk bounds the elements of one message: a netlink attribute holds 64 KiB.
const chunk = 400

// Open connects to the kernel's nftables in the network namespace of the file
// descriptor netns, or in the own one when it is zero.
func Open(netns int) (*nftables.Conn, error) {
	opts := []nftables.ConnOption{nftables.WithSockOptions(
		func(conn *netlink.Conn) error { return conn.SetWriteBuffer(socketBuffer) },
		func(conn *netlink.Conn) error { return conn.SetReadBuffer(socketBuffer) },
	)}
	if netns != 0 {
		opts = append(opts, nftables.WithNetNSFd(netns))
	}
	conn, err := nftables.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return conn, nil
}

// TableFamily returns the nftables family of an address family.
func TableFamily(v6 bool) nftables.TableFamily {
	if v6 {
		return nftables.TableFamilyIPv6
	}
	return nftables.TableFamilyIPv4
}

// AddElements queues elements in messages the kernel accepts.
func AddElements(conn *nftables.Conn, set *nftables.Set, elements []nftables.SetElement) error {
	for part := range slices.Chunk(elements, chunk) {
		if err := conn.SetAddElements(set, part); err != nil {
			return fmt.Errorf("adding to %s: %w", set.Name, err)
		}
	}
	return nil
}

// DeleteElements queues the removal of elements.
func DeleteElements(conn *nftables.Conn, set *nftables.Set, elements []nftables.SetElement) error {
	for part := range slices.Chunk(elements, chunk) {
		if err := conn.SetDeleteElements(set, part); err != nil {
			return fmt.Errorf("removing from %s: %w", set.Name, err)
		}
	}
	return nil
}

// Interval returns the elements of an interval set that hold a prefix.
func Interval(p netip.Prefix) []nftables.SetElement {
	elements := []nftables.SetElement{{Key: p.Masked().Addr().AsSlice()}}
	if end, ok := After(p); ok {
		elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return elements
}

// After returns the first address behind a prefix; ok is false at the end of
// the address space.
func After(p netip.Prefix) (addr netip.Addr, ok bool) {
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
			return netip.AddrFromSlice(bytes)
		}
	}
	return netip.Addr{}, false
}

// Hash is FNV-1a over length-prefixed parts, for short stable names of chains.
func Hash(data ...[]byte) uint64 {
	h := uint64(14695981039346656037)
	for _, d := range data {
		for _, b := range append(binary.BigEndian.AppendUint32(nil, uint32(len(d))), d...) {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}
	return h
}

// Protocol returns the number of "TCP", "UDP" or "SCTP"; anything else is TCP,
// as the API defaults it.
func Protocol(name string) byte {
	switch name {
	case "UDP":
		return 17
	case "SCTP":
		return 132
	}
	return 6
}

// PortKey is protocol . port as a key of a concatenated set.
func PortKey(protocol string, port uint16) []byte {
	return []byte{Protocol(protocol), 0, 0, 0, byte(port >> 8), byte(port), 0, 0}
}

// Endpoint is address . port as the value of a concatenated map.
func Endpoint(addr netip.Addr, port uint16) []byte {
	return append(slices.Clone(addr.AsSlice()), byte(port>>8), byte(port), 0, 0)
}

// Pair is address . address as a key of a concatenated set.
func Pair(a, b netip.Addr) []byte { return append(slices.Clone(a.AsSlice()), b.AsSlice()...) }
