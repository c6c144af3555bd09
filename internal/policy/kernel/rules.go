// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"kaji/internal/netfilter"
	"kaji/internal/policy/plan"
)

// base creates the sets and chains that are always there.
func (k *Kernel) base(podCIDRs []netip.Prefix) error {
	addr := k.rule.AddrType()
	for d := range k.verdicts {
		k.verdicts[d] = k.set(&nftables.Set{Name: plan.Direction(d).String(), IsMap: true, KeyType: addr, DataType: nftables.TypeVerdict})
	}
	k.self = k.set(&nftables.Set{Name: "self", Concatenation: true, KeyType: nftables.MustConcatSetType(addr, addr)})
	k.nodePods = k.set(&nftables.Set{Name: "node-pods", Interval: true, KeyType: addr})
	for _, set := range []*nftables.Set{k.verdicts[plan.Ingress], k.verdicts[plan.Egress], k.self, k.nodePods} {
		if err := k.conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("policy: set %s: %w", set.Name, err)
		}
	}
	var ranges []nftables.SetElement
	for _, p := range podCIDRs {
		if p.Addr().Is6() == k.c.IPv6 {
			ranges = append(ranges, netfilter.Interval(p)...)
		}
	}
	if err := netfilter.AddElements(k.conn, k.nodePods, ranges); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	k.forward()
	return nil
}

// forward is the one hook.
func (k *Kernel) forward() {
	r := k.rule
	k.unknown = k.conn.AddChain(&nftables.Chain{Table: k.table, Name: "unknown"})
	accept := nftables.ChainPolicyAccept
	chain := k.conn.AddChain(&nftables.Chain{Table: k.table, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept})
	const establishedOrRelated = 1<<1 | 1<<2
	for _, rule := range [][]expr.Any{
		{
			&expr.Ct{Register: r.Key, Key: expr.CtKeySTATE},
			&expr.Bitwise{SourceRegister: r.Key, DestRegister: r.Key, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(establishedOrRelated), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: r.Key, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		},
		// Nobody can block a pod's access to itself, through a Service here.
		{
			r.Source(r.Key), r.Destination(r.Key + r.Width),
			&expr.Lookup{SourceRegister: r.Key, SetName: k.self.Name, SetID: k.self.ID},
			&expr.Verdict{Kind: expr.VerdictAccept},
		},
		netfilter.Jump(k.unknown.Name),
		{r.Source(r.Key), r.Verdict(k.verdicts[plan.Egress])},
		{r.Destination(r.Key), r.Verdict(k.verdicts[plan.Ingress])},
	} {
		k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: chain, Exprs: rule})
	}
}

// holdUnknown drops what goes to (comes from) addresses of the node's pod
// ranges that no known pod has, while a pod that will be isolated waits for the
// plan to learn its address: its first packet must meet its rules.
func (k *Kernel) holdUnknown(hold [2]bool) {
	k.hold = hold
	k.conn.FlushChain(k.unknown)
	known := k.sets[plan.Local]
	in := [2]func(*nftables.Set, bool) []expr.Any{plan.Ingress: k.rule.DestinationIn, plan.Egress: k.rule.SourceIn}
	for d, match := range in {
		if hold[d] {
			k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: k.unknown,
				Exprs: netfilter.Join(match(k.nodePods, false), match(known, true), drop())})
		}
	}
}

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// addChain writes a chain: allowed packets return, the rest is dropped.
func (k *Kernel) addChain(c plan.NewChain) {
	chain := k.conn.AddChain(&nftables.Chain{Table: k.table, Name: c.Name})
	for _, r := range c.Rules {
		k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: chain,
			Exprs: netfilter.Join(k.peer(c.Direction, r), k.ports(r), []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}})})
	}
	k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: chain, Exprs: drop()})
}

// peer matches the other side of a packet.
func (k *Kernel) peer(d plan.Direction, r plan.Rule) []expr.Any {
	if r.Set == "" {
		return nil
	}
	set := k.sets[r.Set]
	switch {
	case r.Endpoints:
		return append(k.rule.Frontend(), &expr.Lookup{SourceRegister: k.rule.Key, SetName: set.Name, SetID: set.ID})
	case d == plan.Ingress:
		return k.rule.SourceIn(set, false)
	default:
		return k.rule.DestinationIn(set, false)
	}
}

// ports matches protocol and destination port.
func (k *Kernel) ports(r plan.Rule) []expr.Any {
	if r.Protocol == "" {
		return nil
	}
	load := k.rule.Port(k.rule.Key)
	out := []expr.Any{load[0], &expr.Cmp{Op: expr.CmpOpEq, Register: k.rule.Key, Data: []byte{netfilter.Protocol(string(r.Protocol))}}}
	if r.First == 0 && r.Last == 65535 {
		return out
	}
	if r.First == r.Last {
		return append(out, load[1], &expr.Cmp{Op: expr.CmpOpEq, Register: k.rule.Key + 1, Data: binaryutil.BigEndian.PutUint16(r.First)})
	}
	return append(out, load[1], &expr.Range{Op: expr.CmpOpEq, Register: k.rule.Key + 1,
		FromData: binaryutil.BigEndian.PutUint16(r.First), ToData: binaryutil.BigEndian.PutUint16(r.Last)})
}
