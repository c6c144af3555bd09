// SPDX-License-Identifier: Apache-2.0

// Package kernel keeps a node's nftables in step with the frontends of package
// plan. Package proxy is its only caller.
//
// All state is elements of a few maps; chains depend only on the shape of a
// target (how many backends, whose packets are masqueraded, affinity), so that
// Services share them. A change of one endpoint is one transaction of a few
// elements, whatever the number of Services:
//
//	services    address . protocol . port          → goto <shape>
//	node-ports  protocol . port                    → goto <shape>
//	backends    address . protocol . port . index  → address . port
//
// The chain of a shape draws an index below its number of backends and looks
// the backend up by the packet's own destination.
//
// It writes only its own tables, one per family, named kaji-proxy.
package kernel

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"kaji/internal/netfilter"
	"kaji/internal/proxy/plan"
)

// TableName is the name of the tables, in family ip and ip6.
const TableName = "kaji-proxy"

// Config says what is programmed.
type Config struct {
	// IPv6 selects the family of this Kernel.
	IPv6 bool
	// PodCIDRs are the cluster's pod ranges of the family; packets from
	// outside them are masqueraded on their way to a ClusterIP. Without any, and
	// without PodLinks, nobody can be told from pods: nothing is.
	PodCIDRs []netip.Prefix
	// PodLinks, unless empty, tells packets of pods by the link they come over
	// instead: its name, or how that begins when it ends in "*".
	PodLinks string
	// MasqueradeAll masquerades all packets to ClusterIPs.
	MasqueradeAll bool
	// NodePorts are the ranges of the node's addresses that node ports answer at;
	// none is all addresses.
	NodePorts []netip.Prefix
	// Services are the ranges of ClusterIPs. What goes to an address of theirs
	// that no Service has is dropped.
	Services []netip.Prefix
	// Localhost lets node ports answer at 127.0.0.1 too. The kernel must be
	// willing to route that (route_localnet); packets of the network that claim
	// to come from there or go there are dropped then.
	Localhost bool
	// NetNS is a file descriptor of the network namespace; zero is the own one.
	NetNS int
}

// Kernel programs one family. It is used by one goroutine.
type Kernel struct {
	c        Config
	conn     *nftables.Conn
	table    *nftables.Table
	rule     netfilter.Rules
	sets     sets
	current  map[plan.Frontend]plan.Target
	chains   map[string]int     // references to each shape's chain
	hairpins map[netip.Addr]int // frontends each backend has; zero is one that leaves
	leaving  []netip.Addr       // backends without frontends since the last change
	vips     map[netip.Addr]int // how many frontends each ClusterIP has
}

// New opens a connection to the kernel. Nothing is written before Reset.
func New(c Config) (*Kernel, error) {
	conn, err := netfilter.Open(c.NetNS)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return &Kernel{c: c, conn: conn, rule: netfilter.For(c.IPv6),
		table: &nftables.Table{Name: TableName, Family: netfilter.TableFamily(c.IPv6)}}, nil
}

// Reset replaces the whole table by all, in one transaction: traffic sees
// either the old rules or the new ones.
func (k *Kernel) Reset(all map[plan.Frontend]plan.Target) error {
	k.conn.AddTable(k.table) // so that the deletion cannot fail
	k.conn.DelTable(k.table)
	k.conn.AddTable(k.table)
	k.current = map[plan.Frontend]plan.Target{}
	k.chains, k.hairpins, k.vips, k.leaving = map[string]int{}, map[netip.Addr]int{}, map[netip.Addr]int{}, nil
	if err := k.base(); err != nil {
		return err
	}
	return k.apply(all, nil)
}

// Apply sets and removes frontends in one transaction. After an error no
// frontend has changed; Reset is the way back.
func (k *Kernel) Apply(set map[plan.Frontend]plan.Target, removed []plan.Frontend) error {
	if err := k.prepare(set); err != nil {
		return err
	}
	return k.apply(set, removed)
}

// SetServices replaces the ranges of ClusterIPs, from the next Reset on.
func (k *Kernel) SetServices(ranges []netip.Prefix) { k.c.Services = ranges }

// Remove deletes the table.
func (k *Kernel) Remove() error {
	k.conn.AddTable(k.table)
	k.conn.DelTable(k.table)
	return k.conn.Flush()
}

// change collects the elements of one transaction.
type change struct {
	add, del map[*nftables.Set][]nftables.SetElement
	unused   []string // chains without references afterwards
}

func (k *Kernel) apply(set map[plan.Frontend]plan.Target, removed []plan.Frontend) error {
	c := &change{add: map[*nftables.Set][]nftables.SetElement{}, del: map[*nftables.Set][]nftables.SetElement{}}
	stale, fresh := map[plan.Backend]bool{}, len(k.current) == 0
	k.part(c)
	for _, f := range removed {
		if old, ok := k.current[f]; ok {
			k.drop(c, f, old, stale)
			delete(k.current, f)
		}
	}
	for f, t := range set {
		old, ok := k.current[f]
		if ok && old.Equal(t) {
			continue
		}
		if ok {
			k.drop(c, f, old, stale)
		}
		if err := k.put(c, f, t); err != nil {
			return err
		}
		k.current[f] = t
		if fresh {
			if err := k.spill(c); err != nil {
				return err
			}
		}
	}
	if err := k.forgetAffinity(c, stale); err != nil {
		return err
	}
	if err := k.write(c); err != nil {
		return err
	}
	return k.collect()
}

// spillSize is how many elements wait for a message of their own.
const spillSize = 400

// spill makes messages of what was gathered, where nothing is deleted that had
// to go first: large slices of elements need not grow then.
func (k *Kernel) spill(c *change) error {
	for set, elements := range c.add {
		if len(elements) < spillSize {
			continue
		}
		if err := netfilter.AddElements(k.conn, set, elements); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
		c.add[set] = elements[:0]
	}
	return nil
}

// write sends deletions before additions: an element may be replaced.
func (k *Kernel) write(c *change) error {
	for set := range c.del {
		c.del[set], c.add[set] = cancel(c.del[set], c.add[set])
	}
	for set, elements := range c.del {
		if err := netfilter.DeleteElements(k.conn, set, elements); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
	}
	for set, elements := range c.add {
		if err := netfilter.AddElements(k.conn, set, elements); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("proxy: writing nftables: %w", err)
	}
	return nil
}

// cancel leaves out what is deleted and added alike. It is more than thrift: a
// change of a verdict has the kernel look at all verdicts of the map, a change
// of a backend costs itself only.
func cancel(del, add []nftables.SetElement) (d, a []nftables.SetElement) {
	if len(del) == 0 || len(add) == 0 {
		return del, add
	}
	again := make(map[string]bool, len(del))
	for _, e := range del {
		again[identity(e)] = false
	}
	for _, e := range add {
		id := identity(e)
		if _, stays := again[id]; stays {
			again[id] = true
			continue
		}
		a = append(a, e)
	}
	for _, e := range del {
		if !again[identity(e)] {
			d = append(d, e)
		}
	}
	return d, a
}

func identity(e nftables.SetElement) string {
	chain := ""
	if e.VerdictData != nil {
		chain = e.VerdictData.Chain
	}
	return string(e.Key) + "/" + string(e.Val) + "/" + chain
}

// collect deletes the chains nobody goes to any more.
func (k *Kernel) collect() error {
	gone := false
	for name, refs := range k.chains {
		if refs == 0 {
			k.conn.DelChain(&nftables.Chain{Table: k.table, Name: name})
			delete(k.chains, name)
			gone = true
		}
	}
	if !gone {
		return nil
	}
	return k.conn.Flush()
}

// put adds a frontend's elements.
func (k *Kernel) put(c *change, f plan.Frontend, t plan.Target) error {
	chain, err := k.chainFor(f, t, 1)
	if err != nil {
		return err
	}
	k.elements(c.add, f, t, chain)
	if isClusterIP(f, t) {
		if k.vips[f.Addr]++; k.vips[f.Addr] == 1 {
			c.add[k.sets.clusterIPs] = append(c.add[k.sets.clusterIPs], nftables.SetElement{Key: f.Addr.AsSlice()})
		}
	}
	for _, b := range append(slices.Clone(t.Backends), t.Local...) {
		if _, known := k.hairpins[b.Addr]; !known {
			c.add[k.sets.hairpin] = append(c.add[k.sets.hairpin], nftables.SetElement{Key: netfilter.Pair(b.Addr, b.Addr)})
		}
		k.hairpins[b.Addr]++
	}
	return nil
}

// drop removes a frontend's elements.
func (k *Kernel) drop(c *change, f plan.Frontend, t plan.Target, stale map[plan.Backend]bool) {
	chain := shapeOf(f, t).name()
	k.chains[chain]--
	k.elements(c.del, f, t, chain)
	if isClusterIP(f, t) {
		if k.vips[f.Addr]--; k.vips[f.Addr] == 0 {
			delete(k.vips, f.Addr)
			c.del[k.sets.clusterIPs] = append(c.del[k.sets.clusterIPs], nftables.SetElement{Key: f.Addr.AsSlice()})
		}
	}
	if t.Sources != nil {
		k.chains[firewallName(f)]--
	}
	for _, b := range append(slices.Clone(t.Backends), t.Local...) {
		if t.Affinity > 0 {
			stale[b] = true
		}
		if k.hairpins[b.Addr]--; k.hairpins[b.Addr] == 0 {
			k.leaving = append(k.leaving, b.Addr)
		}
	}
}

// part forgets the backends that left with the change before: the packet of one
// that was sent to itself then has passed by now.
func (k *Kernel) part(c *change) {
	for _, addr := range k.leaving {
		if n, known := k.hairpins[addr]; known && n == 0 {
			delete(k.hairpins, addr)
			c.del[k.sets.hairpin] = append(c.del[k.sets.hairpin], nftables.SetElement{Key: netfilter.Pair(addr, addr)})
		}
	}
	k.leaving = nil
}

// isClusterIP: only those masquerade by where a packet comes from.
func isClusterIP(f plan.Frontend, t plan.Target) bool {
	return !f.IsNodePort() && t.Masquerade == plan.MasqueradeOutside
}

// elements appends what a frontend contributes to each map.
func (k *Kernel) elements(to map[*nftables.Set][]nftables.SetElement, f plan.Frontend, t plan.Target, chain string) {
	verdict := func(set *nftables.Set, key []byte, chain string) {
		to[set] = append(to[set], nftables.SetElement{Key: key, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}})
	}
	key := frontendKey(f)
	vips, refused := k.sets.services, k.sets.refused
	if f.IsNodePort() {
		key = key[len(f.Addr.AsSlice()):]
		vips, refused = k.sets.nodePorts, k.sets.refusedPorts
	}
	if t.Sources != nil {
		verdict(k.sets.firewall, frontendKey(f), firewallName(f))
	}
	if len(t.Backends) == 0 {
		verdict(refused, key, chain)
		return
	}
	verdict(vips, key, chain)
	for set, backends := range map[*nftables.Set][]plan.Backend{k.sets.backends: t.Backends, k.sets.local: t.Local} {
		for i, b := range backends {
			to[set] = append(to[set], nftables.SetElement{
				Key: append(frontendKey(f), binaryutil.NativeEndian.PutUint32(uint32(i))...),
				Val: netfilter.Endpoint(b.Addr, b.Port),
			})
		}
	}
}

// forgetAffinity removes the remembered clients of backends that went away.
func (k *Kernel) forgetAffinity(c *change, stale map[plan.Backend]bool) error {
	if len(stale) == 0 {
		return nil
	}
	for _, t := range k.current {
		for _, b := range t.Backends {
			delete(stale, b)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	remembered, err := k.conn.GetSetElements(k.sets.affinity)
	if err != nil {
		return fmt.Errorf("proxy: reading client affinity: %w", err)
	}
	for _, e := range remembered {
		for b := range stale {
			if slices.Equal(e.Val, netfilter.Endpoint(b.Addr, b.Port)) {
				c.del[k.sets.affinity] = append(c.del[k.sets.affinity], nftables.SetElement{Key: e.Key})
			}
		}
	}
	return nil
}

func frontendKey(f plan.Frontend) []byte {
	return append(slices.Clone(f.Addr.AsSlice()), netfilter.PortKey(string(f.Protocol), f.Port)...)
}
