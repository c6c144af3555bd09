// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kaji/internal/netfilter"
	"kaji/internal/proxy/plan"
)

// shape is everything of a target that its rules depend on. Frontends of one
// shape share a chain.
type shape struct {
	node        bool
	masquerade  plan.Masquerade
	all, local  int
	preferLocal bool
	drop        bool
	affinity    time.Duration
}

func shapeOf(f plan.Frontend, t plan.Target) shape {
	if len(t.Backends) == 0 {
		return shape{drop: t.Drop}
	}
	return shape{node: f.IsNodePort(), masquerade: t.Masquerade, all: len(t.Backends), local: len(t.Local),
		preferLocal: t.PreferLocal, affinity: t.Affinity}
}

func (s shape) name() string {
	switch {
	case s.all == 0 && s.drop:
		return chainDrop
	case s.all == 0:
		return chainRefuse
	}
	name := [...]string{plan.MasqueradeOutside: "cluster", plan.MasqueradeAll: "external", plan.MasqueradeNone: "local"}[s.masquerade]
	if s.node {
		name = "node-" + name
	}
	name = fmt.Sprintf("%s-%d", name, s.all)
	if s.preferLocal {
		name = fmt.Sprintf("%s-here-%d", name, s.local)
	}
	if s.affinity > 0 {
		name = fmt.Sprintf("%s-affinity-%d", name, int(s.affinity.Seconds()))
	}
	return name
}

// chainFor returns the chain of a target, made if it is new, and counts its
// references.
func (k *Kernel) chainFor(f plan.Frontend, t plan.Target, refs int) (string, error) {
	if t.Sources != nil {
		k.addFirewall(f, t)
		k.chains[firewallName(f)]++
	}
	s := shapeOf(f, t)
	name := s.name()
	if name == chainDrop || name == chainRefuse {
		k.chains[name] += refs + permanent(k.chains[name])
		return name, nil
	}
	if _, exists := k.chains[name]; !exists {
		k.chain(name, k.rules(s)...)
	}
	k.chains[name] += refs
	return name, nil
}

// prepare writes the chains that frontends need and that are not there, in a
// transaction of their own: a packet that is under way when a map leads to a
// chain of the same transaction would find it empty.
func (k *Kernel) prepare(set map[plan.Frontend]plan.Target) error {
	before := len(k.chains)
	for f, t := range set {
		if name := firewallName(f); t.Sources != nil && !k.has(name) {
			k.addFirewall(f, t)
			k.chains[name] = 0
		}
		if s := shapeOf(f, t); s.all > 0 && !k.has(s.name()) {
			k.chain(s.name(), k.rules(s)...)
			k.chains[s.name()] = 0
		}
	}
	if len(k.chains) == before {
		return nil
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("proxy: writing nftables: %w", err)
	}
	return nil
}

func (k *Kernel) has(chain string) bool {
	_, exists := k.chains[chain]
	return exists
}

// permanent gives the shared end chains one reference of their own.
func permanent(refs int) int {
	if refs == 0 {
		return 1
	}
	return 0
}

// rules are the chain of a shape.
func (k *Kernel) rules(s shape) [][]expr.Any {
	r := k.rule
	var rules [][]expr.Any
	switch s.masquerade {
	case plan.MasqueradeAll:
		rules = append(rules, r.Mark())
	case plan.MasqueradeOutside:
		if k.c.MasqueradeAll {
			rules = append(rules, r.Mark())
		} else if match, ok := k.fromPods(true); ok {
			rules = append(rules, append(match, r.Mark()...))
		}
	case plan.MasqueradeNone:
		if s.node && k.c.Localhost && !k.c.IPv6 {
			rules = append(rules, append(r.FromLoopback(), r.Mark()...))
		}
	}
	// Who finds no backend has come while the last one went. Dropped, the packet
	// comes again; let through, its connection would be taken for one to
	// nowhere from then on.
	end := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	if !s.preferLocal {
		return append(append(rules, k.balance(s, nil, k.sets.backends, s.all)...), end)
	}
	// Pods and the node itself are inside: for them every endpoint will do.
	if match, ok := k.fromPods(false); ok {
		rules = append(rules, k.balance(s, match, k.sets.backends, s.all)...)
	}
	rules = append(rules, k.balance(s, r.FromNode(), k.sets.backends, s.all)...)
	if s.local > 0 {
		rules = append(rules, k.balance(s, nil, k.sets.local, s.local)...)
	}
	return append(rules, end)
}

// fromPods matches packets of pods, or all others; false says that nothing tells
// them apart.
func (k *Kernel) fromPods(invert bool) ([]expr.Any, bool) {
	if k.c.PodLinks != "" {
		return netfilter.FromLink(k.c.PodLinks, invert), true
	}
	known := slices.ContainsFunc(k.c.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() == k.c.IPv6 })
	return k.rule.SourceIn(k.sets.pods, invert), known
}

// balance sends packets that match to one of n backends of a map. A packet keeps
// to the rules that it has begun with, but finds in the maps what is there by
// now: where its index is gone, there is still the first.
func (k *Kernel) balance(s shape, match []expr.Any, from *nftables.Set, n int) [][]expr.Any {
	r := k.rule
	var rules [][]expr.Any
	join := func(parts ...[]expr.Any) {
		rules = append(rules, append(slices.Clone(match), netfilter.Join(parts...)...))
	}
	if s.affinity > 0 {
		join(r.Client(), []expr.Any{r.Lookup(k.sets.affinity), r.DNAT()})
	}
	load, index := r.Frontend(), r.Key+r.Width+2
	if s.node {
		load = r.NodePort()
	}
	draw := []expr.Any{&expr.Numgen{Register: index, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM}, r.Lookup(from)}
	first := []expr.Any{&expr.Immediate{Register: index, Data: make([]byte, 4)}, r.Lookup(from)}
	var remember []expr.Any
	if s.affinity > 0 {
		remember = append(r.Client(), &expr.Dynset{SrcRegKey: r.Key, SrcRegData: r.Found, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE),
			Timeout: s.affinity, SetName: k.sets.affinity.Name, SetID: k.sets.affinity.ID})
	}
	join(load, draw, remember, []expr.Any{r.DNAT()})
	if n > 1 {
		join(load, first, remember, []expr.Any{r.DNAT()})
	}
	return rules
}

func firewallName(f plan.Frontend) string {
	return fmt.Sprintf("firewall-%016x", netfilter.Hash(frontendKey(f)))
}

// addFirewall makes the chain that lets a frontend's source ranges in.
func (k *Kernel) addFirewall(f plan.Frontend, t plan.Target) {
	name := firewallName(f)
	r := k.rule
	var rules [][]expr.Any
	for _, p := range t.Sources {
		first := p.Masked().Addr().AsSlice()
		last := first
		if end, ok := netfilter.After(p); ok {
			last = end.Prev().AsSlice()
		}
		rules = append(rules, []expr.Any{
			r.Source(r.Key),
			&expr.Range{Op: expr.CmpOpEq, Register: r.Key, FromData: first, ToData: last},
			&expr.Verdict{Kind: expr.VerdictReturn},
		})
	}
	chain := k.conn.AddChain(&nftables.Chain{Table: k.table, Name: name})
	k.conn.FlushChain(chain)
	for _, rule := range append(rules, []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}) {
		k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: chain, Exprs: rule})
	}
}
