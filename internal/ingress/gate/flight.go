// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"net/netip"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Flights counts the requests under way of each client of each Ingress. The
// zero value is ready. It is safe for concurrent use.
type Flights struct {
	mu    sync.Mutex
	count map[client]int
}

// Begin counts one more, unless there are as many as most already. What it
// returns ends the request; nil says that it must not be.
func (f *Flights) Begin(ingress types.UID, addr netip.Addr, most int) (end func()) {
	key := keyOf(ingress, addr)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count[key] >= most {
		return nil
	}
	if f.count == nil {
		f.count = map[client]int{}
	}
	f.count[key]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.count[key]--; f.count[key] == 0 {
			delete(f.count, key)
		}
	}
}

// keyOf is what a client counts as: one of IPv6 by its /64, of which each has
// all addresses.
func keyOf(ingress types.UID, addr netip.Addr) client {
	if addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	return client{ingress, addr}
}
