// SPDX-License-Identifier: Apache-2.0

package neighbour

import (
	"net"
	"net/netip"
	"testing"
)

var (
	mac   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	other = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

func TestFrames(t *testing.T) {
	v4, v6, own := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("fe80::1")
	for _, frame := range [][]byte{arp(mac, v4, nil), advertise(mac, own, v6, nil)} {
		m, ok := parse(frame)
		if !ok || m.Asked || m.Addr != v4 && m.Addr != v6 || string(m.FromMAC) != string(mac) {
			t.Errorf("an announcement was read as %+v, %v", m, ok)
		}
		for n := range frame {
			parse(frame[:n]) // must not panic
		}
	}
	// Answers to others are no announcements.
	asker := &Message{Asked: true, Addr: v4, From: netip.MustParseAddr("192.0.2.1"), FromMAC: other}
	if m, ok := parse(arp(mac, v4, asker)); ok {
		t.Errorf("an answer was read as %+v", m)
	}
	asker.Addr, asker.From = v6, netip.MustParseAddr("2001:db8::1")
	if m, ok := parse(advertise(mac, own, v6, asker)); ok {
		t.Errorf("an answer was read as %+v", m)
	}
}

func TestChecksum(t *testing.T) {
	b := advertise(mac, netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::9"), nil)[headerLength:]
	nd := b[ipv6Length:]
	if got := checksum(b[8:40], nd); got != 0 { // with its own sum inside, the sum is all ones
		t.Errorf("the checksum is wrong by %#x", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(arp(mac, netip.MustParseAddr("192.0.2.9"), nil))
	f.Add(advertise(mac, netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::9"), nil))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if m, ok := parse(frame); ok && !m.Addr.IsValid() {
			t.Errorf("%x was read as %+v", frame, m)
		}
	})
}
