// SPDX-License-Identifier: Apache-2.0

package neighbour

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Link is an Ethernet link. Make it with Open; its methods are safe for
// concurrent use.
type Link struct {
	mac    net.HardwareAddr
	index  int
	source netip.Addr // of what is said by IPv6
	files  map[bool]*os.File

	mu     sync.Mutex
	groups map[netip.Addr]int // joined groups of those who look for us
}

// Open opens the link of that index and MAC in the caller's network namespace.
// source, an address of the link, is whom neighbours hear over IPv6.
func Open(index int, mac net.HardwareAddr, source netip.Addr) (*Link, error) {
	if len(mac) != 6 {
		return nil, errors.New("it is no Ethernet link")
	}
	l := &Link{mac: mac, index: index, source: source, files: map[bool]*os.File{}, groups: map[netip.Addr]int{}}
	for v6, protocol := range map[bool]uint16{false: typeARP, true: typeIPv6} {
		f, err := open(index, protocol)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.files[v6] = f
	}
	return l, nil
}

func open(index int, protocol uint16) (*os.File, error) {
	// Nothing arrives before the filter is there: protocol zero hears nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "neighbours")
	if protocol == typeIPv6 {
		if err := filter(fd); err != nil {
			return nil, errors.Join(fmt.Errorf("packet socket: %w", err), file.Close())
		}
	}
	network := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: index}); err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket: %w", err), file.Close())
	}
	return file, nil
}

// filter lets solicitations and advertisements through.
func filter(fd int) error {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: headerLength + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6, SkipTrue: 4},
		bpf.LoadAbsolute{Off: headerLength + ipv6Length, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: solicitation, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: advertisement, SkipTrue: 1},
		bpf.RetConstant{Val: 256},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// Listen calls heard for each message of a family until the link is closed.
func (l *Link) Listen(v6 bool, heard func(Message)) error {
	buf := make([]byte, 256)
	for {
		n, err := l.files[v6].Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed), errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.ENETDOWN):
			continue // the link is down for now
		case err != nil:
			return fmt.Errorf("hearing neighbours: %w", err)
		}
		if m, ok := parse(buf[:n]); ok && string(m.FromMAC) != string(l.mac) {
			heard(m)
		}
	}
}

// Expect lets those be heard who look for an address; Forget ends that.
func (l *Link) Expect(addr netip.Addr) error { return l.member(addr, 1, unix.PACKET_ADD_MEMBERSHIP) }

// Forget undoes Expect.
func (l *Link) Forget(addr netip.Addr) error { return l.member(addr, -1, unix.PACKET_DROP_MEMBERSHIP) }

func (l *Link) member(addr netip.Addr, n, option int) error {
	if !addr.Is6() {
		return nil // who looks for IPv4 asks everybody
	}
	group := solicited(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.groups[group]
	if l.groups[group] += n; l.groups[group] == 0 {
		delete(l.groups, group)
	}
	if before+l.groups[group] != 1 { // neither the first nor the last
		return nil
	}
	request := unix.PacketMreq{Ifindex: int32(l.index), Type: unix.PACKET_MR_MULTICAST, Alen: 6}
	copy(request.Address[:], multicast(group))
	connection, err := l.files[true].SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := connection.Control(func(fd uintptr) {
		result = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, option, &request)
	}); err != nil {
		return err
	}
	return result
}

// Answer tells who asked that the address he looks for is here.
func (l *Link) Answer(m Message) error {
	_, err := l.files[m.Addr.Is6()].Write(l.say(m.Addr, &m))
	return err
}

// Announce tells everybody that an address is here.
func (l *Link) Announce(addr netip.Addr) error {
	_, err := l.files[addr.Is6()].Write(l.say(addr, nil))
	return err
}

func (l *Link) say(addr netip.Addr, to *Message) []byte {
	if addr.Is4() {
		return arp(l.mac, addr, to)
	}
	from := l.source
	if !from.Is6() {
		from = addr
	}
	return advertise(l.mac, from, addr, to)
}

// Close ends Listen.
func (l *Link) Close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
