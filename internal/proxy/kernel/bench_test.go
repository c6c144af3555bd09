// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/netfilter/nstest"
	"kaji/internal/proxy/plan"
)

// services returns so many Services of two ports with three endpoints each;
// turn chooses one of the endpoints.
func services(n, turn int) targets {
	all := make(targets, 2*n)
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, byte(96 + i>>16), byte(i >> 8), byte(i)})
		var ends []plan.Backend
		for e := range 3 {
			at := i*3 + e
			if e == 2 {
				at += turn << 18
			}
			ends = append(ends, plan.Backend{Addr: netip.AddrFrom4([4]byte{172, byte(at >> 16), byte(at >> 8), byte(at)}), Port: 8080})
		}
		for _, port := range []uint16{80, 443} {
			all[plan.Frontend{Addr: addr, Protocol: corev1.ProtocolTCP, Port: port}] = plan.Target{Backends: ends}
		}
	}
	return all
}

func BenchmarkProgramming(b *testing.B) {
	for _, n := range []int{1000, 10000, 40000} {
		all, moved := services(n, 0), services(n, 1)
		k, err := New(Config{NetNS: nstest.New(b).FD()})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("first/%d", n), func(b *testing.B) {
			for b.Loop() {
				if err := k.Reset(all); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := k.Reset(all); err != nil {
			b.Fatal(err)
		}
		one := plan.Frontend{Addr: netip.MustParseAddr("10.96.0.7"), Protocol: corev1.ProtocolTCP, Port: 80}
		b.Run(fmt.Sprintf("one/%d", n), func(b *testing.B) {
			for turn := 0; b.Loop(); turn++ {
				to := all
				if turn%2 == 0 {
					to = moved
				}
				if err := k.Apply(targets{one: to[one]}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("mass/%d", n), func(b *testing.B) {
			for turn := 0; b.Loop(); turn++ {
				to := all
				if turn%2 == 0 {
					to = moved
				}
				if err := k.Apply(to, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := k.Remove(); err != nil {
			b.Fatal(err)
		}
	}
}
