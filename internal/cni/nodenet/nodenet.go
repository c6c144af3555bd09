// SPDX-License-Identifier: Apache-2.0

// Package nodenet makes several nodes on one machine: each is a network
// namespace on a bridge, with the machine as its gateway. Package app uses it
// for clusters of more than one node; the node agent inside does not know.
//
// The bridge has a namespace of its own. In the machine's the rules of its
// packet filter would see what nodes send one another wherever br_netfilter is
// loaded, and what a node sends by another to itself would be bridged back to
// where it came from, which bridges do not.
package nodenet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"kaji/internal/netfilter"
)

// Network is the link of a cluster's nodes on this machine.
type Network struct {
	// Cluster names what is made.
	Cluster string
	// Subnet holds the nodes' addresses; the machine has the first.
	Subnet netip.Prefix
}

// Gateway is the machine's address on the bridge.
func (n Network) Gateway() netip.Addr { return n.Subnet.Masked().Addr().Next() }

// Address is that of the i-th node, the machine itself being the first.
func (n Network) Address(i int) netip.Addr {
	addr := n.Gateway()
	for range i - 1 {
		addr = addr.Next()
	}
	return addr
}

// link names fit into 15 letters and differ between clusters.
func (n Network) link(kind string, i int) string {
	return fmt.Sprintf("kj%s%d-%08x", kind, i, uint32(netfilter.Hash([]byte(n.Cluster))))
}

// Plug is the machine's link to the bridge.
func (n Network) Plug() string { return n.link("b", 0) }

// hub is the namespace of the bridge. No node's name begins with a dot.
func (n Network) hub() string { return n.Namespace(".hub") }

const bridge = "nodes"

// podLinks is how the names of pods' links begin on the machine, in package veth.
const podLinks = "kaji"

// Namespace is the name of a node's namespace. A dot is in no cluster's name.
func (n Network) Namespace(node string) string { return "kaji." + n.Cluster + "." + node }

func missing(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none)
}

// Open makes the bridge and lets the nodes out through the machine.
func (n Network) Open() error {
	hub, fresh, err := namespace(n.hub())
	if err != nil {
		return fmt.Errorf("namespace of the nodes' bridge: %w", err)
	}
	defer hub.Close()
	link, err := netlink.LinkByName(n.Plug())
	if err == nil && (fresh || link.Type() != "veth") { // of a former life
		if err := netlink.LinkDel(link); err != nil {
			return fmt.Errorf("old link to the nodes' bridge: %w", err)
		}
		link, err = netlink.LinkByName(n.Plug())
	}
	if missing(err) {
		if err := n.build(hub); err != nil {
			return fmt.Errorf("bridge of the nodes: %w", err)
		}
		link, err = netlink.LinkByName(n.Plug())
	}
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: n.Gateway().AsSlice(), Mask: net.CIDRMask(n.Subnet.Bits(), n.Subnet.Addr().BitLen())}}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address of the nodes' bridge: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	return n.masquerade(true)
}

func (n Network) table() *nftables.Table {
	return &nftables.Table{Name: "kaji-nodes-" + n.Cluster, Family: nftables.TableFamilyIPv4}
}

// masquerade hides the nodes behind the machine's addresses, or no longer.
func (n Network) masquerade(on bool) error {
	conn, err := netfilter.Open(0)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	table := n.table()
	if _, err := conn.ListTableOfFamily(table.Name, table.Family); err == nil {
		conn.DelTable(table)
	} else if !on {
		return nil
	}
	if on {
		conn.AddTable(table)
		chain := conn.AddChain(&nftables.Chain{Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		set := &nftables.Set{Table: table, Name: "nodes", Interval: true, KeyType: nftables.TypeIPAddr}
		if err := conn.AddSet(set, netfilter.Interval(n.Subnet.Masked())); err != nil {
			return err
		}
		rules := netfilter.For(false)
		// Pods of the machine see nodes by their addresses.
		out := []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte(n.Plug() + "\x00")},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte(podLinks)}}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: netfilter.Join(rules.SourceIn(set, false), out, []expr.Any{netfilter.Masquerade()})})
	}
	return conn.Flush()
}

// build makes the bridge inside its namespace and plugs the machine into it.
func (n Network) build(hub netns.NsHandle) error {
	inside, err := netlink.NewHandleAt(hub)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(bridge)
	if missing(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridge
		if err := inside.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		link, err = inside.LinkByName(bridge)
	}
	if err != nil {
		return err
	}
	if err := inside.LinkSetUp(link); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Plug()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "machine", PeerNamespace: netlink.NsFd(hub)}); err != nil {
		return err
	}
	port, err := inside.LinkByName("machine")
	if err != nil {
		return err
	}
	if err := inside.LinkSetMaster(port, link); err != nil {
		return err
	}
	return inside.LinkSetUp(port)
}

// Add makes the namespace of the i-th node, if it is not there yet.
func (n Network) Add(node string, i int) error {
	handle, fresh, err := namespace(n.Namespace(node))
	if err != nil {
		return fmt.Errorf("namespace of node %s: %w", node, err)
	}
	defer handle.Close()
	hub, err := netns.GetFromName(n.hub())
	if err != nil {
		return fmt.Errorf("namespace of the nodes' bridge: %w", err)
	}
	defer hub.Close()
	inside, err := netlink.NewHandleAt(hub)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(n.link("n", i))
	if err == nil && fresh {
		// A process in a namespace that has lost its name keeps its link, too.
		if err := inside.LinkDel(link); err != nil {
			return fmt.Errorf("old link of node %s: %w", node, err)
		}
		_, err = inside.LinkByName(n.link("n", i))
	}
	if missing(err) {
		err = n.connect(inside, handle, i)
	}
	if err != nil {
		return fmt.Errorf("link of node %s: %w", node, err)
	}
	return nil
}

// namespace opens a named namespace; fresh says that it was not there.
func namespace(name string) (handle netns.NsHandle, fresh bool, err error) {
	handle, err = netns.GetFromName(name)
	if errors.Is(err, os.ErrNotExist) {
		handle, err = newNamespace(name)
		fresh = true
	}
	return handle, fresh, err
}

// newNamespace makes a named namespace; the calling thread stays where it is.
func newNamespace(name string) (netns.NsHandle, error) {
	type result struct {
		handle netns.NsHandle
		err    error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		handle, err := netns.NewNamed(name)
		done <- result{handle, err}
	}()
	r := <-done
	return r.handle, r.err
}

func (n Network) connect(hub *netlink.Handle, handle netns.NsHandle, i int) error {
	// Before the bridge had a namespace the link was the machine's.
	if old, err := netlink.LinkByName(n.link("n", i)); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return err
		}
	}
	to, err := hub.LinkByName(bridge)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = n.link("n", i), to.Attrs().Index
	if err := hub.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(handle)}); err != nil {
		return err
	}
	host, err := hub.LinkByName(attrs.Name)
	if err != nil {
		return err
	}
	if err := hub.LinkSetUp(host); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(handle)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := inside.LinkByName(name)
		if err != nil {
			return err
		}
		if err := inside.LinkSetUp(link); err != nil {
			return err
		}
		if name == "lo" {
			continue
		}
		ip := &net.IPNet{IP: n.Address(i).AsSlice(), Mask: net.CIDRMask(n.Subnet.Bits(), n.Subnet.Addr().BitLen())}
		if err := inside.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
			return err
		}
		if err := inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.Gateway().AsSlice()}); err != nil {
			return err
		}
	}
	return nil
}

// Do runs f on a thread inside a node's namespace; processes that f starts are
// inside, too.
func (n Network) Do(node string, f func() error) error {
	handle, err := netns.GetFromName(n.Namespace(node))
	if err != nil {
		return err
	}
	defer handle.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := netns.Set(handle); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// Close removes all namespaces of the cluster, its bridge and its rules.
func (n Network) Close() error {
	var errs []error
	link, err := netlink.LinkByName(n.Plug())
	switch {
	case err == nil:
		errs = append(errs, netlink.LinkDel(link))
	case !missing(err):
		errs = append(errs, err)
	}
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), n.Namespace("")) {
			errs = append(errs, netns.DeleteNamed(e.Name()))
		}
	}
	if err := n.masquerade(false); err != nil && !errors.Is(err, syscall.ENOENT) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
