// SPDX-License-Identifier: Apache-2.0

// Package upstream carries requests to the endpoints of backends: it picks one
// after the other, tries another where nobody listens, and watches over pauses.
// Package ingress fills the pools and puts Transport below its reverse proxy.
// A request of which a byte may have been seen is sent again only when its
// method is idempotent and it has no body.
package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync/atomic"
)

// Pool are the ready endpoints of one backend. It is safe for concurrent use.
type Pool struct {
	state atomic.Pointer[state]
	next  atomic.Uint32
}

// state is what a pool holds at one time.
type state struct {
	endpoints []Endpoint
	protocol  string
}

// Endpoint is an address, "host:port", with the name that cookies know it by.
type Endpoint struct{ Address, ID string }

// Set replaces the endpoints and the protocol that their Service names for
// them, as appProtocol has it.
func (p *Pool) Set(addresses []string, protocol string) {
	all := make([]Endpoint, 0, len(addresses))
	for _, a := range addresses {
		sum := sha256.Sum256([]byte(a))
		all = append(all, Endpoint{a, hex.EncodeToString(sum[:12])})
	}
	p.state.Store(&state{all, protocol})
}

// Protocol is the one that Set was given.
func (p *Pool) Protocol() string {
	if s := p.state.Load(); s != nil {
		return s.protocol
	}
	return ""
}

// Empty says whether there is no endpoint.
func (p *Pool) Empty() bool {
	s := p.state.Load()
	return s == nil || len(s.endpoints) == 0
}

// Next returns the address of the endpoint whose turn it is, or "".
func (p *Pool) Next() string {
	e, _ := p.pick("", nil)
	return e.Address
}

// pick returns the endpoint to try: the one with the id, if it is there, else
// the one whose turn it is; never one that was tried. A pool that changed between
// two tries is asked for what it holds now.
func (p *Pool) pick(id string, tried []string) (Endpoint, bool) {
	now := p.state.Load()
	if now == nil || len(now.endpoints) == 0 {
		return Endpoint{}, false
	}
	all := now.endpoints
	start := int((p.next.Add(1) - 1) % uint32(len(all)))
	if id != "" && len(tried) == 0 {
		if at := slices.IndexFunc(all, func(e Endpoint) bool { return e.ID == id }); at >= 0 {
			start = at
		}
	}
	for i := range all {
		if e := all[(start+i)%len(all)]; !slices.Contains(tried, e.Address) {
			return e, true
		}
	}
	return Endpoint{}, false
}
