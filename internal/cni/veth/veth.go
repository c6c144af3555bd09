// SPDX-License-Identifier: Apache-2.0

// Package veth is the embedded pod network: every sandbox gets a veth pair
// whose host end carries a route to the pod's address, so that all packets
// between pods are routed by the host and pass its netfilter hooks (a bridge
// would hide those between its ports). The embedded container runtime calls it
// through podnet.
//
// The kernel is its ledger: an address is taken while a route to it over a
// link of this package exists. Nothing is kept in files, so nothing can leak or
// disagree after a crash. It programs the table kaji-pods for masquerading and
// host ports, and never touches anything else.
package veth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"

	"kaji/internal/podnet"
)

// Config says how pods are connected.
type Config struct {
	// ClusterCIDRs are the ranges reached with the pod's own source address:
	// the pods of all nodes. Packets to anywhere else are masqueraded.
	ClusterCIDRs []netip.Prefix
	// MTU of the pods' interfaces; zero takes that of the default route's link.
	MTU int
	// After are the addresses that were given last, one a family: the next ones
	// follow them. Without, those follow the highest in use.
	After  []netip.Addr
	Logger *slog.Logger
}

// Network connects sandboxes with routed veth pairs.
type Network struct {
	c Config

	mu     sync.Mutex
	pools  []*pool         // one a family, as the node's pod CIDRs come
	tables map[bool]*rules // by IPv6
}

var _ podnet.Network = (*Network)(nil)

// New returns a network that is ready once it knows the node's pod CIDRs.
func New(c Config) *Network {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Network{c: c, tables: map[bool]*rules{}}
}

// SetPodCIDRs implements podnet.Network. Sandboxes connected under an earlier
// range keep their addresses.
func (n *Network) SetPodCIDRs(_ context.Context, cidrs []netip.Prefix) error {
	return n.open(cidrs, true)
}

// Resume is SetPodCIDRs for a process that knows that the rules are written,
// for the same Config and ranges; only where they are gone it writes them.
func (n *Network) Resume(cidrs []netip.Prefix) error { return n.open(cidrs, false) }

func (n *Network) open(cidrs []netip.Prefix, write bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if samePools(n.pools, cidrs) {
		return nil
	}
	taken, err := routedAddresses()
	if err != nil {
		return err
	}
	var pools []*pool
	for _, cidr := range cidrs {
		p, err := newPool(cidr, taken, n.c.After)
		if err != nil {
			return err
		}
		pools = append(pools, p)
	}
	for _, p := range pools {
		v6 := p.cidr.Addr().Is6()
		table, err := newRules(v6)
		if err != nil {
			return err
		}
		n.tables[v6] = table
		if !write && table.exists() {
			continue
		}
		if err := enableForwarding(v6); err != nil {
			return err
		}
		if err := table.reset(p.cidr, append(n.c.ClusterCIDRs, p.cidr)); err != nil {
			return err
		}
	}
	n.pools = pools
	n.c.Logger.Info("pod network ready", "podCIDRs", cidrs)
	return nil
}

func samePools(pools []*pool, cidrs []netip.Prefix) bool {
	if len(pools) != len(cidrs) {
		return false
	}
	for i, p := range pools {
		if p.cidr != cidrs[i].Masked() {
			return false
		}
	}
	return true
}

// Ready implements podnet.Network.
func (n *Network) Ready(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.pools) == 0 {
		return errors.New("no pod CIDR assigned to the node yet")
	}
	return nil
}

// Setup implements podnet.Network.
func (n *Network) Setup(_ context.Context, s podnet.Sandbox) (*podnet.Result, error) {
	n.mu.Lock()
	if len(n.pools) == 0 {
		n.mu.Unlock()
		return nil, errors.New("no pod CIDR assigned to the node yet")
	}
	var addrs []address
	for _, p := range n.pools {
		ip, err := p.take()
		if err != nil {
			n.release(addrs)
			n.mu.Unlock()
			return nil, err
		}
		addrs = append(addrs, address{ip: ip, gateway: p.gateway})
	}
	n.mu.Unlock()

	// The links are made outside the lock: sandboxes start side by side.
	err := connect(s, addrs, n.c.MTU)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		err = n.publish(s, addrs)
	}
	if err != nil {
		if undo := disconnect(s); undo != nil {
			err = errors.Join(err, undo)
		}
		n.release(addrs)
		return nil, fmt.Errorf("connecting pod %s/%s: %w", s.Namespace, s.Name, err)
	}
	return result(s, addrs), nil
}

func result(s podnet.Sandbox, addrs []address) *podnet.Result {
	r := &podnet.Result{Interface: inside(s)}
	for _, a := range addrs {
		r.IPs = append(r.IPs, a.ip)
	}
	return r
}

// publish makes the host ports; n.mu is held.
func (n *Network) publish(s podnet.Sandbox, addrs []address) error {
	if len(s.Ports) == 0 {
		return nil
	}
	for _, a := range addrs {
		if err := n.tables[a.ip.Is6()].publish(a.ip, s.Ports); err != nil {
			return err
		}
	}
	return nil
}

// release gives addresses back; n.mu is held.
func (n *Network) release(addrs []address) {
	for _, a := range addrs {
		for _, p := range n.pools {
			p.release(a.ip)
		}
	}
}

// Teardown implements podnet.Network.
func (n *Network) Teardown(_ context.Context, s podnet.Sandbox) error {
	ips, err := addressesOf(s)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, ip := range ips {
		if table := n.tables[ip.Is6()]; table != nil {
			if err := table.unpublish(ip); err != nil {
				return err
			}
		}
	}
	if err := disconnect(s); err != nil {
		return err
	}
	for _, ip := range ips {
		for _, p := range n.pools {
			p.release(ip)
		}
	}
	return nil
}

// Check implements podnet.Network.
func (n *Network) Check(_ context.Context, s podnet.Sandbox) (*podnet.Result, error) {
	ips, err := addressesOf(s)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("pod %s/%s has no address: its interface is gone", s.Namespace, s.Name)
	}
	return &podnet.Result{IPs: ips, Interface: inside(s)}, nil
}

// Prune disconnects the sandboxes that are none of those that are live, and
// returns their host ports.
func (n *Network) Prune(live []podnet.Sandbox) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := map[string]bool{}
	for _, s := range live {
		names[LinkName(s)] = true
	}
	links, err := ownLinks()
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if names[link.Attrs().Name] {
			continue
		}
		ips, err := routedTo(link)
		errs = append(errs, err)
		for _, ip := range ips {
			if table := n.tables[ip.Is6()]; table != nil {
				errs = append(errs, table.unpublish(ip))
			}
		}
		if err := netlink.LinkDel(link); !gone(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Remove deletes everything the package made on this host.
func (n *Network) Remove() error {
	return errors.Join(removeLinks(), removeRules())
}
