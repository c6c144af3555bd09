// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"kaji/internal/netfilter"
)

// sets are the named maps and sets of the table.
type sets struct {
	services, nodePorts   *nftables.Set // → goto the chain of a shape
	refused, refusedPorts *nftables.Set // → goto reject or drop
	firewall              *nftables.Set // → goto the chain with a frontend's source ranges
	backends, local       *nftables.Set
	affinity              *nftables.Set
	hairpin, pods         *nftables.Set
}

const (
	chainServices = "services"
	chainRefuse   = "refuse"
	chainDrop     = "drop"
)

// base creates sets, hooks and shared chains.
func (k *Kernel) base() error {
	addr := k.rule.AddrType()
	concat := nftables.MustConcatSetType
	port := concat(nftables.TypeInetProto, nftables.TypeInetService)
	vip := concat(addr, nftables.TypeInetProto, nftables.TypeInetService)
	indexed := concat(addr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark)
	backend := concat(addr, nftables.TypeInetService)
	verdicts := func(name string, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: k.table, Name: name, IsMap: true, Concatenation: true, KeyType: key, DataType: nftables.TypeVerdict}
	}
	pick := func(name string) *nftables.Set {
		return &nftables.Set{Table: k.table, Name: name, IsMap: true, Concatenation: true, KeyType: indexed, DataType: backend}
	}
	k.sets = sets{
		services: verdicts("services", vip), nodePorts: verdicts("node-ports", port),
		refused: verdicts("no-endpoints", vip), refusedPorts: verdicts("no-endpoint-node-ports", port),
		firewall: verdicts("firewall", vip),
		backends: pick("backends"), local: pick("local-backends"),
		affinity: &nftables.Set{Table: k.table, Name: "affinity", IsMap: true, Concatenation: true, Dynamic: true, HasTimeout: true,
			KeyType: concat(addr, addr, nftables.TypeInetProto, nftables.TypeInetService), DataType: backend, Size: 65536},
		hairpin: &nftables.Set{Table: k.table, Name: "hairpin", Concatenation: true, KeyType: concat(addr, addr)},
		pods:    &nftables.Set{Table: k.table, Name: "pod-cidrs", Interval: true, KeyType: addr},
	}
	var ranges []nftables.SetElement
	for _, p := range k.c.PodCIDRs {
		if p.Addr().Is6() == k.c.IPv6 {
			ranges = append(ranges, netfilter.Interval(p)...)
		}
	}
	s := k.sets
	for _, set := range []*nftables.Set{s.services, s.nodePorts, s.refused, s.refusedPorts, s.firewall, s.backends, s.local, s.affinity, s.hairpin} {
		if err := k.conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("proxy: set %s: %w", set.Name, err)
		}
	}
	if err := k.conn.AddSet(s.pods, ranges); err != nil {
		return fmt.Errorf("proxy: set %s: %w", s.pods.Name, err)
	}
	k.hooks()
	return nil
}

func (k *Kernel) chain(name string, rules ...[]expr.Any) {
	chain := k.conn.AddChain(&nftables.Chain{Table: k.table, Name: name})
	for _, r := range rules {
		k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: chain, Exprs: r})
	}
}

func (k *Kernel) hook(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any) {
	chain := k.conn.AddChain(&nftables.Chain{Table: k.table, Name: name, Type: kind, Hooknum: hook, Priority: &priority})
	for _, r := range rules {
		k.conn.AddRule(&nftables.Rule{Table: k.table, Chain: chain, Exprs: r})
	}
}

func (k *Kernel) hooks() {
	s := k.sets
	r := k.rule
	jump := netfilter.Jump
	vip := func(set *nftables.Set) []expr.Any { return append(r.Frontend(), r.Verdict(set)) }
	ports := func(set *nftables.Set) []expr.Any {
		return netfilter.Join(r.ToNode(), r.Port(r.Key), []expr.Any{r.Verdict(set)})
	}
	// A loopback source cannot be routed off the node: such packets stay.
	loopback := append(r.ToLoopback(), &expr.Verdict{Kind: expr.VerdictReturn})

	k.chain(chainRefuse, r.Refuse())
	k.chain(chainDrop, []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	k.chain(chainServices, vip(s.services), loopback, ports(s.nodePorts))

	k.hook("nat-prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest, jump(chainServices))
	k.hook("nat-output", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest, jump(chainServices))
	k.hook("nat-postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource,
		r.MasqueradeMarked(), r.MasqueradeHairpin(s.hairpin))
	k.hook("filter-prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest-10, vip(s.firewall))
	k.hook("filter-input", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityNATDest-10, vip(s.refused), ports(s.refusedPorts))
	k.hook("filter-forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityNATDest-10, vip(s.refused))
	k.hook("filter-output", nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest-10, vip(s.refused), ports(s.refusedPorts))
}
