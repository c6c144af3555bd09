// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"kaji/internal/netfilter"
	"kaji/internal/podnet"
)

// tableName is the table of the pod network, in family ip and ip6.
const tableName = "kaji-pods"

// rules is the table of one family: masquerading of what leaves the cluster,
// and host ports.
type rules struct {
	conn  *nftables.Conn
	table *nftables.Table
	rule  netfilter.Rules

	pods, cluster    *nftables.Set // ranges: this node's pods; all pods
	hostPorts        *nftables.Set // protocol . port → endpoint
	hostAddressPorts *nftables.Set // address . protocol . port → endpoint
	hairpin          *nftables.Set
}

func newRules(v6 bool) (*rules, error) {
	conn, err := netfilter.Open(0)
	if err != nil {
		return nil, err
	}
	r := &rules{conn: conn, rule: netfilter.For(v6),
		table: &nftables.Table{Name: tableName, Family: netfilter.TableFamily(v6)}}
	addr, concat := r.rule.AddrType(), nftables.MustConcatSetType
	endpoint := concat(addr, nftables.TypeInetService)
	r.pods = &nftables.Set{Table: r.table, Name: "node-pods", Interval: true, KeyType: addr}
	r.cluster = &nftables.Set{Table: r.table, Name: "cluster-pods", Interval: true, AutoMerge: true, KeyType: addr}
	r.hostPorts = &nftables.Set{Table: r.table, Name: "host-ports", IsMap: true, Concatenation: true,
		KeyType: concat(nftables.TypeInetProto, nftables.TypeInetService), DataType: endpoint}
	r.hostAddressPorts = &nftables.Set{Table: r.table, Name: "host-address-ports", IsMap: true, Concatenation: true,
		KeyType: concat(addr, nftables.TypeInetProto, nftables.TypeInetService), DataType: endpoint}
	r.hairpin = &nftables.Set{Table: r.table, Name: "hairpin", Concatenation: true, KeyType: concat(addr, addr)}
	return r, nil
}

// exists says whether the table is there.
func (r *rules) exists() bool {
	_, err := r.conn.ListTableOfFamily(tableName, r.table.Family)
	return err == nil
}

// reset writes the table anew in one transaction and keeps the host ports that
// an earlier process published.
func (r *rules) reset(pods netip.Prefix, cluster []netip.Prefix) error {
	kept := map[*nftables.Set][]nftables.SetElement{}
	if _, err := r.conn.ListTableOfFamily(tableName, r.table.Family); err == nil {
		for _, set := range []*nftables.Set{r.hostPorts, r.hostAddressPorts, r.hairpin} {
			if kept[set], err = r.conn.GetSetElements(set); err != nil {
				return fmt.Errorf("reading %s: %w", set.Name, err)
			}
		}
	}
	r.conn.AddTable(r.table) // so that the deletion cannot fail
	r.conn.DelTable(r.table)
	r.conn.AddTable(r.table)
	var ranges []nftables.SetElement
	for _, p := range disjoint(cluster, r.rule.V6) {
		ranges = append(ranges, netfilter.Interval(p)...)
	}
	for set, elements := range map[*nftables.Set][]nftables.SetElement{
		r.pods: netfilter.Interval(pods), r.cluster: ranges,
		r.hostPorts: kept[r.hostPorts], r.hostAddressPorts: kept[r.hostAddressPorts], r.hairpin: kept[r.hairpin],
	} {
		if err := r.conn.AddSet(set, elements); err != nil {
			return fmt.Errorf("set %s: %w", set.Name, err)
		}
	}
	r.chains()
	if err := r.conn.Flush(); err != nil {
		return fmt.Errorf("writing table %s: %w", tableName, err)
	}
	return nil
}

// disjoint returns the prefixes of a family that lie in no other one.
func disjoint(all []netip.Prefix, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for i, p := range all {
		inside := p.Addr().Is6() != v6
		for j, o := range all {
			same := o.Masked() == p.Masked()
			inside = inside || o.Overlaps(p) && (o.Bits() < p.Bits() || same && j < i)
		}
		if !inside {
			out = append(out, p.Masked())
		}
	}
	return out
}

func (r *rules) chains() {
	f := r.rule
	hook := func(name string, kind nftables.ChainType, at *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any) {
		chain := r.conn.AddChain(&nftables.Chain{Table: r.table, Name: name, Type: kind, Hooknum: at, Priority: &priority})
		for _, exprs := range rules {
			r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: chain, Exprs: exprs})
		}
	}
	dnat := func(load []expr.Any, set *nftables.Set) []expr.Any {
		return netfilter.Join(f.ToNode(), load, []expr.Any{f.Lookup(set), f.DNAT()})
	}
	ports := [][]expr.Any{dnat(f.Frontend(), r.hostAddressPorts), dnat(f.Port(f.Key), r.hostPorts)}
	// After the Services' tables: a Service's address wins over a host port.
	hook("host-ports-in", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest+10, ports...)
	hook("host-ports-out", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest+10, ports...)
	masquerade := []expr.Any{netfilter.Masquerade()}
	hook("leaving", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource+10,
		f.MasqueradeHairpin(r.hairpin),
		netfilter.Join(f.SourceIn(r.pods, false), f.DestinationIn(r.cluster, true), notMulticast(f), masquerade),
		netfilter.Join(f.FromLoopback(), f.DestinationIn(r.pods, false), masquerade))
	if !f.V6 {
		// route_localnet is on for the pods' links: nobody but the host itself
		// may reach its loopback services (CVE-2020-8558).
		hook("loopback-guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw,
			netfilter.Join(notFromLoopbackLink(), f.ToLoopback(), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}))
	}
}

// notFromLoopbackLink matches packets that came in over a real link.
func notFromLoopbackLink() []expr.Any {
	name := make([]byte, 16)
	copy(name, "lo")
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
	}
}

// notMulticast leaves multicast packets their source.
func notMulticast(f netfilter.Rules) []expr.Any {
	first, mask := byte(0xe0), byte(0xf0)
	if f.V6 {
		first, mask = 0xff, 0xff
	}
	return []expr.Any{
		f.Destination(f.Key),
		&expr.Bitwise{SourceRegister: f.Key, DestRegister: f.Key, Len: 4, Mask: []byte{mask, 0, 0, 0}, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: f.Key, Data: []byte{first, 0, 0, 0}},
	}
}

// publish adds a pod's host ports of this family.
func (r *rules) publish(pod netip.Addr, ports []podnet.PortMapping) error {
	var byPort, byAddress []nftables.SetElement
	for _, p := range ports {
		if p.HostPort <= 0 {
			continue
		}
		element := nftables.SetElement{Key: netfilter.PortKey(p.Protocol, uint16(p.HostPort)), Val: netfilter.Endpoint(pod, uint16(p.ContainerPort))}
		host, err := netip.ParseAddr(p.HostIP)
		switch {
		case p.HostIP == "" || err == nil && host.IsUnspecified() && host.Is6() == r.rule.V6:
			byPort = append(byPort, element)
		case err != nil:
			return fmt.Errorf("host port %d: invalid host IP %q", p.HostPort, p.HostIP)
		case host.Is6() == r.rule.V6:
			element.Key = append(host.AsSlice(), element.Key...)
			byAddress = append(byAddress, element)
		}
	}
	if len(byPort)+len(byAddress) == 0 {
		return nil
	}
	err := errors.Join(
		netfilter.AddElements(r.conn, r.hostPorts, byPort),
		netfilter.AddElements(r.conn, r.hostAddressPorts, byAddress),
		netfilter.AddElements(r.conn, r.hairpin, []nftables.SetElement{{Key: netfilter.Pair(pod, pod)}}))
	if err == nil {
		err = r.conn.Flush()
	}
	if err != nil {
		return fmt.Errorf("publishing host ports (is one of them published by another pod?): %w", err)
	}
	return nil
}

// unpublish removes every host port of a pod.
func (r *rules) unpublish(pod netip.Addr) error {
	if !r.exists() {
		return nil // somebody has removed all rules of the machine
	}
	found := false
	for _, set := range []*nftables.Set{r.hostPorts, r.hostAddressPorts} {
		all, err := r.conn.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("reading %s: %w", set.Name, err)
		}
		var mine []nftables.SetElement
		for _, e := range all {
			if bytes.HasPrefix(e.Val, pod.AsSlice()) {
				mine = append(mine, nftables.SetElement{Key: e.Key, Val: e.Val})
			}
		}
		found = found || len(mine) > 0
		if err := netfilter.DeleteElements(r.conn, set, mine); err != nil {
			return err
		}
	}
	if !found {
		return nil
	}
	if err := netfilter.DeleteElements(r.conn, r.hairpin, []nftables.SetElement{{Key: netfilter.Pair(pod, pod)}}); err != nil {
		return err
	}
	if err := r.conn.Flush(); err != nil {
		return fmt.Errorf("removing host ports of %s: %w", pod, err)
	}
	return nil
}

func removeRules() error {
	var errs []error
	for _, v6 := range []bool{false, true} {
		r, err := newRules(v6)
		if err == nil {
			r.conn.AddTable(r.table)
			r.conn.DelTable(r.table)
			err = r.conn.Flush()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
