// SPDX-License-Identifier: Apache-2.0

// Package queue holds the pods that wait to be placed: active ones in order,
// those backing off after a failed attempt, and those that no attempt can help
// until something in the cluster changes. Events of the cluster move pods
// between them; each plugin says which events may help a pod it rejected.
//
// The scheduling loop owns the queue and calls it with the current time. It
// takes no locks, starts no goroutines and sets no timers.
package queue

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/podgroup"
	"kaji/internal/scheduler/snapshot"

	corev1 "k8s.io/api/core/v1"
)

// Names of what moved a pod, as metrics show them beside the cluster's events.
const (
	ScheduleAttemptFailure = "ScheduleAttemptFailure"
	BackoffComplete        = "BackoffComplete"
	PopFromBackoffQ        = "PopFromBackoffQ"
	ForceActivate          = "ForceActivate"
	UnschedulableTimeout   = "UnschedulableTimeout"
	podAdd                 = "UnscheduledPodAdd"
	podUpdate              = "UnscheduledPodUpdate"
)

// Config are the queue's settings; zero durations mean upstream's defaults.
type Config struct {
	// InitialBackoff (1 s) doubles with every failed attempt up to MaxBackoff (10 s).
	InitialBackoff, MaxBackoff time.Duration
	// MaxUnschedulable is after what time a pod is retried without any event (5 min).
	MaxUnschedulable time.Duration
	// Hints are the events that each plugin registered, by profile and plugin.
	// Pods rejected by a plugin without an entry are retried on any event.
	Hints map[Rejector][]plugin.EventHint
	// PreEnqueue asks the plugins whether a pod may be active.
	PreEnqueue func(pod *corev1.Pod) *plugin.Status
	// GroupOf says which group of pods a pod is placed with; nil when there are
	// no groups.
	GroupOf func(pod *corev1.Pod) (podgroup.Key, bool)
	// Incoming is told of every move: the queue (active, backoff,
	// unschedulable, gated), what caused it, and how many pods move; group says
	// that they are a group. May be nil.
	Incoming func(queue, event string, pods int, group bool)
	// Hinted is told what a plugin said about an event and how long it took, for
	// the first of the pods that each event may concern. May be nil.
	Hinted func(r Rejector, e plugin.Event, worth bool, took time.Duration)
}

// Rejector is a plugin of a profile.
type Rejector struct{ Profile, Plugin string }

type place int

const (
	nowhere place = iota
	active
	backoff      // rejected, may be popped early when nothing else is active
	errorBackoff // failed, waits in any case
	unschedulable
	inFlight
	grouped // in a group, or waiting to be in one
)

// Item is a waiting pod, or a group of them.
type Item struct {
	Pod *snapshot.Pod
	// Group is set instead of Pod when the item is a group.
	Group *Group
	// Attempts counts how often it was popped; Initial is the first time.
	Attempts int
	Initial  time.Time
	// Timestamp is when the pod entered the queue or was rejected last.
	Timestamp time.Time
	// Flushed says that the pod was retried because of MaxUnschedulable.
	Flushed bool

	rejectors  []string
	pending    []string
	gate       string
	rejections int
	errors     int
	until      time.Time
	movesAtPop uint64
	place      place
	index      int
	owner      *group // of a member
}

// Gated returns the plugin that keeps the pod from being active, "" for none.
func (it *Item) Gated() string {
	if it.owner != nil && it.owner.item != nil {
		return it.owner.item.gate
	}
	return it.gate
}

func (it *Item) priority() int32 {
	if it.Group != nil {
		return it.Group.Priority
	}
	return it.Pod.Priority()
}

// pods calls yield for the pod, or for every member.
func (it *Item) pods(yield func(*Item) bool) {
	if it.Group == nil {
		yield(it)
		return
	}
	for _, m := range it.Group.Members {
		if !yield(m) {
			return
		}
	}
}

func (it *Item) size() int {
	if it.Group != nil {
		return len(it.Group.Members)
	}
	return 1
}

// Queue is created by New.
type Queue struct {
	cfg    Config
	items  map[types.UID]*Item
	groups map[podgroup.Key]*group

	active, backoff, errors heap
	stuck                   map[*Item]struct{}
	byRejector              map[Rejector]map[*Item]struct{}
	moves                   uint64
	hinted                  int // hints timed of the event at hand
}

// New returns an empty queue.
func New(cfg Config) *Queue {
	if cfg.InitialBackoff == 0 {
		cfg.InitialBackoff = time.Second
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = 10 * time.Second
	}
	if cfg.MaxUnschedulable == 0 {
		cfg.MaxUnschedulable = 5 * time.Minute
	}
	if cfg.Incoming == nil {
		cfg.Incoming = func(string, string, int, bool) {}
	}
	if cfg.PreEnqueue == nil {
		cfg.PreEnqueue = func(*corev1.Pod) *plugin.Status { return nil }
	}
	return &Queue{
		cfg:        cfg,
		items:      map[types.UID]*Item{},
		groups:     map[podgroup.Key]*group{},
		active:     heap{less: inOrder},
		backoff:    heap{less: byExpiry},
		errors:     heap{less: byExpiry},
		stuck:      map[*Item]struct{}{},
		byRejector: map[Rejector]map[*Item]struct{}{},
	}
}

// inOrder is PrioritySort: higher priority first, then who waits longer.
func inOrder(a, b *Item) bool {
	if p, q := a.priority(), b.priority(); p != q {
		return p > q
	}
	return a.Timestamp.Before(b.Timestamp)
}

// byExpiry orders by the second in which backing off ends, then as inOrder.
func byExpiry(a, b *Item) bool {
	if s, t := a.until.Truncate(time.Second), b.until.Truncate(time.Second); !s.Equal(t) {
		return s.Before(t)
	}
	return inOrder(a, b)
}

// Counts are the sizes of the queue's parts.
type Counts struct{ Active, Backoff, Unschedulable, Gated, InFlight int }

// Counts returns the sizes of the queue's parts.
func (q *Queue) Counts() Counts {
	c := Counts{Active: q.active.pods(), Backoff: q.backoff.pods() + q.errors.pods()}
	stuck := 0
	for it := range q.stuck {
		n := it.size()
		stuck += n
		if it.gate != "" {
			c.Gated += n
		} else {
			c.Unschedulable += n
		}
	}
	for _, g := range q.groups {
		stuck += len(g.parked)
	}
	c.InFlight = len(q.items) - c.Active - c.Backoff - stuck
	return c
}

// Get returns the waiting or in-flight pod, or nil.
func (q *Queue) Get(uid types.UID) *Item { return q.items[uid] }

// Add lets a new pod wait.
func (q *Queue) Add(p *snapshot.Pod, now time.Time) {
	if q.items[p.UID()] != nil {
		q.Update(p, nil, now)
		return
	}
	it := &Item{Pod: p, Timestamp: now}
	q.items[p.UID()] = it
	if q.join(it) {
		q.addMember(it)
		return
	}
	q.activate(it, podAdd)
}

// Update replaces a waiting pod's object. actions are what changed in it.
func (q *Queue) Update(p *snapshot.Pod, actions []plugin.Action, now time.Time) {
	it := q.items[p.UID()]
	if it == nil {
		q.Add(p, now)
		return
	}
	before := it.Pod
	it.Pod = p
	switch it.place {
	case active:
		q.active.fix(it)
	case backoff:
		q.backoff.fix(it)
	case errorBackoff:
		q.errors.fix(it)
	case grouped:
		q.reconsider(it.owner)
	case unschedulable:
		q.hinted = 0
		for _, a := range actions {
			e := plugin.Event{Resource: plugin.TargetPod, Action: a}
			if q.requeue(it, e, before.Object, p.Object, now) {
				break
			}
		}
	}
}

// Delete forgets a pod wherever it is.
func (q *Queue) Delete(uid types.UID) {
	if it := q.items[uid]; it != nil {
		q.leave(it)
		delete(q.items, uid)
	}
}

// Pop takes the next pod to try, or nil when none is due. The caller must end
// the attempt with Done or Reject.
func (q *Queue) Pop(now time.Time) *Item {
	q.complete(now)
	var it *Item
	switch {
	case q.active.len() > 0:
		it = q.active.pop()
	case q.backoff.len() > 0:
		// Nothing better to do: a rejected pod need not wait to the end.
		it = q.backoff.items[0]
		if s := q.mayEnqueue(it); !s.OK() {
			q.leave(it)
			q.gate(it, s, PopFromBackoffQ)
			return q.Pop(now)
		}
		q.backoff.pop()
		q.incoming(it, "active", PopFromBackoffQ)
	default:
		return nil
	}
	q.depart(it, now)
	if it.Group != nil {
		it.owner.busy = true
		for _, m := range it.Group.Members {
			q.depart(m, now)
		}
	}
	return it
}

func (q *Queue) depart(it *Item, now time.Time) {
	it.place = inFlight
	it.Attempts++
	if it.Initial.IsZero() {
		it.Initial = now
	}
	it.rejectors, it.pending, it.gate = nil, nil, ""
	it.movesAtPop = q.moves
}

// complete moves pods whose time has come to the active queue.
func (q *Queue) complete(now time.Time) {
	for _, h := range []*heap{&q.backoff, &q.errors} {
		for h.len() > 0 && !h.items[0].until.After(now) {
			it := h.pop()
			it.place = nowhere
			q.activate(it, BackoffComplete)
		}
	}
}

// Next returns when a pod becomes due that is not due now; false for never.
func (q *Queue) Next() (time.Time, bool) {
	var t time.Time
	for _, h := range []*heap{&q.backoff, &q.errors} {
		if h.len() > 0 && (t.IsZero() || h.items[0].until.Before(t)) {
			t = h.items[0].until
		}
	}
	return t, !t.IsZero()
}

// Done ends a successful attempt, or one that needs no other.
func (q *Queue) Done(it *Item) {
	if q.items[it.Pod.UID()] == it {
		delete(q.items, it.Pod.UID())
	}
	it.place = nowhere
}

// Reject ends a failed attempt. rejectors are the plugins that rejected the
// pod, pending those of them that wait for something outside; both empty means
// a failure, which is retried after a while in any case. A pod that was
// deleted meanwhile is not kept.
func (q *Queue) Reject(it *Item, rejectors, pending []string, now time.Time) {
	if q.items[it.Pod.UID()] != it {
		return
	}
	it.place = nowhere
	it.rejectors, it.pending = rejectors, pending
	it.Timestamp = now
	it.Flushed = false
	if it.owner != nil {
		q.addMember(it)
		return
	}
	if len(rejectors)+len(pending) == 0 {
		it.errors++
		it.until = now.Add(q.delay(it.errors))
		it.place = errorBackoff
		q.errors.push(it)
		q.incoming(it, "backoff", ScheduleAttemptFailure)
		return
	}
	it.errors = 0
	it.rejections++
	it.until = now.Add(q.delay(it.rejections))
	if q.moves != it.movesAtPop {
		// Something happened during the attempt that may have helped.
		q.back(it, ScheduleAttemptFailure, now)
		return
	}
	q.strand(it)
	q.incoming(it, "unschedulable", ScheduleAttemptFailure)
}

func (q *Queue) delay(failures int) time.Duration {
	d := q.cfg.InitialBackoff
	for range failures - 1 {
		if d >= q.cfg.MaxBackoff/2 {
			return q.cfg.MaxBackoff
		}
		d *= 2
	}
	return min(d, q.cfg.MaxBackoff)
}

// Happened tells the queue of an event of the cluster; before and after are
// the object, nil where it did not or does not exist. It concerns those waiting
// pods that all of concerns say yes to.
func (q *Queue) Happened(e plugin.Event, before, after any, now time.Time, concerns ...func(*snapshot.Pod) bool) {
	q.moves++
	q.hinted = 0
	var helped []*Item
	for r, items := range q.byRejector {
		if !q.registered(r, e) {
			continue
		}
		for it := range items {
			if it.concerned(concerns) {
				helped = append(helped, it)
			}
		}
	}
	slices.SortFunc(helped, func(a, b *Item) int { return a.Timestamp.Compare(b.Timestamp) })
	for _, it := range helped {
		if it.place == unschedulable { // it may be listed under two plugins
			q.requeue(it, e, before, after, now)
		}
	}
}

// concerned says whether all of concerns say yes to the pod, or to a member.
func (it *Item) concerned(concerns []func(*snapshot.Pod) bool) bool {
	for m := range it.pods {
		if !slices.ContainsFunc(concerns, func(concern func(*snapshot.Pod) bool) bool { return !concern(m.Pod) }) {
			return true
		}
	}
	return false
}

func (q *Queue) registered(r Rejector, e plugin.Event) bool {
	hints, ok := q.cfg.Hints[r]
	return !ok || slices.ContainsFunc(hints, func(h plugin.EventHint) bool { return h.Matches(e) })
}

// requeue moves an unschedulable pod if the event is worth it.
func (q *Queue) requeue(it *Item, e plugin.Event, before, after any, now time.Time) bool {
	worth := func(name string) bool {
		for m := range it.pods {
			if it.Group != nil && !slices.Contains(m.rejectors, name) {
				continue
			}
			r := Rejector{m.Pod.Object.Spec.SchedulerName, name}
			hints, ok := q.cfg.Hints[r]
			if !ok || slices.ContainsFunc(hints, func(h plugin.EventHint) bool {
				return h.Matches(e) && q.worth(r, h, e, m.Pod.Object, before, after)
			}) {
				return true
			}
		}
		return false
	}
	switch {
	case slices.ContainsFunc(it.pending, worth):
		q.leave(it)
		q.activate(it, e.Label())
	case slices.ContainsFunc(it.rejectors, worth):
		q.leave(it)
		q.back(it, e.Label(), now)
	default:
		return false
	}
	return true
}

// maxHinted is how many hints are timed for one event: thousands of pods may wait.
const maxHinted = 32

// worth asks a plugin whether an event may help a pod that it rejected.
func (q *Queue) worth(r Rejector, h plugin.EventHint, e plugin.Event, pod *corev1.Pod, before, after any) bool {
	if q.cfg.Hinted == nil || q.hinted >= maxHinted {
		return h.Worth == nil || h.Worth(pod, before, after)
	}
	q.hinted++
	began := time.Now()
	worth := h.Worth == nil || h.Worth(pod, before, after)
	q.cfg.Hinted(r, e, worth, time.Since(began))
	return worth
}

// back puts a rejected pod where the rest of its back-off allows.
func (q *Queue) back(it *Item, event string, now time.Time) {
	if !it.until.After(now) {
		q.activate(it, event)
		return
	}
	if s := q.mayEnqueue(it); !s.OK() {
		q.gate(it, s, event)
		return
	}
	it.place = backoff
	q.backoff.push(it)
	q.incoming(it, "backoff", event)
}

// activate makes a pod active unless a plugin keeps it gated.
func (q *Queue) activate(it *Item, event string) {
	if s := q.mayEnqueue(it); !s.OK() {
		q.gate(it, s, event)
		return
	}
	it.gate = ""
	it.place = active
	q.active.push(it)
	q.incoming(it, "active", event)
}

// mayEnqueue asks whether the pod, or every member, may be active.
func (q *Queue) mayEnqueue(it *Item) *plugin.Status {
	if it.Group == nil {
		return q.cfg.PreEnqueue(it.Pod.Object)
	}
	return q.membersMayEnqueue(it)
}

func (q *Queue) incoming(it *Item, queue, event string) {
	q.cfg.Incoming(queue, event, it.size(), it.Group != nil)
}

func (q *Queue) gate(it *Item, s *plugin.Status, event string) {
	it.gate = s.Plugin
	it.rejectors, it.pending = append(it.rejectors, s.Plugin), nil
	if it.Group != nil {
		for m := range it.pods {
			if m.gate != "" {
				it.rejectors = append(it.rejectors, m.gate)
			}
		}
	}
	slices.Sort(it.rejectors)
	it.rejectors = slices.Compact(it.rejectors)
	q.strand(it)
	q.incoming(it, "gated", event)
}

func (q *Queue) strand(it *Item) {
	it.place = unschedulable
	q.stuck[it] = struct{}{}
	for _, r := range q.rejectorsOf(it) {
		if q.byRejector[r] == nil {
			q.byRejector[r] = map[*Item]struct{}{}
		}
		q.byRejector[r][it] = struct{}{}
	}
}

func (q *Queue) rejectorsOf(it *Item) []Rejector {
	out := make([]Rejector, 0, len(it.rejectors)+len(it.pending))
	for _, list := range [][]string{it.rejectors, it.pending} {
		for _, name := range list {
			out = append(out, Rejector{it.profile(), name})
		}
	}
	return out
}

func (it *Item) profile() string {
	if it.Group != nil {
		return it.Group.profile
	}
	return it.Pod.Object.Spec.SchedulerName
}

// leave takes an item out of the part it is in.
func (q *Queue) leave(it *Item) {
	switch it.place {
	case active:
		q.active.remove(it)
	case backoff:
		q.backoff.remove(it)
	case errorBackoff:
		q.errors.remove(it)
	case unschedulable:
		delete(q.stuck, it)
		for _, r := range q.rejectorsOf(it) {
			delete(q.byRejector[r], it)
			if len(q.byRejector[r]) == 0 {
				delete(q.byRejector, r)
			}
		}
	case grouped:
		q.quit(it)
	}
	it.place = nowhere
}

// Activate makes a waiting pod active at once, whatever rejected it.
func (q *Queue) Activate(uid types.UID) {
	it := q.items[uid]
	if it == nil {
		return
	}
	if it.place == grouped {
		if it = it.owner.item; it == nil {
			return
		}
	}
	switch it.place {
	case backoff, errorBackoff, unschedulable:
		q.leave(it)
		q.activate(it, ForceActivate)
	case inFlight:
		it.movesAtPop = ^uint64(0)
	}
}

// Flush retries pods that were unschedulable for too long.
func (q *Queue) Flush(now time.Time) {
	for it := range q.stuck {
		if it.gate == "" && now.Sub(it.Timestamp) > q.cfg.MaxUnschedulable {
			q.leave(it)
			it.Flushed = true
			q.back(it, UnschedulableTimeout, now)
		}
	}
}

// Unschedulable calls yield for every unschedulable pod and who rejected it.
func (q *Queue) Unschedulable(yield func(Rejector)) {
	for r, items := range q.byRejector {
		for range items {
			yield(r)
		}
	}
}
