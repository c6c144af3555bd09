// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Bounds of how many nodes are looked for when percentageOfNodesToScore does
// not say it: upstream's numbers.
const (
	minFeasibleNodes      = 100
	minFeasiblePercentage = 5
)

// placement is where a pod goes.
type placement struct {
	node      *snapshot.Node
	evaluated int
	feasible  int
}

// chooser makes decisions over a snapshot. It belongs to one profile and is
// used by the scheduling loop alone.
type chooser struct {
	profile *profile
	snap    *snapshot.Snapshot
	classes classes
	rand    *rand.Rand
	start   int // where the next search for nodes begins

	key      []byte
	shared   []bool
	filters  []filter // of this attempt, by plugins that do not share
	statuses []*plugin.Status
	feasible []*snapshot.Node
	totals   []int64
	scores   []int64

	attempts uint64
	timer    sampler
}

// attempt is one decision under way.
type attempt struct {
	*chooser
	ctx   context.Context
	cycle *plugin.Cycle
	class *class
	only  []string
	from  []string // plugins that narrowed the nodes
	judge []filter // filters that do not share
	rival bool     // other pods are nominated that this one must leave room for
	own   []filter // all of them, made for this very pod; see mine
	// narrowed says that extenders took nodes away, with or without a word.
	narrowed bool
	sample   *sampler // nil when the attempt is not timed
}

// choose finds the best node for the pod of c, or returns why there is none:
// a *fitError, errNoNodes, or a plugin's failure.
func (ch *chooser) choose(ctx context.Context, c *plugin.Cycle) (placement, error) {
	if ch.snap.Len() == 0 {
		return placement{}, errNoNodes
	}
	a := attempt{chooser: ch, ctx: ctx, cycle: c}
	c.Fits = a.fits
	a.sample = ch.timed()
	c.Timed = a.sample != nil
	began := ch.profile.metrics.begin()
	if st := a.prepare(); st != nil {
		ch.profile.metrics.point("PreFilter", st.CodeOf(), began)
		if st.Rejected() {
			return placement{}, &fitError{nodes: ch.snap.Len(), preFilter: st.Message(), absent: st, rejectors: []string{st.Plugin}}
		}
		return placement{}, statusError{st, "running PreFilter plugin %q"}
	}
	ch.profile.metrics.point("PreFilter", plugin.Success, began)
	if c.Keep {
		a.judge = slices.Clone(a.judge)
	}
	a.rival = a.hasRivals()

	began = ch.profile.metrics.begin()
	p, ok := a.fast()
	began = ch.profile.metrics.shared(ok, began)
	if ok {
		return p, nil
	}
	evaluated, err := a.find()
	if err != nil {
		ch.profile.metrics.point("Filter", plugin.Error, began)
		return placement{}, err
	}
	switch len(a.chooser.feasible) {
	case 0:
		ch.profile.metrics.point("Filter", plugin.Unschedulable, began)
		return placement{}, a.unfit()
	case 1:
		ch.profile.metrics.point("Filter", plugin.Success, began)
		return placement{a.chooser.feasible[0], evaluated, 1}, nil
	}
	ch.profile.metrics.point("Filter", plugin.Success, began)
	began = ch.profile.metrics.begin()
	n, err := a.best()
	ch.profile.metrics.point("Score", plugin.Success, began)
	return placement{n, evaluated, len(a.chooser.feasible)}, err
}

// timed returns the sampler of the attempt that begins, nil for most of them.
func (ch *chooser) timed() *sampler {
	ch.attempts++
	if ch.attempts%sampleEvery != 1 {
		return nil
	}
	ch.timer = sampler{ch.profile.metrics.plugins, sampleNodes}
	return &ch.timer
}

// prepare signs the pod, finds its class and asks the plugins that do not share.
func (a *attempt) prepare() *plugin.Status {
	p := a.profile
	a.key = a.key[:0]
	a.shared = resize(a.shared, len(p.judges))
	for i := range p.judges {
		a.shared[i] = false
		if s := p.judges[i].signer; s != nil {
			mark := len(a.key)
			key, ok := s.Sign(a.cycle, append(a.key, byte(i), 0, 0, 0, 0))
			if ok {
				// The length keeps fragments from running into one another.
				binary.LittleEndian.PutUint32(key[mark+1:], uint32(len(key)-mark))
				a.key, a.shared[i] = key, true
			} else {
				a.key = key[:mark]
			}
		}
	}
	k, fresh := a.classes.get(a.key)
	a.class, k.sample = k, a.sample
	if fresh {
		if st := k.prepare(a); st != nil {
			return st
		}
	} else if k.refusal != nil {
		return k.refusal
	}
	a.only, a.from = k.only, k.onlyFrom
	a.judge = a.filters[:0]
	for i := range p.judges {
		j := &p.judges[i]
		if a.shared[i] || j.filter == nil {
			continue
		}
		f, st := j.prepareFilter(a)
		if !st.OK() {
			return refused(st, j.name)
		}
		if f.Only != nil {
			a.only = intersect(a.only, f.Only)
			a.from = append(slices.Clone(a.from), j.name)
		}
		if f.Node != nil {
			a.judge = append(a.judge, filter{j.name, i, f.Node, j.calls})
		}
	}
	a.filters = a.judge
	if a.only != nil && len(a.only) == 0 {
		slices.Sort(a.from)
		msg := "node(s) didn't satisfy plugin " + a.from[0]
		if len(a.from) > 1 {
			msg = fmt.Sprintf("node(s) didn't satisfy plugin(s) %v simultaneously", a.from)
		}
		return plugin.NewStatus(a.from[0], plugin.UnschedulableAndUnresolvable, msg)
	}
	return nil
}

// hasRivals says whether nominated pods may take room from this one.
func (a *attempt) hasRivals() bool {
	for _, p := range a.snap.Nominations() {
		if a.isRival(p) {
			return true
		}
	}
	return false
}

func (a *attempt) isRival(p *snapshot.Pod) bool {
	return p.UID() != a.cycle.Pod.UID() && p.Priority() >= a.cycle.Pod.Priority()
}

// fast answers from the class alone, which it can when every plugin shares.
func (a *attempt) fast() (placement, bool) {
	k := a.class
	if k == &a.classes.scratch {
		return placement{}, false
	}
	k.follow(a.snap)
	if len(a.judge) > 0 || a.only != nil || a.rival || len(a.profile.extenders) > 0 ||
		a.cycle.Pod.Object.Status.NominatedNodeName != "" || !a.scoresShared() {
		return placement{}, false
	}
	if k.best == nil {
		k.hold(a.snap)
	}
	if !k.flat() {
		return placement{}, false
	}
	slot, ok := k.best.winner(a.rand.Int32N)
	if !ok {
		return placement{}, false
	}
	return placement{a.snap.Slots()[slot], a.snap.Len(), a.snap.Len()}, true
}

// scoresShared says whether no plugin outside the class values nodes. Most of
// those that do not share their filter have no score for a common pod, but
// only asking them with the feasible nodes would tell.
func (a *attempt) scoresShared() bool {
	for i := range a.profile.judges {
		if j := &a.profile.judges[i]; !a.shared[i] && j.score != nil && j.weight > 0 {
			return false
		}
	}
	return true
}

// find collects feasible nodes into a.feasible and all judgements into
// a.statuses, and returns how many nodes were judged.
func (a *attempt) find() (int, error) {
	slots := a.snap.Slots()
	a.chooser.statuses = resize(a.chooser.statuses, len(slots))
	clear(a.chooser.statuses)
	a.chooser.feasible = a.chooser.feasible[:0]
	evaluated := 0

	// A node that others were preempted on for this pod is taken if it fits.
	if name := a.cycle.Pod.Object.Status.NominatedNodeName; name != "" {
		if n := a.snap.Node(name); n != nil && (a.only == nil || slices.Contains(a.only, name)) {
			evaluated++
			if st := a.judgeNode(n); st == nil {
				a.chooser.feasible = append(a.chooser.feasible, n)
				if err := a.extend(); err != nil || len(a.chooser.feasible) > 0 {
					return evaluated, err
				}
			}
		}
	}

	want := a.wanted()
	visit := func(n *snapshot.Node) (enough bool, err error) {
		evaluated++
		switch st := a.judgeNode(n); {
		case st == nil:
			a.chooser.feasible = append(a.chooser.feasible, n)
		case st.Code == plugin.Error:
			return true, statusError{st, "running %q filter plugin"}
		default:
			a.chooser.statuses[n.Slot] = st
		}
		return len(a.chooser.feasible) >= want, nil
	}
	if a.only != nil {
		for _, name := range a.only {
			if n := a.snap.Node(name); n != nil {
				if enough, err := visit(n); enough {
					if err != nil {
						return evaluated, err
					}
					break
				}
			}
		}
		return evaluated, a.extend()
	}
	for i := range slots {
		at := a.start + i
		if at >= len(slots) {
			at -= len(slots)
		}
		if slots[at] == nil {
			continue
		}
		if enough, err := visit(slots[at]); enough {
			if err != nil {
				return evaluated, err
			}
			a.chooser.start = (at + 1) % len(slots)
			break
		}
	}
	return evaluated, a.extend()
}

// wanted is how many feasible nodes are enough.
func (a *attempt) wanted() int {
	n := a.snap.Len()
	if n < minFeasibleNodes || len(a.profile.judges) == 0 {
		return n
	}
	percent := int(a.profile.percentage)
	if percent == 0 {
		percent = max(50-n/125, minFeasiblePercentage)
	}
	if percent >= 100 {
		return n
	}
	return max(n*percent/100, minFeasibleNodes)
}

// judgeNode returns why the pod does not fit on n, nil when it does. Nominated
// pods that it must leave room for count as placed, and as absent as well:
// affinity to them must not be relied upon.
func (a *attempt) judgeNode(n *snapshot.Node) *plugin.Status {
	if a.rival && len(n.Nominated) > 0 {
		if st := a.withNominated(n); st != nil {
			return st
		}
	}
	st := a.class.judge(n)
	last := len(a.profile.judges)
	if st != nil && len(a.judge) > 0 {
		last = a.class.rank(st)
	}
	for i := range a.judge {
		if a.judge[i].rank > last {
			break
		}
		if own := a.judge[i].run(n, nil); own != nil {
			return own
		}
	}
	return st
}

// withNominated runs all filters with the nominated pods of n lent to it.
func (a *attempt) withNominated(n *snapshot.Node) (st *plugin.Status) {
	a.snap.Simulate(func() {
		var lent []*snapshot.Pod
		for _, p := range n.Nominated {
			if a.isRival(p) && a.snap.Pod(p.UID()) == nil {
				lent = append(lent, p)
			}
		}
		for _, p := range lent {
			a.snap.Lend(n, p)
		}
		if len(lent) > 0 {
			st = a.filter(n)
		}
		for _, p := range lent {
			a.snap.Withdraw(n, p)
		}
	})
	return st
}

// mine returns all filters, made for the pod itself: those of the class were
// made for its first pod, and hold for the others only as long as nobody plays
// through what is not so.
func (a *attempt) mine() ([]filter, *plugin.Status) {
	if a.own != nil {
		return a.own, nil
	}
	own := slices.Clone(a.judge)
	for i := range a.profile.judges {
		j := &a.profile.judges[i]
		if !a.shared[i] || j.filter == nil {
			continue
		}
		f, st := j.filter.Filter(a.ctx, a.cycle)
		if !st.OK() {
			return nil, refused(st, j.name)
		}
		if f.Node != nil {
			own = append(own, filter{j.name, i, f.Node, j.calls})
		}
	}
	slices.SortFunc(own, func(x, y filter) int { return x.rank - y.rank })
	a.own = own
	return own, nil
}

// filter runs all filters on n as it is now, past what the class remembers.
func (a *attempt) filter(n *snapshot.Node) *plugin.Status {
	own, st := a.mine()
	if st != nil {
		return st
	}
	for i := range own {
		if st := own[i].run(n, nil); st != nil {
			return refused(st, own[i].name)
		}
	}
	return nil
}

// fits is Cycle.Fits.
func (a *attempt) fits(_ context.Context, n *snapshot.Node) *plugin.Status {
	if len(n.Nominated) > 0 {
		if st := a.withNominated(n); st != nil {
			return st
		}
	}
	return a.filter(n)
}

// extend lets the extenders narrow the feasible nodes.
func (a *attempt) extend() error {
	for _, e := range a.profile.extenders {
		if len(a.chooser.feasible) == 0 {
			return nil
		}
		if !e.IsInterested(a.cycle.Pod.Object) {
			continue
		}
		kept, failed, err := e.filter(a.ctx, a.cycle.Pod.Object, a.chooser.feasible)
		if err != nil {
			if e.Ignorable() {
				a.profile.log.Info("extender failed and is ignorable", "extender", e.Name(), "err", err)
				continue
			}
			return err
		}
		for n, st := range failed {
			a.chooser.statuses[n.Slot] = st
		}
		a.narrowed = a.narrowed || len(kept) < len(a.chooser.feasible)
		a.chooser.feasible = kept
	}
	return nil
}

// best scores the feasible nodes and returns one of the highest.
func (a *attempt) best() (*snapshot.Node, error) {
	nodes := a.chooser.feasible
	totals := resize(a.totals, len(nodes))
	a.chooser.totals = totals
	k := a.class
	for i, n := range nodes {
		totals[i] = k.worth[n.Slot]
	}
	scores := resize(a.chooser.scores, len(nodes))
	a.chooser.scores = scores
	for r := range k.raw {
		if raw := &k.raw[r]; raw.nonzero > 0 {
			for i, n := range nodes {
				scores[i] = raw.score[n.Slot]
			}
			raw.normalize(scores)
			addWeighted(totals, scores, raw.weight)
		}
	}
	for i := range a.profile.judges {
		j := &a.profile.judges[i]
		if a.shared[i] || j.score == nil || j.weight == 0 {
			continue
		}
		sc, st := j.prepareScore(a, nodes)
		if !st.OK() {
			return nil, statusError{refused(st, j.name), "running PreScore plugin %q"}
		}
		if sc.Node == nil {
			continue
		}
		for i, n := range nodes {
			scores[i] = sc.Node(n)
			j.calls.score.calls++
		}
		if sc.Normalize != nil {
			sc.Normalize(scores)
		}
		addWeighted(totals, scores, j.weight)
	}
	for _, e := range a.profile.extenders {
		e.prioritize(a.ctx, a.cycle.Pod.Object, nodes, totals, a.profile.log)
	}
	pick, ties := 0, int32(1)
	for i := 1; i < len(totals); i++ {
		switch {
		case totals[i] > totals[pick]:
			pick, ties = i, 1
		case totals[i] == totals[pick]:
			if ties++; a.rand.Int32N(ties) == 0 {
				pick = i
			}
		}
	}
	return nodes[pick], nil
}

func addWeighted(totals, scores []int64, weight int64) {
	for i := range totals {
		totals[i] += scores[i] * weight
	}
}

// unfit is the error of an attempt in which no node was feasible.
func (a *attempt) unfit() *fitError {
	e := &fitError{nodes: a.snap.Len(), statuses: a.chooser.statuses}
	a.cycle.Statuses = a.chooser.statuses
	seen := map[string]struct{}{}
	for _, st := range e.statuses {
		if st != nil && st.Plugin != "" {
			seen[st.Plugin] = struct{}{}
		}
	}
	if a.only != nil {
		from := slices.Sorted(slices.Values(a.from))
		e.absent = plugin.NewStatus(from[0], plugin.UnschedulableAndUnresolvable,
			fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", from))
		for _, name := range from {
			seen[name] = struct{}{}
		}
	}
	if a.narrowed {
		seen[extenderName] = struct{}{}
	}
	for name := range seen {
		e.rejectors = append(e.rejectors, name)
	}
	slices.Sort(e.rejectors)
	return e
}

// pointTime is when a measured call began; zero when it is not sampled.
type pointTime = time.Time

// statusError is a plugin's failure. doing says of the plugin, in upstream's
// words, what it was asked for.
type statusError struct {
	status *plugin.Status
	doing  string
}

func (e statusError) Error() string {
	if e.status.Plugin == "" {
		return e.status.Message()
	}
	return strings.TrimSpace(fmt.Sprintf(e.doing+": %s", e.status.Plugin, e.status.Message()))
}

// Unwrap gives the plugin's own error.
func (e statusError) Unwrap() error { return e.status.Err }
