// SPDX-License-Identifier: Apache-2.0

// Package mesh keeps the ways from this node to the pods of the others: a route
// over the other node's address where both share a link, VXLAN where they do
// not, and for pods of a family that the nodes have no addresses of. On a machine
// without a default route it also keeps one to ClusterIPs, which the kernel wants
// before the service proxy's rules see a packet. Package app runs it on each node
// beside the service proxy.
//
// The kernel is its ledger: routes carry a protocol number of their own, and
// what is not wanted any more is found by that and taken away. It touches no
// other routes and one link, kaji.vxlan.
package mesh

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/client"
)

// Config says which node this is.
type Config struct {
	Client   client.Interface
	NodeName string
	Logger   *slog.Logger
}

// Mesh keeps routes. Create it with New.
type Mesh struct {
	cfg   Config
	nodes client.Typed[*corev1.Node]
	cidrs client.Typed[*networkingv1.ServiceCIDR]
	wake  chan struct{}
	log   *slog.Logger
}

// again is when a way that could not be made is tried again.
const again = 10 * time.Second

// New returns a mesh.
func New(cfg Config) *Mesh {
	m := &Mesh{cfg: cfg, nodes: client.For[*corev1.Node](cfg.Client), cidrs: client.For[*networkingv1.ServiceCIDR](cfg.Client), wake: make(chan struct{}, 1), log: cfg.Logger}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	changed := func() {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
	m.nodes.AddHandler(client.Handler[*corev1.Node]{
		Add: func(*corev1.Node) { changed() },
		Update: func(old, n *corev1.Node) {
			if old.Spec.PodCIDR != n.Spec.PodCIDR || !slices.Equal(old.Spec.PodCIDRs, n.Spec.PodCIDRs) || !slices.Equal(old.Status.Addresses, n.Status.Addresses) {
				changed()
			}
		},
		Delete: func(*corev1.Node) { changed() },
	})
	m.cidrs.AddHandler(client.Handler[*networkingv1.ServiceCIDR]{
		Add:    func(*networkingv1.ServiceCIDR) { changed() },
		Update: func(_, _ *networkingv1.ServiceCIDR) { changed() },
		Delete: func(*networkingv1.ServiceCIDR) { changed() },
	})
	return m
}

// Run keeps the ways until ctx ends. They stay afterwards: pods go on talking
// while the process is away.
func (m *Mesh) Run(ctx context.Context) error {
	m.cfg.Client.Start(ctx)
	if !client.WaitForSync(ctx, m.nodes.Informer()) {
		return nil
	}
	for {
		var retry <-chan time.Time
		if err := apply(m.own(), m.peers(), m.services()); err != nil {
			m.log.Error("the ways to other nodes are not complete, this is tried again", "err", err)
			retry = time.After(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-retry:
		}
	}
}

// peer is another node's pods and where the node is reached.
type peer struct {
	pods netip.Prefix
	// node is an address of the pods' family, the zero Addr where the node has
	// none; over, its first address, is the end of the overlay.
	node, over netip.Addr
}

// peers returns the ranges of the other nodes.
func (m *Mesh) peers() []peer {
	var out []peer
	for _, n := range m.nodes.CachedList("", nil) {
		if n.Name == m.cfg.NodeName {
			continue
		}
		addrs := addresses(n)
		if len(addrs) == 0 {
			continue
		}
		for _, cidr := range ranges(n) {
			p := peer{pods: cidr, over: addrs[0]}
			if i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == cidr.Addr().Is4() }); i >= 0 {
				p.node = addrs[i]
			}
			out = append(out, p)
		}
	}
	return out
}

// services returns the ranges of ClusterIPs, as far as they are known.
func (m *Mesh) services() []netip.Prefix {
	var out []netip.Prefix
	for _, c := range m.cidrs.CachedList("", nil) {
		for _, text := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				out = append(out, p.Masked())
			}
		}
	}
	return out
}

// own returns this node's ranges and addresses.
func (m *Mesh) own() self {
	n, err := m.nodes.Cached("", m.cfg.NodeName)
	if err != nil {
		return self{}
	}
	return self{ranges(n), addresses(n)}
}

type self struct {
	pods  []netip.Prefix
	addrs []netip.Addr
}

func ranges(n *corev1.Node) []netip.Prefix {
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 {
		texts = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

func addresses(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				out = append(out, addr)
			}
		}
	}
	return out
}
