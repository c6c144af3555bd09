// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"
)

// Delta is what to change in the kernel since the last one, in one transaction.
type Delta struct {
	NewSets []NewSet
	// Add and Remove change sets that are there, by their name.
	Add, Remove map[string][]Element
	NewChains   []NewChain
	// Verdicts lead addresses of the node's pods to chains, by direction.
	Verdicts [2][]Verdict
	// Hold says that a pod without an address yet will be isolated in the
	// direction: addresses that belong to no known pod are not served.
	Hold               [2]bool
	OldChains, OldSets []string
}

// NewSet is a set with its first elements. Ranges have Ranges, the others
// Elements.
type NewSet struct {
	Name     string
	Kind     Kind
	Elements []Element
	Ranges   []Range
}

// NewChain is a chain with all its rules; a chain never changes.
type NewChain struct {
	Name      string
	Direction Direction
	Rules     []Rule
}

// Verdict moves an address from one chain to another; empty is none.
type Verdict struct {
	Addr     netip.Addr
	Old, New string
}

// verdicts know which pod's chain each address leads to.
type verdicts struct {
	holders map[netip.Addr][]holder // the last one counts
	written map[netip.Addr]string
	changed map[netip.Addr]struct{}
}

type holder struct {
	pod   Key
	chain string
}

func newVerdicts() *verdicts {
	return &verdicts{holders: map[netip.Addr][]holder{}, written: map[netip.Addr]string{}, changed: map[netip.Addr]struct{}{}}
}

func (v *verdicts) hold(addr netip.Addr, pod Key, chain string) {
	v.holders[addr] = append(v.holders[addr], holder{pod, chain})
	v.changed[addr] = struct{}{}
}

func (v *verdicts) release(addr netip.Addr, pod Key) {
	v.holders[addr] = slices.DeleteFunc(v.holders[addr], func(h holder) bool { return h.pod == pod })
	if len(v.holders[addr]) == 0 {
		delete(v.holders, addr)
	}
	v.changed[addr] = struct{}{}
}

// take returns what changed since it was called last.
func (v *verdicts) take() []Verdict {
	var out []Verdict
	for addr := range v.changed {
		change := Verdict{Addr: addr, Old: v.written[addr]}
		if all := v.holders[addr]; len(all) > 0 {
			change.New = all[len(all)-1].chain
			v.written[addr] = change.New
		} else {
			delete(v.written, addr)
		}
		if change.Old != change.New {
			out = append(out, change)
		}
	}
	clear(v.changed)
	return out
}

// Take returns what changed since the last Take or All.
func (p *Plan) Take() Delta {
	d := Delta{Add: map[string][]Element{}, Remove: map[string][]Element{}, Hold: p.held()}
	p.takeChains(&d)
	p.takeSets(&d)
	for i, v := range p.directions {
		d.Verdicts[i] = v.take()
	}
	return d
}

// All returns everything, for a kernel that has nothing.
func (p *Plan) All() Delta {
	for _, s := range p.sets {
		s.written = false
	}
	for _, c := range p.chains {
		c.written = false
	}
	for _, v := range p.directions {
		clear(v.written)
		for addr := range v.holders {
			v.changed[addr] = struct{}{}
		}
	}
	return p.Take()
}

// Empty says that there is nothing to write but perhaps Hold.
func (d *Delta) Empty() bool {
	return len(d.NewSets)+len(d.Add)+len(d.Remove)+len(d.NewChains)+len(d.Verdicts[Ingress])+len(d.Verdicts[Egress])+len(d.OldChains)+len(d.OldSets) == 0
}

// held says in which directions a pod waits for its address.
func (p *Plan) held() (hold [2]bool) {
	for _, i := range p.local {
		for d, chain := range i.chains {
			hold[d] = hold[d] || chain != "" && len(i.addresses) == 0
		}
	}
	return hold
}

func (p *Plan) takeChains(d *Delta) {
	for name, c := range p.chains {
		switch {
		case c.refs == 0:
			if c.written {
				d.OldChains = append(d.OldChains, name)
			}
			delete(p.chains, name)
			for _, content := range c.contents {
				p.sets[content.id].refs--
			}
		case !c.written:
			d.NewChains = append(d.NewChains, NewChain{name, c.direction, c.rules})
			c.written = true
		}
	}
}

func (p *Plan) takeSets(d *Delta) {
	for id, s := range p.sets {
		switch {
		case s.refs == 0:
			if s.written {
				d.OldSets = append(d.OldSets, id)
			}
			delete(p.sets, id)
		case !s.written:
			fresh := NewSet{Name: id, Kind: s.kind, Ranges: s.ranges}
			for e := range s.count {
				fresh.Elements = append(fresh.Elements, e)
			}
			d.NewSets = append(d.NewSets, fresh)
			s.written = true
		default:
			for e, was := range s.changed {
				is := s.count[e] > 0
				switch {
				case is && !was:
					d.Add[id] = append(d.Add[id], e)
				case was && !is:
					d.Remove[id] = append(d.Remove[id], e)
				}
			}
		}
		clear(s.changed)
	}
}
