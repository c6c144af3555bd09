// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// protocol marks the routes of this package.
	protocol = 76
	linkName = "kaji.vxlan"
	// The network identifier and the port of the overlay, as Linux has it.
	vni, port = 1, 8472
	// overhead is what VXLAN adds to a packet over IPv6, the larger of both.
	overhead = 70
)

// apply makes the kernel's routes those that lead to the peers, and to Services
// where nothing else does.
func apply(me self, peers []peer, services []netip.Prefix) error {
	var errs []error
	wanted := map[string]*netlink.Route{}
	var far []peer
	for _, p := range peers {
		if !p.node.IsValid() {
			far = append(far, p)
			continue
		}
		link, near, err := onLink(p.node)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("no way to node %s: %w", p.node, err))
		case near:
			wanted[p.pods.String()] = &netlink.Route{Dst: ipNet(p.pods), Gw: p.node.AsSlice(), LinkIndex: link, Protocol: protocol}
		default:
			far = append(far, p)
		}
	}
	if err := overlay(me, far, wanted); err != nil {
		errs = append(errs, err)
	}
	if err := toServices(me, services, wanted); err != nil {
		errs = append(errs, err)
	}
	for _, r := range wanted {
		if err := netlink.RouteReplace(r); err != nil {
			errs = append(errs, fmt.Errorf("route to %s: %w", r.Dst, err))
		}
	}
	return errors.Join(append(errs, prune(wanted))...)
}

// lastResort is the metric of routes to Services: those of others come first.
const lastResort = 4096

// toServices adds routes over the node's own link to ranges that nothing leads to.
// No packet goes that way: the service proxy sends each elsewhere, or nowhere.
func toServices(me self, services []netip.Prefix, wanted map[string]*netlink.Route) error {
	if len(me.addrs) == 0 || len(services) == 0 {
		return nil
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	link, err := linkOf(me.addrs[0])
	if err != nil || link == 0 {
		return err
	}
	for _, p := range services {
		first := p.Addr().AsSlice()
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool {
			return r.Protocol != protocol && (r.Dst == nil && r.Family == family(p) || r.Dst != nil && r.Dst.Contains(first) && covers(r.Dst, p))
		}) {
			wanted[p.String()] = &netlink.Route{Dst: ipNet(p), LinkIndex: link, Protocol: protocol, Priority: lastResort, Scope: netlink.SCOPE_LINK}
		}
	}
	return nil
}

func covers(n *net.IPNet, p netip.Prefix) bool {
	ones, bits := n.Mask.Size()
	return bits == p.Addr().BitLen() && ones <= p.Bits()
}

func family(p netip.Prefix) int {
	if p.Addr().Is6() {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// linkOf returns the link that has an address, 0 where none has.
func linkOf(addr netip.Addr) (int, error) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, err
	}
	for _, a := range all {
		if own, _ := netip.AddrFromSlice(a.IP); own.Unmap() == addr {
			return a.LinkIndex, nil
		}
	}
	return 0, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// onLink says whether an address is reached without a gateway, and over which
// link.
func onLink(addr netip.Addr) (link int, near bool, err error) {
	routes, err := netlink.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 {
		return 0, false, errors.Join(err, errNoRoute(err, len(routes)))
	}
	return routes[0].LinkIndex, routes[0].Gw == nil, nil
}

func errNoRoute(err error, n int) error {
	if err == nil && n == 0 {
		return syscall.ENETUNREACH
	}
	return nil
}

// prune removes routes of this package that are not wanted.
func prune(wanted map[string]*netlink.Route) error {
	routes, err := netlink.RouteListFiltered(unix.AF_UNSPEC, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	var errs []error
	for i := range routes {
		r := &routes[i]
		if r.Dst != nil && wanted[r.Dst.String()] != nil {
			continue
		}
		if err := netlink.RouteDel(r); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// overlay adds the routes to nodes behind gateways, or of another family than
// their pods, over VXLAN.
func overlay(me self, far []peer, wanted map[string]*netlink.Route) error {
	if len(far) == 0 {
		return removeOverlay()
	}
	if len(me.addrs) == 0 || len(me.pods) == 0 {
		return errors.New("this node has no address or no range of pods yet")
	}
	link, err := ensureOverlay(me)
	if err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	index := link.Attrs().Index
	for _, p := range far {
		mac := hardware(p.over)
		gateway := p.pods.Addr()
		neighbour := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: gateway.AsSlice(), HardwareAddr: mac}
		forward := &netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF, IP: p.over.AsSlice(), HardwareAddr: mac}
		if err := errors.Join(netlink.NeighSet(neighbour), netlink.NeighSet(forward)); err != nil {
			return fmt.Errorf("overlay: node %s: %w", p.over, err)
		}
		wanted[p.pods.String()] = &netlink.Route{Dst: ipNet(p.pods), Gw: gateway.AsSlice(), LinkIndex: index, Protocol: protocol, Flags: int(netlink.FLAG_ONLINK)}
	}
	return nil
}

// hardware is the address of a node's end of the overlay, made from the node's
// own so that nobody has to tell it.
func hardware(node netip.Addr) net.HardwareAddr {
	sum := sha256.Sum256(node.AsSlice())
	return net.HardwareAddr{0x0e, 0x6b, sum[0], sum[1], sum[2], sum[3]}
}

func ensureOverlay(me self) (netlink.Link, error) {
	node := me.addrs[0]
	parent, _, err := onLink(node)
	if err != nil {
		return nil, err
	}
	mtu := 1500
	if l, err := netlink.LinkByIndex(parent); err == nil && l.Attrs().Flags&net.FlagLoopback == 0 {
		mtu = l.Attrs().MTU
	}
	link, err := netlink.LinkByName(linkName)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = linkName, mtu-overhead, hardware(node)
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: vni, Port: port, SrcAddr: node.AsSlice(), Learning: false}); err != nil {
			return nil, err
		}
		link, err = netlink.LinkByName(linkName)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range me.pods {
		// The host itself speaks to far pods from the first address of its range.
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Addr().BitLen(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // nobody else has it, and it is wanted now
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return nil, err
		}
	}
	return link, netlink.LinkSetUp(link)
}

func removeOverlay() error {
	link, err := netlink.LinkByName(linkName)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// Cleanup removes all that this package made on the machine.
func Cleanup() error { return errors.Join(prune(nil), removeOverlay()) }
