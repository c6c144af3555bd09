// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Kind says how a placed pod means a term of its own.
type Kind int

// The kinds of terms that placed pods hold against or for pods to come.
const (
	HeldRequiredAnti Kind = iota // keeps matching pods out of the domain
	HeldRequired                 // draws matching pods, with the weight the plugin is given
	HeldPreferred                // draws or, with a negative weight, repels
	kinds
)

// Held is an affinity term of placed pods, with the domains its owners are in.
type Held struct {
	Domains
	// Weight is that of a preferred term, negative for anti-affinity.
	Weight int64

	term  Term
	kind  Kind
	key   string
	pairs []pair
	total int
}

// Holding calls yield for every held term of a kind that selects pod.
func (s *Snapshot) Holding(kind Kind, pod *corev1.Pod, yield func(*Held)) {
	c := &s.counters
	if len(c.held) == 0 {
		return
	}
	for k, v := range pod.Labels {
		for _, h := range c.heldPair[heldIndex{kind, pair{k, v}}] {
			if s.Matches(&h.term, pod) {
				yield(h)
			}
		}
	}
	for _, h := range c.heldOther[kind] {
		if s.Matches(&h.term, pod) {
			yield(h)
		}
	}
}

// HeldVersion changes whenever a term is held that was not before, so that what
// Holding yielded may be kept as long as it stays.
func (s *Snapshot) HeldVersion() uint64 { return s.counters.heldVersion }

// HoldsAny says whether any placed pod holds a term of the kind.
func (s *Snapshot) HoldsAny(kind Kind) bool { return s.counters.heldOfKind[kind] > 0 }

func (c *counters) hold(s *Snapshot, n *Node, a *Affinity, by int) {
	for i := range a.RequiredAnti {
		c.holdOne(s, n, &a.RequiredAnti[i], HeldRequiredAnti, 0, by)
	}
	for i := range a.Required {
		c.holdOne(s, n, &a.Required[i], HeldRequired, 0, by)
	}
	for i := range a.Preferred {
		c.holdOne(s, n, &a.Preferred[i].Term, HeldPreferred, a.Preferred[i].Weight, by)
	}
	for i := range a.PreferredAnti {
		c.holdOne(s, n, &a.PreferredAnti[i].Term, HeldPreferred, -a.PreferredAnti[i].Weight, by)
	}
}

func (c *counters) holdOne(s *Snapshot, n *Node, t *Term, kind Kind, weight int64, by int) {
	key := strconv.Itoa(int(kind)) + "|" + strconv.FormatInt(weight, 10) + "|" + t.TopologyKey + "|" + t.key
	h := c.held[key]
	if h == nil {
		h = &Held{Domains: Domains{Topology: s.Topology(t.TopologyKey)}, Weight: weight, term: *t, kind: kind, key: key, pairs: t.pairs()}
		c.held[key] = h
		c.heldVersion++
		c.heldOfKind[kind]++
		for _, p := range h.pairs {
			i := heldIndex{kind, p}
			c.heldPair[i] = append(c.heldPair[i], h)
		}
		if h.pairs == nil {
			c.heldOther[kind] = append(c.heldOther[kind], h)
		}
	}
	h.add(h.Topology.Of(n), int32(by))
	if h.total += by; h.total == 0 {
		if s.simulating {
			c.idle = append(c.idle, h) // it may come back before the end
		} else {
			c.release(h)
		}
	}
}

// sweep releases what a simulation left without owners.
func (c *counters) sweep() {
	for _, h := range c.idle {
		if h.total == 0 && c.held[h.key] == h {
			c.release(h)
		}
	}
	c.idle = c.idle[:0]
}

func (c *counters) release(h *Held) {
	delete(c.held, h.key)
	c.heldOfKind[h.kind]--
	drop := func(list []*Held) []*Held {
		return slices.DeleteFunc(list, func(o *Held) bool { return o == h })
	}
	for _, p := range h.pairs {
		i := heldIndex{h.kind, p}
		if c.heldPair[i] = drop(c.heldPair[i]); len(c.heldPair[i]) == 0 {
			delete(c.heldPair, i)
		}
	}
	if h.pairs == nil {
		c.heldOther[h.kind] = drop(c.heldOther[h.kind])
	}
}
