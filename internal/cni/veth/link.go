// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"kaji/internal/podnet"
)

const (
	// linkPrefix begins the name of every host end.
	linkPrefix   = "kaji"
	podInterface = "eth0"
	defaultMTU   = 1500
)

// address is a pod's address with its way out.
type address struct{ ip, gateway netip.Addr }

// LinkName derives the host end's name from the sandbox and, if it is not the usual
// one, the interface: 15 bytes at most.
func LinkName(s podnet.Sandbox) string {
	key := s.ID
	if name := inside(s); name != podInterface {
		key += "/" + name
	}
	sum := sha256.Sum256([]byte(key))
	return linkPrefix + hex.EncodeToString(sum[:5])
}

// inside is the name of the interface in the pod.
func inside(s podnet.Sandbox) string { return cmp.Or(s.Interface, podInterface) }

// connect makes the pair, the pod's addresses and routes, and last the host's
// route: the moment that publishes the lease.
func connect(s podnet.Sandbox, addrs []address, mtu int) error {
	ns, err := netns.GetFromPath(s.Netns)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", s.Netns, err)
	}
	defer ns.Close()
	if mtu == 0 {
		mtu = uplinkMTU()
	}
	host := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: LinkName(s), MTU: mtu},
		PeerName:      inside(s),
		PeerNamespace: netlink.NsFd(int(ns)),
	}
	if err := netlink.LinkAdd(host); err != nil {
		return fmt.Errorf("veth pair: %w", err)
	}
	pod, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer pod.Close()
	if err := configureHost(host, addrs); err != nil {
		return err
	}
	if err := configurePod(pod, inside(s), addrs); err != nil {
		return err
	}
	if err := shape(pod, host, s); err != nil {
		return err
	}
	for _, a := range addrs {
		route := &netlink.Route{LinkIndex: host.Attrs().Index, Dst: single(a.ip), Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s: %w", a.ip, err)
		}
	}
	return nil
}

// configureHost gives the host end the gateway's address; every host end has
// the same one.
func configureHost(host *netlink.Veth, addrs []address) error {
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: single(a.gateway), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(host, addr); err != nil {
			return fmt.Errorf("gateway address %s: %w", a.gateway, err)
		}
		if !a.ip.Is6() {
			// Host ports on 127.0.0.1 leave through this link; the table drops
			// what comes in to loopback addresses.
			if err := writeSysctl("net/ipv4/conf/"+host.Name+"/route_localnet", "1"); err != nil {
				return err
			}
		}
	}
	if hasIPv6(addrs) {
		if err := linkLocal(host); err != nil {
			return fmt.Errorf("link-local address of the host end: %w", err)
		}
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("host end up: %w", err)
	}
	return nil
}

func configurePod(pod *netlink.Handle, name string, addrs []address) error {
	if lo, err := pod.LinkByName("lo"); err == nil {
		if err := pod.LinkSetUp(lo); err != nil {
			return fmt.Errorf("loopback up: %w", err)
		}
	}
	eth, err := pod.LinkByName(name)
	if err != nil {
		return fmt.Errorf("pod end: %w", err)
	}
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: single(a.ip), Flags: unix.IFA_F_NODAD}
		if err := pod.AddrAdd(eth, addr); err != nil {
			return fmt.Errorf("address %s: %w", a.ip, err)
		}
	}
	if err := pod.LinkSetUp(eth); err != nil {
		return fmt.Errorf("pod end up: %w", err)
	}
	for _, a := range addrs {
		index := eth.Attrs().Index
		gateway := &netlink.Route{LinkIndex: index, Dst: single(a.gateway), Scope: netlink.SCOPE_LINK}
		way := &netlink.Route{LinkIndex: index, Gw: a.gateway.AsSlice(), Dst: everywhere(a.ip.Is6())}
		for _, r := range []*netlink.Route{gateway, way} {
			if err := pod.RouteReplace(r); err != nil {
				return fmt.Errorf("route by %s: %w", a.gateway, err)
			}
		}
	}
	return nil
}

// linkLocal gives the host end a link-local address at once. The kernel's own
// is usable only after duplicate detection, and a router asks for neighbours
// with nothing else: the first packets to a new pod would wait two seconds.
func linkLocal(host netlink.Link) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := netlink.LinkSetIP6AddrGenMode(host, none); err != nil {
		return err
	}
	local := &net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)}
	return netlink.AddrAdd(host, &netlink.Addr{IPNet: local, Flags: unix.IFA_F_NODAD})
}

func hasIPv6(addrs []address) bool {
	return slices.ContainsFunc(addrs, func(a address) bool { return a.ip.Is6() })
}

// shape limits the pod's bandwidth: what it receives where the host sends it,
// what it sends where it leaves.
func shape(pod *netlink.Handle, host netlink.Link, s podnet.Sandbox) error {
	if s.IngressBandwidth > 0 {
		if err := netlink.QdiscReplace(bucket(host.Attrs().Index, s.IngressBandwidth)); err != nil {
			return fmt.Errorf("ingress bandwidth: %w", err)
		}
	}
	if s.EgressBandwidth > 0 {
		eth, err := pod.LinkByName(inside(s))
		if err != nil {
			return err
		}
		if err := pod.QdiscReplace(bucket(eth.Attrs().Index, s.EgressBandwidth)); err != nil {
			return fmt.Errorf("egress bandwidth: %w", err)
		}
	}
	return nil
}

// bucket is a token bucket of so many bits per second with 25 ms of latency
// and room for at least a jumbo segment.
func bucket(link int, bits int64) *netlink.Tbf {
	rate := uint64(bits) / 8
	burst := max(uint32(min(rate/50, 1<<24)), 64<<10)
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate,
		Limit:      uint32(min(rate/40, 1<<30)) + burst,
		Buffer:     uint32(uint64(burst) * uint64(netlink.TickInUsec()*1e6) / max(rate, 1)),
	}
}

// disconnect deletes the host end, and with it the pod's and all routes.
func disconnect(s podnet.Sandbox) error {
	link, err := netlink.LinkByName(LinkName(s))
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if gone(err) {
		return nil
	}
	return err
}

func gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV)
}

// addressesOf returns the addresses routed to a sandbox; none when it is gone.
func addressesOf(s podnet.Sandbox) ([]netip.Addr, error) {
	link, err := netlink.LinkByName(LinkName(s))
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return routedTo(link)
}

// routedTo returns the pod addresses of a link, IPv4 first.
func routedTo(link netlink.Link) ([]netip.Addr, error) {
	var ips []netip.Addr
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(link, family)
		if err != nil {
			return nil, fmt.Errorf("routes of %s: %w", link.Attrs().Name, err)
		}
		for _, r := range routes {
			if r.Dst == nil || r.Gw != nil || r.Protocol == unix.RTPROT_KERNEL {
				continue
			}
			if ones, bits := r.Dst.Mask.Size(); ones == bits {
				if ip, ok := netip.AddrFromSlice(r.Dst.IP); ok {
					ips = append(ips, ip.Unmap())
				}
			}
		}
	}
	return ips, nil
}

// ownLinks lists the host ends.
func ownLinks() ([]netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var own []netlink.Link
	for _, l := range links {
		if l.Type() == "veth" && strings.HasPrefix(l.Attrs().Name, linkPrefix) && len(l.Attrs().Name) == len(linkPrefix)+10 {
			own = append(own, l)
		}
	}
	return own, nil
}

// routedAddresses returns the addresses of all sandboxes.
func routedAddresses() ([]netip.Addr, error) {
	links, err := ownLinks()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, l := range links {
		ips, err := routedTo(l)
		if err != nil {
			return nil, err
		}
		all = append(all, ips...)
	}
	return all, nil
}

func removeLinks() error {
	links, err := ownLinks()
	for _, l := range links {
		if e := netlink.LinkDel(l); !gone(e) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func single(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}

func everywhere(v6 bool) *net.IPNet {
	if v6 {
		return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
}

// uplinkMTU is the MTU of the default route's link.
func uplinkMTU() int {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return defaultMTU
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU > 0 {
			return link.Attrs().MTU
		}
	}
	return defaultMTU
}

// enableForwarding lets the host route between pods.
func enableForwarding(v6 bool) error {
	if v6 {
		return writeSysctl("net/ipv6/conf/all/forwarding", "1")
	}
	return writeSysctl("net/ipv4/ip_forward", "1")
}

// writeSysctl changes a kernel setting unless it has the value already: the
// file may be read-only then.
func writeSysctl(name, value string) error {
	path := "/proc/sys/" + name
	now, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting %s: %w", strings.ReplaceAll(name, "/", "."), err)
	}
	return nil
}
