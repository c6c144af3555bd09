// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Local is the set of the addresses of the node's own pods.
const Local = "local-pods"

// Kind says what a set holds.
type Kind int

// The kinds of sets: addresses of pods, ranges of addresses (which never
// change), and addresses with protocol and port.
const (
	Addresses Kind = iota
	Ranges
	Endpoints
)

// Element is a member of a set. Protocol and Port are zero but for Endpoints.
type Element struct {
	Addr     netip.Addr
	Protocol corev1.Protocol
	Port     uint16
}

// content says what belongs into a set.
type content struct {
	id     string
	kind   Kind
	local  bool   // the node's own pods
	peers  []peer // nil is everybody
	ranges []Range
	port   port // Endpoints: a named port
}

// set is a content that a chain of the node needs.
type set struct {
	*content
	refs    int
	members map[Key][]Element // what each pod brings in
	count   map[Element]int
	// changed tells of each element touched since the last Delta whether it was
	// in the set then.
	changed map[Element]bool
	written bool
}

// acquire counts a reference to a set and fills it when it is new.
func (p *Plan) acquire(c *content) {
	s := p.sets[c.id]
	if s == nil {
		s = &set{content: c, members: map[Key][]Element{}, count: map[Element]int{}, changed: map[Element]bool{}}
		p.sets[c.id] = s
		for _, pods := range p.pods {
			for _, pod := range pods {
				p.member(s, pod.key, pod)
			}
		}
	}
	s.refs++
}

// refresh brings all sets in line with a pod; nil is one that is gone.
func (p *Plan) refresh(key Key, now *pod) {
	for _, s := range p.sets {
		p.member(s, key, now)
	}
}

func (p *Plan) member(s *set, key Key, now *pod) {
	var want []Element
	if now != nil {
		want = p.elements(s.content, now)
	}
	have := s.members[key]
	if slices.Equal(have, want) {
		return
	}
	for _, e := range want {
		s.add(e, 1)
	}
	for _, e := range have {
		s.add(e, -1)
	}
	if s.members[key] = want; len(want) == 0 {
		delete(s.members, key)
	}
}

// add counts an element; an address may belong to two pods for a moment.
func (s *set) add(e Element, n int) {
	if _, touched := s.changed[e]; !touched {
		s.changed[e] = s.count[e] > 0
	}
	if s.count[e] += n; s.count[e] == 0 {
		delete(s.count, e)
	}
}

// elements returns what a pod brings into a set.
func (p *Plan) elements(c *content, o *pod) []Element {
	if c.kind == Ranges || c.local && !o.local {
		return nil
	}
	var out []Element
	for _, addr := range o.addresses {
		if !c.local && !p.means(c.peers, o, addr) {
			continue
		}
		if c.kind == Addresses {
			out = append(out, Element{Addr: addr})
			continue
		}
		for _, named := range o.ports {
			if named.name == c.port.name && named.protocol == c.port.protocol {
				out = append(out, Element{addr, named.protocol, named.port})
			}
		}
	}
	return out
}

// means says whether any of the peers covers a pod's address.
func (p *Plan) means(peers []peer, o *pod, addr netip.Addr) bool {
	return peers == nil || slices.ContainsFunc(peers, func(q peer) bool {
		if q.block == nil {
			return q.selects(p.namespaces, o)
		}
		return slices.ContainsFunc(blockRanges(q.block), func(r Range) bool { return r.Contains(addr) })
	})
}
