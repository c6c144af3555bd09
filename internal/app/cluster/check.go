// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"kaji/internal/cni/nodenet"
)

// named is an address range and what it is for.
type named struct {
	what   string
	prefix netip.Prefix
}

// Check finds what cannot work before anything is started: address ranges that
// overlap each other or, on a machine that runs the cluster for the first time,
// the machine's own networks.
func (c Config) Check(first bool) error {
	ranges, err := c.ranges()
	if err != nil {
		return err
	}
	if services, err := c.API.ServiceRanges(); err == nil && c.Nodes > 1 && len(services) > 0 && services[0].Addr().Is6() {
		return fmt.Errorf("--service-cluster-ip-range (%s): several nodes on one machine have IPv4 addresses, at which the API server is reached; put an IPv4 range first, or run one node", services[0])
	}
	if services, err := c.API.ServiceRanges(); err == nil {
		for _, r := range services {
			if free := r.Addr().BitLen() - r.Bits(); free < 4 {
				return fmt.Errorf("--service-cluster-ip-range (%s) has %d addresses; the cluster's name server has the tenth: choose one of 16 at least", r, 1<<free)
			}
		}
	}
	for i, a := range ranges {
		for _, b := range ranges[:i] {
			if a.prefix.Overlaps(b.prefix) {
				return fmt.Errorf("%s (%s) and %s (%s) overlap: choose ranges that share no address", b.what, b.prefix, a.what, a.prefix)
			}
		}
	}
	if !c.Outside.IsValid() { // a network of its own has IPv6, whatever this machine has
		for _, r := range ranges {
			if r.prefix.Addr().Is6() && nodenet.IPv6Off() {
				return fmt.Errorf("%s (%s): IPv6 is switched off on this machine; switch it on with `sysctl net.ipv6.conf.all.disable_ipv6=0`, or leave the range out", r.what, r.prefix)
			}
		}
	}
	if !first {
		return nil
	}
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil || strings.HasPrefix(l.Name, "kaji") || c.Outside.IsValid() && strings.HasPrefix(l.Name, "kj") {
			continue // the link has just gone, or is another cluster's
		}
		if err := clash(ranges, l.Name, addrs); err != nil {
			return err
		}
	}
	return nil
}

func clash(ranges []named, link string, addrs []net.Addr) error {
	for _, a := range addrs {
		theirs, err := netip.ParsePrefix(a.String())
		if err != nil || theirs.Addr().IsLoopback() || theirs.IsSingleIP() {
			continue
		}
		for _, r := range ranges {
			if r.prefix.Overlaps(theirs) {
				return fmt.Errorf("%s (%s) overlaps the network %s of this machine's link %s: choose another range with %s", r.what, r.prefix, theirs.Masked(), link, r.what)
			}
		}
	}
	return nil
}

func (c Config) ranges() ([]named, error) {
	services, err := c.API.ServiceRanges()
	if err != nil {
		return nil, err
	}
	var out []named
	for _, p := range c.PodCIDRs {
		out = append(out, named{"--cluster-cidr", p})
	}
	for _, p := range services {
		out = append(out, named{"--service-cluster-ip-range", p})
	}
	if c.Nodes > 1 {
		out = append(out, named{"--node-network", c.NodeNetwork.Masked()})
	}
	return out, nil
}
