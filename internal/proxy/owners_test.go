// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/proxy/plan"
)

func TestAnAddressBelongsToTheFirst(t *testing.T) {
	o := newOwners()
	f := plan.Frontend{Addr: netip.MustParseAddr("198.51.100.7"), Protocol: corev1.ProtocolTCP, Port: 80}
	one, two := key{"default", "one"}, key{"default", "two"}
	want := func(d time.Duration) map[plan.Frontend]plan.Target {
		return map[plan.Frontend]plan.Target{f: {Affinity: d}}
	}
	if set, _ := o.claim(one, want(1)); len(set) != 1 {
		t.Fatalf("the first claim sets %v", set)
	}
	if set, gone := o.claim(one, want(1)); len(set)+len(gone) != 0 {
		t.Fatalf("an unchanged claim sets %v and removes %v", set, gone)
	}
	if set, _ := o.claim(two, want(2)); len(set) != 0 {
		t.Fatalf("the second Service took the address: %v", set)
	}
	_, gone := o.claim(one, nil)
	if !slices.Equal(gone, []plan.Frontend{f}) || !slices.Equal(o.waiting(f), []key{two}) {
		t.Fatalf("removed %v, waiting %v", gone, o.waiting(f))
	}
	if set, _ := o.claim(two, want(2)); set[f].Affinity != 2 {
		t.Fatalf("the waiting Service got %v", set)
	}
	o.claim(two, nil)
	if len(o.frontends)+len(o.wanted) != 0 {
		t.Fatalf("left over: %v %v", o.frontends, o.wanted)
	}
}

func TestStaleFlows(t *testing.T) {
	vip, port := plan.Frontend{Addr: netip.MustParseAddr("10.96.0.2"), Protocol: corev1.ProtocolUDP, Port: 53}, plan.Frontend{Addr: netip.IPv4Unspecified(), Protocol: corev1.ProtocolUDP, Port: 30053}
	a, b := plan.Backend{Addr: netip.MustParseAddr("10.1.0.1"), Port: 5353}, plan.Backend{Addr: netip.MustParseAddr("10.1.0.2"), Port: 5353}
	with := func(all ...plan.Backend) plan.Target { return plan.Target{Backends: all} }
	flow := func(to string, port uint16, from string, fromPort uint16) *netlink.ConntrackFlow {
		return &netlink.ConntrackFlow{Forward: netlink.IPTuple{Protocol: unix.IPPROTO_UDP, DstIP: net.ParseIP(to), DstPort: port},
			Reverse: netlink.IPTuple{SrcIP: net.ParseIP(from), SrcPort: fromPort}}
	}
	toA, bare := flow("10.96.0.2", 53, "10.1.0.1", 5353), flow("10.96.0.2", 53, "10.96.0.2", 53)
	nodeA, passing := flow("192.0.2.1", 30053, "10.1.0.1", 5353), flow("198.51.100.1", 30053, "10.1.0.1", 5353)
	for name, c := range map[string]struct {
		at          plan.Frontend
		before, now plan.Target
		flow        *netlink.ConntrackFlow
		want        bool
	}{
		"an endpoint left":                     {vip, with(a, b), with(b), toA, true},
		"an endpoint came":                     {vip, with(a), with(a, b), toA, false},
		"the first endpoint came":              {vip, with(), with(a), bare, true},
		"the last endpoint left":               {vip, with(a), with(), toA, true},
		"none came":                            {vip, with(), with(), bare, false},
		"the endpoint stays, its sibling left": {vip, with(a, b), with(a), toA, false},
		"a node port":                          {port, with(a, b), with(b), nodeA, true},
		"somebody else's flow of that number":  {port, with(a, b), with(b), passing, false},
		"another port":                         {vip, with(a), with(b), flow("10.96.0.2", 54, "10.1.0.1", 5353), false},
		"an endpoint at the address itself":    {vip, with(a), with(plan.Backend{Addr: vip.Addr, Port: 53}), bare, false},
	} {
		f := flows{own: map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true}}
		f.add(c.at, c.before, c.now)
		if got := f.MatchConntrackFlow(c.flow); got != c.want {
			t.Errorf("%s: stale %v, want %v", name, got, c.want)
		}
	}
	f := flows{}
	vip.Protocol = corev1.ProtocolTCP
	if f.add(vip, with(a), with(b)); len(f.now) != 0 {
		t.Errorf("TCP flows end by themselves, got %v", f.now)
	}
}
