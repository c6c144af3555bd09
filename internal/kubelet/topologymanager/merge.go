// SPDX-License-Identifier: Apache-2.0

package topologymanager

import (
	"maps"
	"slices"
)

// gather makes one list of hints a resource from what the providers say. No
// hints mean no preference, an empty list that no set of nodes will do.
func gather(all []map[string][]Hint) [][]Hint {
	var lists [][]Hint
	for _, hints := range all {
		if len(hints) == 0 {
			lists = append(lists, []Hint{{Preferred: true}})
		}
		for _, resource := range slices.Sorted(maps.Keys(hints)) {
			switch list := hints[resource]; {
			case list == nil:
				lists = append(lists, []Hint{{Preferred: true}})
			case len(list) == 0:
				lists = append(lists, []Hint{{}})
			default:
				lists = append(lists, list)
			}
		}
	}
	return lists
}

// single leaves the hints that one node satisfies.
func single(lists [][]Hint) [][]Hint {
	out := make([][]Hint, 0, len(lists))
	for _, list := range lists {
		var kept []Hint
		for _, h := range list {
			if h.Preferred && h.Affinity.Count() <= 1 {
				kept = append(kept, h)
			}
		}
		out = append(out, kept)
	}
	return out
}

// merge finds the best set of nodes for all resources together.
func (m *Manager) merge(lists [][]Hint) Hint {
	widest := 0 // what the resource that needs the most nodes needs
	for _, list := range lists {
		narrowest := Mask(0)
		for _, h := range list {
			if h.Affinity != 0 && (narrowest == 0 || h.Affinity.Narrower(narrowest)) {
				narrowest = h.Affinity
			}
		}
		widest = max(widest, narrowest.Count())
	}
	var best *Hint
	each(lists, nil, func(picked []Hint) {
		h := m.intersect(picked)
		if h.Affinity == 0 {
			return
		}
		if best == nil || m.better(*best, h, widest) {
			best = &h
		}
	})
	if best == nil {
		return Hint{Affinity: m.all}
	}
	return *best
}

// intersect is what hints have in common; it is preferred if all are, and agree.
func (m *Manager) intersect(picked []Hint) Hint {
	out, first := Hint{Affinity: m.all, Preferred: true}, Mask(0)
	for _, h := range picked {
		if h.Affinity != 0 {
			if first == 0 {
				first = h.Affinity
			}
			out.Affinity &= h.Affinity
			out.Preferred = out.Preferred && h.Affinity == first
		}
		out.Preferred = out.Preferred && h.Preferred
	}
	return out
}

// better says whether a candidate is to replace the best set so far.
func (m *Manager) better(best, candidate Hint, widest int) bool {
	if best.Preferred != candidate.Preferred {
		return candidate.Preferred
	}
	if best.Preferred {
		return m.fitter(best.Affinity, candidate.Affinity)
	}
	// Among sets that nobody prefers, the size that the widest request needs is
	// the best, then the nearest below it, then the nearest above.
	b, c := best.Affinity.Count(), candidate.Affinity.Count()
	switch {
	case b > widest:
		if b == c {
			return m.fitter(best.Affinity, candidate.Affinity)
		}
		return c < b
	case b == widest:
		return c == widest && m.fitter(best.Affinity, candidate.Affinity)
	case c > widest:
		return false
	case c == b:
		return m.fitter(best.Affinity, candidate.Affinity)
	}
	return c > b
}

// fitter says whether a candidate is narrower, or nearer where that is asked for.
func (m *Manager) fitter(best, candidate Mask) bool {
	if best == candidate {
		return false
	}
	if m.closest && m.cfg.Policy != SingleNUMANode && best.Count() == candidate.Count() {
		if b, c := m.distance(best), m.distance(candidate); b != c {
			return c < b
		}
	}
	return candidate.Narrower(best)
}

// distance is the mean distance between the nodes of a set.
func (m *Manager) distance(of Mask) float64 {
	sum, count := 0.0, 0.0
	for _, from := range of.Nodes() {
		for _, to := range of.Nodes() {
			i := slices.Index(m.ids, from)
			j := slices.Index(m.ids, to)
			if i >= 0 && j >= 0 && j < len(m.cfg.Nodes[i].Distances) {
				sum += float64(m.cfg.Nodes[i].Distances[j])
			}
			count++
		}
	}
	return sum / max(count, 1)
}

// each calls visit with every way of taking one hint of each list.
func each(lists [][]Hint, picked []Hint, visit func([]Hint)) {
	if len(lists) == 0 {
		visit(picked)
		return
	}
	for _, h := range lists[0] {
		each(lists[1:], append(picked, h), visit)
	}
}
