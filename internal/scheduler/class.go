// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"math"
	"slices"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// class is what is known about pods that all plugins judge alike by what is on
// a node alone: which nodes they fit on and what those are worth. It follows
// the snapshot's log of changes, so that the next pod of the class costs only
// the nodes that changed since the last one.
type class struct {
	key      string
	filters  []filter
	scores   []scorer // already 0..MaxScore: summed into worth
	raw      []rawScorer
	only     []string // names of the only nodes to look at, nil for all
	onlyFrom []string // plugins that said so
	refusal  *plugin.Status

	pos    uint64 // position in the log of changes
	known  []bool
	status []*plugin.Status // nil where the pod fits
	worth  []int64
	best   *tournament // of all nodes; nil until the class proves common
	used   uint64
	sample *sampler // of the attempt under way
}

type filter struct {
	name  string
	rank  int // among all filters: the first one that refuses a node is heard
	node  func(*snapshot.Node) *plugin.Status
	calls *evaluations
}

type scorer struct {
	name   string
	weight int64
	node   func(*snapshot.Node) int64
	calls  *evaluations
}

// rawScorer keeps the scores of a plugin that normalizes over all feasible
// nodes. As long as all of them are zero, normalizing cannot tell nodes apart.
type rawScorer struct {
	scorer
	normalize func([]int64)
	score     []int64
	nonzero   int
}

// reset prepares the columns for n slots, all unknown.
func (k *class) reset(n int) {
	k.known = resize(k.known, n)
	clear(k.known)
	k.status = resize(k.status, n)
	clear(k.status)
	k.worth = resize(k.worth, n)
	for i := range k.raw {
		k.raw[i].score = resize(k.raw[i].score, n)
		clear(k.raw[i].score)
		k.raw[i].nonzero = 0
	}
	k.best = nil
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// follow applies what changed in the snapshot since the class was last used.
func (k *class) follow(s *snapshot.Snapshot) {
	changed, ok := s.ChangedSince(k.pos)
	n := len(s.Slots())
	switch {
	case !ok || len(changed) > n/2+64:
		k.reset(n)
	default:
		if grow := n - len(k.known); grow > 0 {
			k.known = append(k.known, make([]bool, grow)...)
			k.status = append(k.status, make([]*plugin.Status, grow)...)
			k.worth = append(k.worth, make([]int64, grow)...)
			for i := range k.raw {
				k.raw[i].score = append(k.raw[i].score, make([]int64, grow)...)
			}
			k.best = nil
		}
		for _, slot := range changed {
			k.known[slot] = false
		}
		if k.best != nil {
			for _, slot := range changed {
				if !k.known[slot] {
					k.settle(s.Slots()[slot], slot)
				}
			}
		}
	}
	k.pos = s.Position()
}

// settle judges a node and enters it in the tournament.
func (k *class) settle(n *snapshot.Node, slot int32) {
	if n == nil {
		k.known[slot] = true
		k.forgetRaw(slot)
		k.best.set(slot, absent)
		return
	}
	if k.judge(n) != nil {
		k.best.set(slot, absent)
		return
	}
	k.best.set(slot, k.worth[slot])
}

// rank returns which filter of the class the status is from.
func (k *class) rank(st *plugin.Status) int {
	for i := range k.filters {
		if k.filters[i].name == st.Plugin {
			return k.filters[i].rank
		}
	}
	return -1
}

func (k *class) forgetRaw(slot int32) {
	for i := range k.raw {
		if k.raw[i].score[slot] != 0 {
			k.raw[i].nonzero--
			k.raw[i].score[slot] = 0
		}
	}
}

// judge returns why the pod does not fit on n, nil when it does.
func (k *class) judge(n *snapshot.Node) *plugin.Status {
	slot := n.Slot
	if k.known[slot] {
		return k.status[slot]
	}
	k.known[slot] = true
	k.forgetRaw(slot)
	t := k.sample.node()
	for i := range k.filters {
		if s := k.filters[i].run(n, t); s != nil {
			k.status[slot] = s
			return s
		}
	}
	k.status[slot] = nil
	var worth int64
	for i := range k.scores {
		worth += k.scores[i].run(n, t) * k.scores[i].weight
	}
	k.worth[slot] = worth
	for i := range k.raw {
		if v := k.raw[i].run(n, t); v != 0 {
			k.raw[i].score[slot] = v
			k.raw[i].nonzero++
		}
	}
	return nil
}

// flat says that scores to normalize tell no nodes apart.
func (k *class) flat() bool {
	return !slices.ContainsFunc(k.raw, func(r rawScorer) bool { return r.nonzero > 0 })
}

// hold judges all nodes and keeps them in a tournament from now on.
func (k *class) hold(s *snapshot.Snapshot) {
	k.best = newTournament(len(s.Slots()))
	for slot, n := range s.Slots() {
		if n != nil && k.judge(n) == nil {
			k.best.leaf(int32(slot), k.worth[slot])
		}
	}
	k.best.build()
}

// absent marks nodes that the pod does not fit on.
const absent = math.MinInt64

// tournament finds the highest value of a column, and one at random among
// equals, while values change one by one.
type tournament struct {
	size int
	max  []int64
	ties []int32
}

func newTournament(slots int) *tournament {
	size := 1
	for size < slots {
		size *= 2
	}
	t := &tournament{size: size, max: make([]int64, 2*size), ties: make([]int32, 2*size)}
	for i := range t.max {
		t.max[i] = absent
	}
	return t
}

// leaf sets a value without updating the rounds above; build follows.
func (t *tournament) leaf(slot int32, v int64) {
	i := t.size + int(slot)
	t.max[i] = v
	t.ties[i] = 1
	if v == absent {
		t.ties[i] = 0
	}
}

func (t *tournament) build() {
	for i := t.size - 1; i >= 1; i-- {
		t.play(i)
	}
}

func (t *tournament) play(i int) {
	l, r := 2*i, 2*i+1
	switch {
	case t.max[l] > t.max[r]:
		t.max[i], t.ties[i] = t.max[l], t.ties[l]
	case t.max[l] < t.max[r]:
		t.max[i], t.ties[i] = t.max[r], t.ties[r]
	default:
		t.max[i], t.ties[i] = t.max[l], t.ties[l]+t.ties[r]
	}
}

func (t *tournament) set(slot int32, v int64) {
	t.leaf(slot, v)
	for i := (t.size + int(slot)) / 2; i >= 1; i /= 2 {
		t.play(i)
	}
}

// winner returns a slot of the highest value, chosen by pick among so many;
// false when all are absent.
func (t *tournament) winner(pick func(n int32) int32) (int32, bool) {
	if t.max[1] == absent {
		return 0, false
	}
	k := pick(t.ties[1])
	i := 1
	for i < t.size {
		l := 2 * i
		if t.max[l] == t.max[i] {
			if k < t.ties[l] {
				i = l
				continue
			}
			k -= t.ties[l]
		}
		i = l + 1
	}
	return int32(i - t.size), true
}

// classes keeps the classes of the pods seen lately.
type classes struct {
	byKey   map[string]*class
	once    map[string]struct{} // keys seen a single time
	scratch class               // for pods seen the first time
	tick    uint64
}

const (
	maxClasses = 48
	maxOnce    = 4096
)

// get returns the class for a key. The class of a key that is new is only good
// for this attempt; fresh says that it has to be prepared.
func (cs *classes) get(key []byte) (k *class, fresh bool) {
	cs.tick++
	if k = cs.byKey[string(key)]; k != nil {
		k.used = cs.tick
		return k, false
	}
	if _, seen := cs.once[string(key)]; !seen {
		if len(cs.once) >= maxOnce || cs.once == nil {
			cs.once = map[string]struct{}{}
		}
		cs.once[string(key)] = struct{}{}
		s := &cs.scratch
		*s = class{known: s.known, status: s.status, worth: s.worth}
		return s, true
	}
	delete(cs.once, string(key))
	if cs.byKey == nil {
		cs.byKey = map[string]*class{}
	}
	k = &class{key: string(key), used: cs.tick}
	if len(cs.byKey) >= maxClasses {
		var oldest *class
		for _, c := range cs.byKey {
			if oldest == nil || c.used < oldest.used {
				oldest = c
			}
		}
		delete(cs.byKey, oldest.key)
	}
	cs.byKey[k.key] = k
	return k, true
}

// forget drops everything, for when what plugins were prepared with changed.
func (cs *classes) forget() { *cs = classes{tick: cs.tick} }

// prepare asks the plugins that share judgements.
func (k *class) prepare(a *attempt) *plugin.Status {
	p, shared := a.profile, a.shared
	k.filters, k.scores, k.raw, k.only, k.onlyFrom, k.refusal = k.filters[:0], k.scores[:0], nil, nil, nil, nil
	for i := range p.judges {
		if j := &p.judges[i]; shared[i] && j.filter != nil {
			f, st := j.prepareFilter(a)
			if !st.OK() {
				k.refusal = refused(st, j.name)
				return k.refusal
			}
			k.restrict(&f, j.name)
			if f.Node != nil {
				k.filters = append(k.filters, filter{j.name, i, f.Node, j.calls})
			}
		}
	}
	for i := range p.judges {
		if j := &p.judges[i]; shared[i] && j.score != nil && j.weight > 0 {
			sc, st := j.prepareScore(a, nil)
			if !st.OK() {
				k.refusal = refused(st, j.name)
				return k.refusal
			}
			switch {
			case sc.Node == nil:
			case sc.Normalize == nil:
				k.scores = append(k.scores, scorer{j.name, j.weight, sc.Node, j.calls})
			default:
				k.raw = append(k.raw, rawScorer{scorer: scorer{j.name, j.weight, sc.Node, j.calls}, normalize: sc.Normalize})
			}
		}
	}
	k.reset(len(a.snap.Slots()))
	k.pos = a.snap.Position()
	return nil
}

func (k *class) restrict(f *plugin.Filter, by string) {
	if f.Only == nil {
		return
	}
	k.only = intersect(k.only, f.Only)
	k.onlyFrom = append(k.onlyFrom, by)
}

// intersect returns the names in both; nil means all.
func intersect(a, b []string) []string {
	if a == nil {
		return b
	}
	out := []string{}
	for _, name := range a {
		if slices.Contains(b, name) {
			out = append(out, name)
		}
	}
	return out
}

// refused makes sure that a plugin's refusal names it.
func refused(s *plugin.Status, name string) *plugin.Status {
	if s.Plugin != "" {
		return s
	}
	named := *s
	named.Plugin = name
	return &named
}
