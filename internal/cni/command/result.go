// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"kaji/internal/cni/veth"
	"kaji/internal/podnet"
)

// podEnd is the index of the pod's interface in a result; the node's comes first.
const podEnd = 1

// result tells the runtime what a pod got.
func (c *config) result(s podnet.Sandbox, got *podnet.Result) (*current.Result, error) {
	out := &current.Result{CNIVersion: current.ImplementedSpecVersion, DNS: c.DNS}
	host, err := netlink.LinkByName(veth.LinkName(s))
	if err != nil {
		return nil, err
	}
	pod, err := podLink(s)
	if err != nil {
		return nil, err
	}
	out.Interfaces = []*current.Interface{
		{Name: host.Attrs().Name, Mac: host.Attrs().HardwareAddr.String(), Mtu: host.Attrs().MTU},
		{Name: pod.Attrs().Name, Mac: pod.Attrs().HardwareAddr.String(), Mtu: pod.Attrs().MTU, Sandbox: s.Netns}}
	index := podEnd
	for _, ip := range got.IPs {
		gateway := c.gateway(ip)
		out.IPs = append(out.IPs, &current.IPConfig{Interface: &index, Address: whole(ip), Gateway: gateway})
		everywhere := net.IPNet{IP: make(net.IP, ip.BitLen()/8), Mask: net.CIDRMask(0, ip.BitLen())}
		out.Routes = append(out.Routes, &types.Route{Dst: everywhere, GW: gateway})
	}
	return out, nil
}

func whole(ip netip.Addr) net.IPNet {
	return net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}

// gateway is the node's address towards pods of the range.
func (c *config) gateway(ip netip.Addr) net.IP {
	for _, p := range c.PodCIDRs {
		if p.Contains(ip) {
			return p.Masked().Addr().Next().AsSlice()
		}
	}
	return nil
}

func podLink(s podnet.Sandbox) (netlink.Link, error) {
	inside, err := enter(s)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	link, err := inside.LinkByName(s.Interface)
	if err != nil {
		return nil, fmt.Errorf("interface %s of the pod: %w", s.Interface, err)
	}
	return link, nil
}

func enter(s podnet.Sandbox) (*netlink.Handle, error) {
	ns, err := netns.GetFromPath(s.Netns)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", s.Netns, err)
	}
	defer ns.Close()
	return netlink.NewHandleAt(ns)
}

// compare says where a pod is not connected as it was: by its addresses on the
// node's side, inside, and in what the runtime remembers.
func (c *config) compare(s podnet.Sandbox, got *podnet.Result) error {
	if c.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult is needed for CHECK", "")
	}
	before, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return err
	}
	inside, err := enter(s)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(s.Interface)
	if err != nil {
		return fmt.Errorf("interface %s of the pod: %w", s.Interface, err)
	}
	addresses, err := inside.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, ip := range got.IPs {
		if !slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.Equal(ip.AsSlice()) }) {
			return fmt.Errorf("interface %s of the pod has lost the address %s", s.Interface, ip)
		}
	}
	for _, ip := range before.IPs {
		// A later plug-in of the chain may have added some, on links of its own.
		if ip.Interface == nil || *ip.Interface != podEnd {
			continue
		}
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok && !slices.Contains(got.IPs, addr.Unmap()) {
			return fmt.Errorf("no route leads to the pod's address %s", addr.Unmap())
		}
	}
	return nil
}
