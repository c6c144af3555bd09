// SPDX-License-Identifier: Apache-2.0

package loadbalancer

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/loadbalancer/neighbour"
)

// peers are the nodes and when each was heard last.
type peers struct {
	mu    sync.Mutex
	nodes []peer
	heard map[netip.Addr]time.Time
}

// peer is one node, this one too.
type peer struct {
	name     string
	addrs    []netip.Addr
	excluded bool // it shall not answer while another can
	self     bool
}

// know takes over the nodes. One that is ready counts as heard when it is met
// first: it may have had no reason to speak.
func (p *peers) know(nodes []*corev1.Node, self string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes = p.nodes[:0]
	known, now := map[netip.Addr]bool{}, time.Now()
	for _, n := range nodes {
		one := peer{name: n.Name, self: n.Name == self, excluded: excluded(n)}
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
				one.addrs, known[addr] = append(one.addrs, addr), true
				if _, met := p.heard[addr]; !met && ready(n) {
					p.heard[addr] = now
				}
			}
		}
		p.nodes = append(p.nodes, one)
	}
	for addr := range p.heard {
		if !known[addr] {
			delete(p.heard, addr)
		}
	}
}

func excluded(n *corev1.Node) bool {
	_, label := n.Labels[corev1.LabelNodeExcludeBalancers]
	return label || n.DeletionTimestamp != nil ||
		slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "ToBeDeletedByClusterAutoscaler" })
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// any says whether there are nodes besides this one.
func (p *peers) any() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.nodes, func(n peer) bool { return !n.self })
}

func (p *peers) isSelf(addr netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.nodes, func(n peer) bool { return n.self && slices.Contains(n.addrs, addr) })
}

// hear notes that an address was announced; true says that its node had been
// silent.
func (p *peers) hear(addr netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.ContainsFunc(p.nodes, func(n peer) bool { return !n.self && slices.Contains(n.addrs, addr) }) {
		return false
	}
	silent := !p.alive(addr)
	p.heard[addr] = time.Now()
	return silent
}

// alive says whether an address was heard lately; p.mu is held.
func (p *peers) alive(addr netip.Addr) bool {
	last, met := p.heard[addr]
	return met && time.Since(last) < patience
}

// first returns the node that answers for an address: of those alive the first
// by rank, better one that can take the packets on, and none that shall not.
func (p *peers) first(addr netip.Addr, w want, self string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	best, bestRank, bestClass := self, uint64(0), -1
	for _, n := range p.nodes {
		if !n.self && !slices.ContainsFunc(n.addrs, p.alive) {
			continue
		}
		class := 0
		if !n.excluded {
			class++
		}
		if w.near == nil || w.near[n.name] {
			class += 2
		}
		if r := rank(n.name, addr); class > bestClass || class == bestClass && r > bestRank {
			best, bestRank, bestClass = n.name, r, class
		}
	}
	return best
}

// rank orders the nodes for an address, the same everywhere.
func rank(node string, addr netip.Addr) uint64 {
	sum := sha256.Sum256([]byte(node + " " + addr.String()))
	return binary.BigEndian.Uint64(sum[:8])
}

// hear is called for what the neighbours say on a link.
func (a *Announcer) hear(on *link, m neighbour.Message) {
	if !m.Asked {
		if a.peers.hear(m.Addr) {
			a.mu.Lock()
			a.rejoined = true
			a.mu.Unlock()
			a.notify()
		}
		return
	}
	a.mu.Lock()
	answer := a.mine[m.Addr] == on
	a.mu.Unlock()
	if answer {
		// He asks again when the answer is lost.
		_ = on.Answer(m)
	}
}
