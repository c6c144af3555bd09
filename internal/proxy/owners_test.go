// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

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
	f := plan.Frontend{Addr: netip.MustParseAddr("10.96.0.2"), Protocol: corev1.ProtocolUDP, Port: 53}
	a, b := plan.Backend{Addr: netip.MustParseAddr("10.1.0.1"), Port: 53}, plan.Backend{Addr: netip.MustParseAddr("10.1.0.2"), Port: 53}
	with := func(all ...plan.Backend) plan.Target { return plan.Target{Backends: all} }
	for _, c := range []struct {
		before, now plan.Target
		want        []stale
	}{
		{with(a, b), with(b), []stale{{f, a.Addr}}},
		{with(a), with(a, b), nil},
		{with(), with(a), []stale{{frontend: f}}},
		{with(), with(), nil},
	} {
		if got := staleFlows(f, c.before, c.now); !slices.Equal(got, c.want) {
			t.Errorf("%v to %v: %v, want %v", c.before, c.now, got, c.want)
		}
	}
	f.Protocol = corev1.ProtocolTCP
	if got := staleFlows(f, with(a), with(b)); got != nil {
		t.Errorf("TCP flows end by themselves, got %v", got)
	}
}
