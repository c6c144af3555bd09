// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/netfilter/nstest"
	"kaji/internal/proxy/plan"
)

// TestIPv6 has one pod behind a node, and the world outside.
func TestIPv6(t *testing.T) {
	node, world, pod := nstest.New(t), nstest.New(t), nstest.New(t)
	for _, ns := range []*nstest.Namespace{node, world, pod} {
		ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644) })
	}
	node.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644) })
	node.Connect("uplink", "2001:db8::10/64", world, "node", "2001:db8::1/64")
	node.Connect("pod", "fd00:10::1/64", pod, "eth0", "fd00:10::2/64")
	pod.Route("::/0", "fd00:10::1")
	node.Route("::/0", "2001:db8::1")
	world.Route("fd00::/8", "2001:db8::10")
	pod.Serve(":80", "pod")
	pod.ServeUDP("[::]:53", "pod")
	k, err := New(Config{IPv6: true, NetNS: node.FD(), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00:10::/32")}})
	if err != nil {
		t.Fatal(err)
	}
	to := func(port uint16) []plan.Backend {
		return []plan.Backend{{Addr: netip.MustParseAddr("fd00:10::2"), Port: port}}
	}
	vip := tcp("fd00:96::1", 80)
	dns := plan.Frontend{Addr: vip.Addr, Protocol: corev1.ProtocolUDP, Port: 53}
	port := tcp("::", 30080)
	none := tcp("fd00:96::1", 81)
	if err := k.Reset(targets{vip: {Backends: to(80)}, dns: {Backends: to(53)}, none: {},
		port: {Masquerade: plan.MasqueradeNone, Backends: to(80), PreferLocal: true, Local: to(80)}}); err != nil {
		t.Fatal(err)
	}
	world.MustReach("tcp", "[fd00:96::1]:80", "pod fd00:10::1")
	world.MustReach("udp", "[fd00:96::1]:53", "pod fd00:10::1")
	world.MustReach("tcp", "[2001:db8::10]:30080", "pod 2001:db8::1")
	pod.MustReach("tcp", "[fd00:96::1]:80", "pod fd00:10::1") // hairpin
	node.MustReach("tcp", "[fd00:96::1]:80", "pod fd00:10::1")
	l := &lab{T: t}
	l.refused(world, "tcp", "[fd00:96::1]:81")
	l.refused(world, "tcp", "[fd00:96::1]:82")
}

// TestSCTP sends the first packet of an association to a ClusterIP.
func TestSCTP(t *testing.T) {
	l := newLab(t)
	vip := plan.Frontend{Addr: netip.MustParseAddr("10.96.0.20"), Protocol: corev1.ProtocolSCTP, Port: 80}
	l.apply(targets{vip: {Backends: backends(8080, 1)}})
	open := func(fd *int) func() error {
		return func() (err error) {
			*fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
			return err
		}
	}
	receiver, sender := -1, -1
	l.pods[1].Do(open(&receiver))
	l.pods[0].Do(open(&sender))
	defer unix.Close(receiver)
	defer unix.Close(sender)
	// A common header from port 12345 to 80 and an INIT chunk.
	packet := append([]byte{0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20}, make([]byte, 16)...)
	packet[19], packet[22], packet[25], packet[27], packet[31] = 1, 1, 1, 1, 1
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
	if err := unix.Sendto(sender, packet, 0, &unix.SockaddrInet4{Addr: vip.Addr.As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(receiver, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 256)
	n, _, err := unix.Recvfrom(receiver, got, 0)
	if err != nil {
		t.Fatalf("the pod hears nothing: %v", err)
	}
	header := int(got[0]&0xf) * 4
	if port := int(got[header+2])<<8 | int(got[header+3]); n < header+12 || port != 8080 {
		t.Errorf("the packet came to port %d, want the endpoint's", port)
	}
}
