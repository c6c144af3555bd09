// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// counters keep, for every selection of pods that was asked for, how many of
// them are on each node and in each topology domain; and, for every affinity
// term that placed pods have, in which domains their owners are.
type counters struct {
	sets   map[string]*PodSet
	byPair map[pair][]*PodSet
	others []*PodSet // sets that no label pair narrows

	held      map[string]*Held
	heldPair  map[heldIndex][]*Held
	heldOther [kinds][]*Held
	idle      []*Held // without owners since a simulation began

	heldVersion uint64
	heldOfKind  [kinds]int

	tick uint64
}

type heldIndex struct {
	kind Kind
	pair pair
}

func newCounters() counters {
	return counters{
		sets: map[string]*PodSet{}, byPair: map[pair][]*PodSet{},
		held: map[string]*Held{}, heldPair: map[heldIndex][]*Held{},
	}
}

// maxSets bounds the selections kept; the half used least recently goes.
const maxSets = 4096

// PodSet counts the placed pods that all of its terms select.
type PodSet struct {
	key     string
	terms   []Term
	pairs   []pair
	node    []int32 // by slot
	domains []*Domains
	total   int
	used    uint64
}

// Domains counts by topology value.
type Domains struct {
	Topology *Topology
	counts   []int32
}

// At returns the count of a value; -1, the absent value, counts nothing.
func (d *Domains) At(value int32) int32 {
	if value < 0 || int(value) >= len(d.counts) {
		return 0
	}
	return d.counts[value]
}

// Empty says that no domain counts anything.
func (d *Domains) Empty() bool {
	return !slices.ContainsFunc(d.counts, func(c int32) bool { return c != 0 })
}

func (d *Domains) add(value int32, by int32) {
	if value < 0 {
		return
	}
	for int(value) >= len(d.counts) {
		d.counts = append(d.counts, 0)
	}
	d.counts[value] += by
}

// Total returns how many placed pods are in the set.
func (ps *PodSet) Total() int { return ps.total }

// On returns how many pods of the set are on the node.
func (ps *PodSet) On(n *Node) int32 {
	if int(n.Slot) >= len(ps.node) {
		return 0
	}
	return ps.node[n.Slot]
}

// Domains returns the counts by the values of a topology key.
func (s *Snapshot) Domains(ps *PodSet, topologyKey string) *Domains {
	for _, d := range ps.domains {
		if d.Topology.Key == topologyKey {
			return d
		}
	}
	d := &Domains{Topology: s.Topology(topologyKey)}
	for slot, c := range ps.node {
		if c != 0 && s.slots[slot] != nil {
			d.add(d.Topology.Of(s.slots[slot]), c)
		}
	}
	ps.domains = append(ps.domains, d)
	return d
}

// PodSet returns the counts of the pods that all terms select. The first call
// looks at every placed pod, later ones cost a look-up.
func (s *Snapshot) PodSet(terms ...Term) *PodSet {
	key := terms[0].key
	if len(terms) > 1 {
		keys := make([]string, len(terms))
		for i := range terms {
			keys[i] = terms[i].key
		}
		key = strings.Join(keys, "&")
	}
	c := &s.counters
	c.tick++
	ps := c.sets[key]
	if ps == nil {
		if len(c.sets) >= maxSets {
			c.forgetOldest()
		}
		ps = &PodSet{key: key, terms: slices.Clone(terms)}
		for i := range terms {
			if p := terms[i].pairs(); p != nil && (ps.pairs == nil || len(p) < len(ps.pairs)) {
				ps.pairs = p
			}
		}
		c.sets[key] = ps
		c.index(ps)
		s.count1(ps)
	}
	ps.used = c.tick
	return ps
}

func (c *counters) index(ps *PodSet) {
	for _, p := range ps.pairs {
		c.byPair[p] = append(c.byPair[p], ps)
	}
	if ps.pairs == nil {
		c.others = append(c.others, ps)
	}
}

func (c *counters) forgetOldest() {
	all := make([]*PodSet, 0, len(c.sets))
	for _, ps := range c.sets {
		all = append(all, ps)
	}
	slices.SortFunc(all, func(a, b *PodSet) int { return int(int64(b.used) - int64(a.used)) })
	clear(c.sets)
	clear(c.byPair)
	c.others = nil
	for _, ps := range all[:len(all)/2] {
		c.sets[ps.key] = ps
		c.index(ps)
	}
}

// count1 counts a set from nothing.
func (s *Snapshot) count1(ps *PodSet) {
	ps.node = make([]int32, len(s.slots))
	ps.total = 0
	ps.domains = nil
	for _, n := range s.slots {
		if n == nil {
			continue
		}
		for _, p := range n.Pods {
			if ps.matches(s, p.Object) {
				ps.node[n.Slot]++
				ps.total++
			}
		}
	}
}

func (ps *PodSet) matches(s *Snapshot, pod *corev1.Pod) bool {
	for i := range ps.terms {
		if !s.Matches(&ps.terms[i], pod) {
			return false
		}
	}
	return true
}

func (ps *PodSet) add(n *Node, by int) {
	for int(n.Slot) >= len(ps.node) {
		ps.node = append(ps.node, 0)
	}
	ps.node[n.Slot] += int32(by)
	ps.total += by
	for _, d := range ps.domains {
		d.add(d.Topology.Of(n), int32(by))
	}
}

func (c *counters) grow(slots int) {
	for _, ps := range c.sets {
		for len(ps.node) < slots {
			ps.node = append(ps.node, 0)
		}
	}
}

// apply counts pod p on node n in (by 1) or out (by -1).
func (c *counters) apply(s *Snapshot, n *Node, p *Pod, by int) {
	if len(c.byPair) > 0 {
		for k, v := range p.Object.Labels {
			for _, ps := range c.byPair[pair{k, v}] {
				if ps.matches(s, p.Object) {
					ps.add(n, by)
				}
			}
		}
	}
	for _, ps := range c.others {
		if ps.matches(s, p.Object) {
			ps.add(n, by)
		}
	}
	if p.Affinity != nil {
		c.hold(s, n, p.Affinity, by)
	}
}

func (c *counters) namespaceChanged(s *Snapshot) {
	for _, ps := range c.sets {
		if slices.ContainsFunc(ps.terms, func(t Term) bool { return t.nsSelector != nil }) {
			s.count1(ps)
		}
	}
}
