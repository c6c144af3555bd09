// SPDX-License-Identifier: Apache-2.0

// Package ownnet gives a cluster a network of its own on this machine: a network
// namespace behind a link, with the machine as its gateway. So several clusters
// run side by side with the same ports, ranges and rules, and none knows of the
// others. The verbs up, server and down use it; what runs inside does not know.
package ownnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kaji/internal/cni/nodenet"
	"kaji/internal/netfilter"
)

// all holds the ranges of all clusters, a /24 each; shared address space of RFC
// 6598, which no machine's own network should be in.
var all = netip.MustParsePrefix("100.126.0.0/16")

// inside names the namespace among those of its link.
const inside = "cluster"

// Network is a cluster's own. The first addresses of Range are the link between
// the machine and the cluster, the second half is for more nodes.
type Network struct {
	Cluster string
	Range   netip.Prefix // IPv4, a /24
}

// Parse reads the range of a cluster's own network.
func Parse(cluster, text string) (Network, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || p.Bits() != 24 {
		return Network{}, fmt.Errorf("%q is neither host nor own nor an IPv4 range such as 100.126.7.0/24", text)
	}
	return Network{Cluster: cluster, Range: p.Masked()}, nil
}

// Choose finds a range that no link of the machine uses; the same one as long as
// it is free, or the cluster's already.
func Choose(cluster string) (Network, error) {
	start := int(netfilter.Hash([]byte(cluster)) % 256)
	for i := range 256 {
		n := Network{Cluster: cluster, Range: netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 126, byte(start + i), 0}), 24)}
		free, err := n.free()
		if err != nil {
			return n, err
		}
		if free {
			return n, nil
		}
	}
	return Network{}, fmt.Errorf("no range of %s is free on this machine: name one with --network", all)
}

func (n Network) free() (bool, error) {
	links, err := net.Interfaces()
	if err != nil {
		return false, err
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil || l.Name == n.link().Plug() {
			continue // it has just gone, or is this cluster's
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Bits() > 0 && p.Overlaps(n.Range) {
				return false, nil
			}
		}
	}
	return true, nil
}

// link is the way between the machine and the cluster. An underscore is in no
// cluster's name, so these names are apart from those of nodes.
func (n Network) link() nodenet.Network {
	return nodenet.Network{Cluster: "_" + n.Cluster, Subnet: netip.PrefixFrom(n.Range.Addr(), 30)}
}

// Address is where the machine reaches the cluster.
func (n Network) Address() netip.Addr { return n.link().Address(2) }

// Nodes is a range for the nodes after the first; the machine reaches them.
func (n Network) Nodes() netip.Prefix {
	half := n.Range.Addr().As4()
	half[3] |= 128
	return netip.PrefixFrom(netip.AddrFrom4(half), 25)
}

// Open makes the namespace and the link, where they are not there yet.
func (n Network) Open() error {
	l := n.link()
	if err := l.Open(); err != nil {
		return fmt.Errorf("the cluster's own network: %w", err)
	}
	if err := l.Add(inside, 2); err != nil {
		return fmt.Errorf("the cluster's own network: %w", err)
	}
	nodes := n.Nodes()
	to := &net.IPNet{IP: nodes.Addr().AsSlice(), Mask: net.CIDRMask(nodes.Bits(), 32)}
	if err := netlink.RouteReplace(&netlink.Route{Dst: to, Gw: n.Address().AsSlice()}); err != nil {
		return fmt.Errorf("the way to the cluster's nodes: %w", err)
	}
	return nil
}

// Enter opens the network and, unless this process is in it already, starts the
// program anew inside: then it does not return. The process stays the same one.
func (n Network) Enter() error {
	here, err := n.here()
	if err != nil || here {
		return err
	}
	if err := n.Open(); err != nil {
		return err
	}
	space, err := os.Open(n.path())
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the cluster's own network: %w", err)
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

// here says whether this process is in the network.
func (n Network) here() (bool, error) {
	theirs, err := os.Stat(n.path())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mine, err := os.Stat("/proc/self/ns/net")
	return err == nil && os.SameFile(theirs, mine), err
}

func (n Network) path() string { return "/run/netns/" + n.link().Namespace(inside) }

// Do runs f on a thread inside the network.
func (n Network) Do(f func() error) error { return n.link().Do(inside, f) }

// Close takes the network from the machine.
func (n Network) Close() error { return n.link().Close() }
