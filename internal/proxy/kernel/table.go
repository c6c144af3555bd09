// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net/netip"

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
	clusterIPs            *nftables.Set
	serviceRanges         *nftables.Set // all that can be a ClusterIP
	nodeAddresses         *nftables.Set // where node ports answer; only with NodePorts
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

		clusterIPs:    &nftables.Set{Table: k.table, Name: "cluster-ips", KeyType: addr},
		serviceRanges: &nftables.Set{Table: k.table, Name: "service-cidrs", Interval: true, KeyType: addr},
		nodeAddresses: &nftables.Set{Table: k.table, Name: "node-addresses", Interval: true, KeyType: addr},
	}
	s := k.sets
	for _, set := range []*nftables.Set{s.services, s.nodePorts, s.refused, s.refusedPorts, s.firewall, s.backends, s.local, s.affinity, s.hairpin, s.clusterIPs} {
		if err := k.conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("proxy: set %s: %w", set.Name, err)
		}
	}
	if err := k.addRanges(s.pods, k.c.PodCIDRs); err != nil {
		return err
	}
	if err := k.addRanges(s.serviceRanges, k.c.Services); err != nil {
		return err
	}
	if len(k.c.NodePorts) > 0 {
		if err := k.addRanges(s.nodeAddresses, k.c.NodePorts); err != nil {
			return err
		}
	}
	k.hooks()
	return nil
}

// addRanges adds a set of the family's prefixes.
func (k *Kernel) addRanges(set *nftables.Set, all []netip.Prefix) error {
	var elements []nftables.SetElement
	for _, p := range all {
		if p.Addr().Is6() == k.c.IPv6 {
			elements = append(elements, netfilter.Interval(p)...)
		}
	}
	if err := k.conn.AddSet(set, elements); err != nil {
		return fmt.Errorf("proxy: set %s: %w", set.Name, err)
	}
	return nil
}

// toNodePorts matches packets to addresses that node ports answer at.
func (k *Kernel) toNodePorts() []expr.Any {
	if len(k.c.NodePorts) == 0 {
		return k.rule.ToNode()
	}
	return netfilter.Join(k.rule.ToNode(), k.rule.DestinationIn(k.sets.nodeAddresses, false))
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
	first := func(rule []expr.Any) []expr.Any { return netfilter.Join(r.First(), rule) }
	ports := func(set *nftables.Set) []expr.Any {
		return netfilter.Join(k.toNodePorts(), r.Port(r.Key), []expr.Any{r.Verdict(set)})
	}
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	leave := []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}

	k.chain(chainRefuse, r.Refuse())
	k.chain(chainDrop, drop)
	if k.c.Localhost && !k.c.IPv6 {
		k.chain(chainServices, vip(s.services), ports(s.nodePorts))
		k.hook("raw-prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw,
			netfilter.Join(netfilter.FromNetwork(), r.ToLoopback(), drop), netfilter.Join(netfilter.FromNetwork(), r.FromLoopback(), drop))
	} else {
		// A loopback source cannot be routed off the node: such packets stay.
		k.chain(chainServices, vip(s.services), append(r.ToLoopback(), leave...), ports(s.nodePorts))
	}

	k.hook("nat-prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest, jump(chainServices))
	k.hook("nat-output", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest, jump(chainServices))
	k.hook("nat-postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource,
		r.MasqueradeMarked(), r.MasqueradeHairpin(s.hairpin))
	k.hook("filter-prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest-10, vip(s.firewall))
	k.hook("filter-input", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityNATDest-10, first(vip(s.refused)), first(ports(s.refusedPorts)))
	// What goes to a ClusterIP still, has no Service at its port.
	unserved := first(append(r.DestinationIn(s.clusterIPs, false), r.Refuse()...))
	unassigned := first(append(r.DestinationIn(s.serviceRanges, false), drop...))
	k.hook("filter-forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityNATDest-10, first(vip(s.refused)), unserved, unassigned)
	k.hook("filter-output-late", nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest+10,
		first(append(r.ToNode(), leave...)), unserved, unassigned)
	k.hook("filter-output", nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest-10, first(vip(s.refused)), first(ports(s.refusedPorts)))
}
