// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// destination is the address that a connection was made to, found out when it is
// asked for.
type destination struct {
	conn net.Conn
	once sync.Once
	addr netip.Addr
}

type destinationKey struct{}

// withDestination lets requests of a connection know it.
func withDestination(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, destinationKey{}, &destination{conn: conn})
}

// Asked returns the address that the client of a request connected to, by the
// request's context; the zero Addr if that is not known.
func Asked(ctx context.Context) netip.Addr {
	d, _ := ctx.Value(destinationKey{}).(*destination)
	if d == nil {
		return netip.Addr{}
	}
	d.once.Do(func() { d.addr = Destination(d.conn) })
	return d.addr
}

// Destination returns the address that a client connected to: the one before the
// kernel's address translation, where there was any.
func Destination(conn net.Conn) netip.Addr {
	for {
		switch c := conn.(type) {
		case *replayed:
			conn = c.Conn
			continue
		case *onlyReads:
			conn = c.Conn
			continue
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
			continue
		}
		break
	}
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	at := local.Addr().Unmap()
	if socket, ok := conn.(syscall.Conn); ok {
		if raw, err := socket.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // a closed connection asks for nothing
				if before, ok := original(int(fd), at.Is6()); ok {
					at = before
				}
			})
		}
	}
	return at
}

// original asks connection tracking; it knows TCP only.
func original(fd int, v6 bool) (netip.Addr, bool) {
	if v6 {
		// The option fills a sockaddr_in6, as which IPv6MTUInfo begins.
		info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
		if err != nil {
			return netip.Addr{}, false
		}
		return netip.AddrFrom16(info.Addr.Addr).Unmap(), true
	}
	// It fills a sockaddr_in, which fits into the sixteen bytes of an ipv6_mreq.
	mreq, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(mreq.Multiaddr[4:8])), true
}

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST.
const soOriginalDst = 80
