// SPDX-License-Identifier: Apache-2.0

package cpumanager

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/utils/cpuset"

	"kaji/internal/kubelet/hardware"
	"kaji/internal/kubelet/topologymanager"
)

// level names the part of the machine that a processor is in.
type level func(hardware.CPU) int

func socket(c hardware.CPU) int { return c.Socket }
func numa(c hardware.CPU) int   { return c.Node }
func cache(c hardware.CPU) int  { return c.Cache }
func core(c hardware.CPU) int   { return c.Core }

// taker takes processors from free ones.
type taker struct {
	layout *hardware.Layout
	free   cpuset.CPUSet
	taken  cpuset.CPUSet
	needed int
	levels []level // the widest first, cores last
}

// take takes processors so that as few parts of the machine as possible are
// touched: whole sockets and nodes, whole caches where that is wanted, whole cores,
// then single processors, and of each kind those with the least left first.
func take(l *hardware.Layout, free cpuset.CPUSet, count int, caches bool) (cpuset.CPUSet, error) {
	if free.Size() < count {
		return cpuset.New(), fmt.Errorf("not enough cpus available to satisfy request: requested=%d, available=%d", count, free.Size())
	}
	t := &taker{layout: l, free: free, needed: count, levels: []level{numa, socket, core}}
	if distinct(l, socket) < distinct(l, numa) {
		t.levels = []level{socket, numa, core}
	}
	t.whole(t.levels[0])
	t.whole(t.levels[1])
	if caches {
		t.whole(cache)
	}
	t.whole(core)
	for _, c := range t.sorted() {
		if t.needed > 0 {
			t.add(cpuset.New(c.ID))
		}
	}
	return t.taken, nil
}

func distinct(l *hardware.Layout, of level) int {
	seen := map[int]bool{}
	for _, c := range l.CPUs {
		seen[of(c)] = true
	}
	return len(seen)
}

func (t *taker) add(cpus cpuset.CPUSet) {
	t.free, t.taken, t.needed = t.free.Difference(cpus), t.taken.Union(cpus), t.needed-cpus.Size()
}

// sorted are the free processors: those of the parts with the least left first.
func (t *taker) sorted() []hardware.CPU {
	left := make([]map[int]int, len(t.levels))
	for i, of := range t.levels {
		left[i] = map[int]int{}
		for _, c := range t.layout.CPUs {
			if t.free.Contains(c.ID) {
				left[i][of(c)]++
			}
		}
	}
	cpus := slices.DeleteFunc(slices.Clone(t.layout.CPUs), func(c hardware.CPU) bool { return !t.free.Contains(c.ID) })
	slices.SortFunc(cpus, func(a, b hardware.CPU) int {
		for i, of := range t.levels {
			if o := cmp.Or(cmp.Compare(left[i][of(a)], left[i][of(b)]), cmp.Compare(of(a), of(b))); o != 0 {
				return o
			}
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return cpus
}

// whole takes parts of the machine that are free as a whole, as long as as many
// are needed.
func (t *taker) whole(of level) {
	seen := map[int]bool{}
	for _, c := range t.sorted() {
		part := of(c)
		if seen[part] {
			continue
		}
		seen[part] = true
		cpus := t.layout.Where(func(o hardware.CPU) bool { return of(o) == part })
		if cpus.Size() <= t.needed && cpus.IsSubsetOf(t.free) {
			t.add(cpus)
		}
	}
}

// spread takes processors from as few NUMA nodes as will do, the same number from
// each but for what is left over; group is how many come together.
func spread(l *hardware.Layout, free cpuset.CPUSet, count, group int, caches bool) (cpuset.CPUSet, error) {
	of := func(node int) cpuset.CPUSet {
		return free.Intersection(l.Where(func(c hardware.CPU) bool { return c.Node == node }))
	}
	var best []int
	topologymanager.EachMask(l.NodeIDs(), func(m topologymanager.Mask) {
		if best != nil && len(best) < m.Count() {
			return
		}
		share, room := count/group/m.Count()*group, 0
		for _, node := range m.Nodes() {
			if of(node).Size() < share {
				return
			}
			room += of(node).Size()
		}
		if room >= count && (best == nil || uneven(m.Nodes(), of) < uneven(best, of)) {
			best = m.Nodes()
		}
	})
	if len(best) < 2 || count%group != 0 {
		return take(l, free, count, caches)
	}
	out, left := cpuset.New(), count
	share := count / group / len(best) * group
	for _, node := range best {
		some, err := take(l, of(node), share, caches)
		if err != nil {
			return cpuset.New(), err
		}
		out, left = out.Union(some), left-share
	}
	for left > 0 { // what is left over comes from where most is free
		node := slices.MaxFunc(best, func(a, b int) int {
			return cmp.Or(cmp.Compare(of(a).Difference(out).Size(), of(b).Difference(out).Size()), cmp.Compare(b, a))
		})
		some, err := take(l, of(node).Difference(out), min(group, left), caches)
		if err != nil {
			return cpuset.New(), err
		}
		out, left = out.Union(some), left-some.Size()
	}
	return out, nil
}

// uneven is how far apart nodes are in what they have free.
func uneven(nodes []int, free func(int) cpuset.CPUSet) int {
	least, most := free(nodes[0]).Size(), 0
	for _, n := range nodes {
		least, most = min(least, free(n).Size()), max(most, free(n).Size())
	}
	return most - least
}
