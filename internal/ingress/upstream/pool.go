// SPDX-License-Identifier: Apache-2.0

// Package upstream carries requests to the endpoints of backends: it picks one
// after the other, tries another where nobody listens, and watches over pauses.
// Package ingress fills the pools and puts Transport below its reverse proxy.
// It never retries a request of which a byte may have been seen.
package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync/atomic"
)

// Pool are the ready endpoints of one backend. It is safe for concurrent use.
type Pool struct {
	endpoints atomic.Pointer[[]Endpoint]
	next      atomic.Uint32
}

// Endpoint is an address, "host:port", with the name that cookies know it by.
type Endpoint struct{ Address, ID string }

// Set replaces the endpoints.
func (p *Pool) Set(addresses []string) {
	all := make([]Endpoint, 0, len(addresses))
	for _, a := range addresses {
		sum := sha256.Sum256([]byte(a))
		all = append(all, Endpoint{a, hex.EncodeToString(sum[:12])})
	}
	p.endpoints.Store(&all)
}

// Addresses returns the endpoints' addresses.
func (p *Pool) Addresses() []string {
	var out []string
	if all := p.endpoints.Load(); all != nil {
		for _, e := range *all {
			out = append(out, e.Address)
		}
	}
	return out
}

// order returns the endpoints to try: the one with the id first, if it is
// there, then in turn.
func (p *Pool) order(id string, most int) []Endpoint {
	loaded := p.endpoints.Load()
	if loaded == nil || len(*loaded) == 0 {
		return nil
	}
	all := *loaded
	start := int(p.next.Add(1)-1) % len(all)
	if id != "" {
		if at := slices.IndexFunc(all, func(e Endpoint) bool { return e.ID == id }); at >= 0 {
			start = at
		}
	}
	out := make([]Endpoint, 0, most)
	for i := range min(most, len(all)) {
		out = append(out, all[(start+i)%len(all)])
	}
	return out
}
