// SPDX-License-Identifier: Apache-2.0

// Package nstest gives network tests namespaces of their own and real packets
// between them. Only tests import it.
package nstest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// patience bounds how long a connection may take before it counts as refused.
const patience = 2 * time.Second

// Namespace is a network namespace that ends with its test.
type Namespace struct {
	t  testing.TB
	fd netns.NsHandle
	// Path names the namespace for others to open.
	Path string
	name string
}

// New makes a namespace with its loopback up.
func New(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t: t, name: fmt.Sprintf("kaji-%s-%d", strings.ToLower(strings.Map(letters, t.Name())), time.Now().UnixNano())}
	run(t, func() error {
		fd, err := netns.NewNamed(n.name)
		n.fd = fd
		return err
	})
	n.Path = "/run/netns/" + n.name
	t.Cleanup(func() {
		n.fd.Close()
		if err := netns.DeleteNamed(n.name); err != nil {
			t.Errorf("namespace %s stays: %v", n.name, err)
		}
	})
	n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return n
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return -1
}

// FD is the open descriptor of the namespace.
func (n *Namespace) FD() int { return int(n.fd) }

// run calls f on a thread that is thrown away afterwards, so that a changed
// namespace cannot leak into other goroutines.
func run(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Do runs f inside the namespace and fails the test on an error. Goroutines
// that f starts are not inside.
func (n *Namespace) Do(f func() error) {
	n.t.Helper()
	run(n.t, func() error {
		if err := netns.Set(n.fd); err != nil {
			return err
		}
		return f()
	})
}

// Connect joins two namespaces by a veth pair with one address at each end.
func (n *Namespace) Connect(name, address string, peer *Namespace, peerName, peerAddress string) {
	n.t.Helper()
	n.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.FD())})
	})
	n.Address(name, address)
	peer.Address(peerName, peerAddress)
}

// Address adds an address to a link and sets it up.
func (n *Namespace) Address(link, address string) {
	n.t.Helper()
	n.Do(func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, addr); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// Route adds a route by a gateway; dst may be "default".
func (n *Namespace) Route(dst, gateway string) {
	n.t.Helper()
	n.Do(func() error {
		route := &netlink.Route{Gw: net.ParseIP(gateway)}
		if dst != "default" {
			_, prefix, err := net.ParseCIDR(dst)
			if err != nil {
				return err
			}
			route.Dst = prefix
		}
		return netlink.RouteAdd(route)
	})
}

// Serve answers every TCP connection at an address with one line: its name and
// the address of the client. An empty host listens on all addresses.
func (n *Namespace) Serve(address, name string) {
	n.t.Helper()
	var l net.Listener
	n.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			client, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
			fmt.Fprintf(conn, "%s %s\n", name, client.Addr().Unmap())
			conn.Close()
		}
	}()
	n.t.Cleanup(func() { l.Close(); <-done })
}

// ServeUDP answers every datagram with the name and the client's address.
func (n *Namespace) ServeUDP(address, name string) {
	n.t.Helper()
	var l net.PacketConn
	n.Do(func() (err error) {
		l, err = net.ListenPacket("udp", address)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64)
		for {
			_, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			client, _ := netip.ParseAddrPort(from.String())
			_, _ = l.WriteTo([]byte(fmt.Sprintf("%s %s\n", name, client.Addr().Unmap())), from)
		}
	}()
	n.t.Cleanup(func() { l.Close(); <-done })
}

// Ask connects to an address over "tcp" or "udp" and returns who answered and
// whom he saw.
func (n *Namespace) Ask(network, address string) (name, client string, err error) {
	n.t.Helper()
	n.Do(func() error {
		var conn net.Conn
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if conn, err = new(net.Dialer).DialContext(ctx, network, address); err != nil {
			return nil
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if network == "udp" {
			if _, err = io.WriteString(conn, "?"); err != nil {
				return nil
			}
		}
		var line string
		if line, err = bufio.NewReader(conn).ReadString('\n'); err == nil {
			name, client, _ = strings.Cut(strings.TrimSpace(line), " ")
		}
		return nil
	})
	return name, client, err
}

// MustReach fails the test unless an address answers as want ("name client").
func (n *Namespace) MustReach(network, address, want string) {
	n.t.Helper()
	name, client, err := n.Ask(network, address)
	if got := name + " " + client; err != nil || got != want {
		n.t.Errorf("%s to %s: got %q, %v; want %q", network, address, got, err, want)
	}
}

// MustNotReach fails the test if an address answers.
func (n *Namespace) MustNotReach(network, address string) {
	n.t.Helper()
	if name, _, err := n.Ask(network, address); err == nil {
		n.t.Errorf("%s to %s reached %s, want nothing", network, address, name)
	}
}
