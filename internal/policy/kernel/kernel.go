// SPDX-License-Identifier: Apache-2.0

// Package kernel keeps a node's nftables in step with the deltas of package
// plan. Package policy is its only caller.
//
// Every packet the node forwards passes one chain: replies and related errors
// go through, then the sender's address is looked up among the pods isolated in
// egress and the receiver's among those isolated in ingress:
//
//	egress   address → jump egress-<rules>
//	ingress  address → jump ingress-<rules>
//
// A chain of rules returns for what it allows and ends in a drop. Services are
// resolved before (the forward hook sees the chosen endpoint) and masquerading
// comes after, so both addresses are the pods' own. What the node itself sends
// to its pods, or gets from them, is never forwarded and so always allowed.
//
// It writes only its own tables, one per family, named kaji-policy.
package kernel

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"kaji/internal/netfilter"
	"kaji/internal/policy/plan"
)

// TableName is the name of the tables, in family ip and ip6.
const TableName = "kaji-policy"

// Config says what is programmed.
type Config struct {
	// IPv6 selects the family of this Kernel.
	IPv6 bool
	// NetNS is a file descriptor of the network namespace; zero is the own one.
	NetNS int
}

// Kernel programs one family. It is used by one goroutine.
type Kernel struct {
	c     Config
	conn  *nftables.Conn
	table *nftables.Table
	rule  netfilter.Rules
	// lastID numbers the sets; the library's own count is shared by all
	// connections of the process without a lock.
	lastID   uint32
	sets     map[string]*nftables.Set
	verdicts [2]*nftables.Set
	self     *nftables.Set // each pod of the node paired with itself
	nodePods *nftables.Set // the node's pod ranges
	unknown  *nftables.Chain
	hold     [2]bool
}

// New opens a connection to the kernel. Nothing is written before Reset.
func New(c Config) (*Kernel, error) {
	conn, err := netfilter.Open(c.NetNS)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return &Kernel{c: c, conn: conn, rule: netfilter.For(c.IPv6),
		table: &nftables.Table{Name: TableName, Family: netfilter.TableFamily(c.IPv6)}}, nil
}

// Reset replaces the whole table by all, in one transaction: packets meet
// either the old rules or the new ones. podCIDRs are the node's pod ranges.
func (k *Kernel) Reset(podCIDRs []netip.Prefix, all plan.Delta) error {
	k.conn.AddTable(k.table) // so that the deletion cannot fail
	k.conn.DelTable(k.table)
	k.conn.AddTable(k.table)
	k.sets, k.hold = map[string]*nftables.Set{}, [2]bool{}
	if err := k.base(podCIDRs); err != nil {
		return err
	}
	return k.Apply(all)
}

// Apply writes a delta in one transaction. After an error the kernel is
// unchanged; Reset is the way back.
func (k *Kernel) Apply(d plan.Delta) error {
	for _, s := range d.NewSets {
		if err := k.addSet(s); err != nil {
			return err
		}
	}
	for name, elements := range d.Remove {
		if err := k.change(netfilter.DeleteElements, name, elements); err != nil {
			return err
		}
	}
	for name, elements := range d.Add {
		if err := k.change(netfilter.AddElements, name, elements); err != nil {
			return err
		}
	}
	for _, c := range d.NewChains {
		k.addChain(c)
	}
	for direction, verdicts := range d.Verdicts {
		if err := k.lead(k.verdicts[direction], verdicts); err != nil {
			return err
		}
	}
	for _, name := range d.OldChains {
		k.conn.DelChain(&nftables.Chain{Table: k.table, Name: name})
	}
	for _, name := range d.OldSets {
		k.conn.DelSet(k.sets[name])
		delete(k.sets, name)
	}
	if d.Hold != k.hold {
		k.holdUnknown(d.Hold)
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("policy: writing nftables: %w", err)
	}
	return nil
}

// Remove deletes the table.
func (k *Kernel) Remove() error {
	k.conn.AddTable(k.table)
	k.conn.DelTable(k.table)
	return k.conn.Flush()
}

// addSet makes a set with its first elements of the family.
func (k *Kernel) addSet(s plan.NewSet) error {
	addr := k.rule.AddrType()
	set := k.set(&nftables.Set{Name: s.Name, KeyType: addr})
	var elements []nftables.SetElement
	switch s.Kind {
	case plan.Ranges:
		set.Interval = true
		elements = k.ranges(s.Ranges)
	case plan.Endpoints:
		set.Concatenation, set.KeyType = true, nftables.MustConcatSetType(addr, nftables.TypeInetProto, nftables.TypeInetService)
	case plan.Addresses:
	}
	k.sets[s.Name] = set
	if err := k.conn.AddSet(set, nil); err != nil {
		return fmt.Errorf("policy: set %s: %w", s.Name, err)
	}
	if err := netfilter.AddElements(k.conn, set, elements); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return k.change(netfilter.AddElements, s.Name, s.Elements)
}

func (k *Kernel) set(s *nftables.Set) *nftables.Set {
	k.lastID++
	s.Table, s.ID = k.table, k.lastID
	return s
}

type write func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error

// change adds elements of the family to a set or removes them.
func (k *Kernel) change(how write, name string, elements []plan.Element) error {
	var keys, pairs []nftables.SetElement
	for _, e := range elements {
		if e.Addr.Is6() != k.c.IPv6 {
			continue
		}
		key := e.Addr.AsSlice()
		if e.Protocol != "" {
			key = append(key, netfilter.PortKey(string(e.Protocol), e.Port)...)
		}
		keys = append(keys, nftables.SetElement{Key: key})
		pairs = append(pairs, nftables.SetElement{Key: netfilter.Pair(e.Addr, e.Addr)})
	}
	if err := how(k.conn, k.sets[name], keys); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if name != plan.Local {
		return nil
	}
	if err := how(k.conn, k.self, pairs); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// ranges returns the elements of disjoint ranges of the family.
func (k *Kernel) ranges(all []plan.Range) []nftables.SetElement {
	var out []nftables.SetElement
	for _, r := range all {
		if r.First.Is6() != k.c.IPv6 {
			continue
		}
		out = append(out, nftables.SetElement{Key: r.First.AsSlice()})
		if end := r.Last.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// lead moves addresses from chain to chain.
func (k *Kernel) lead(set *nftables.Set, verdicts []plan.Verdict) error {
	var add, del []nftables.SetElement
	for _, v := range verdicts {
		if v.Addr.Is6() != k.c.IPv6 {
			continue
		}
		if v.Old != "" {
			del = append(del, jump(v.Addr, v.Old))
		}
		if v.New != "" {
			add = append(add, jump(v.Addr, v.New))
		}
	}
	if err := netfilter.DeleteElements(k.conn, set, del); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if err := netfilter.AddElements(k.conn, set, add); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

func jump(addr netip.Addr, chain string) nftables.SetElement {
	return nftables.SetElement{Key: addr.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}
