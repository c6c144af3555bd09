// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/podgroup"
)

// Group is a group of pods that wait together (KEP-4671). A pod of a group is
// never queued alone: it joins the group's item, which is popped as a whole.
type Group struct {
	Key      podgroup.Key
	Priority int32
	// Members are the waiting pods, in the order in which they are tried.
	Members []*Item
	profile string // of the pods
}

// group is what the queue knows of a group.
type group struct {
	key      podgroup.Key
	known    bool // its object was seen
	priority int32
	item     *Item   // in a part of the queue, or in flight; nil for none
	busy     bool    // item is in flight
	parked   []*Item // members that wait for the object or for the end of the attempt
}

// Outcome is how an attempt to place a group ended.
type Outcome int

// The outcomes. After Scheduled, what is left of the group is tried again at once.
const (
	Scheduled Outcome = iota
	Unschedulable
	Failed
)

// SetGroup notes that a group's object is there or has changed.
func (q *Queue) SetGroup(key podgroup.Key, priority int32) {
	g := q.group(key)
	g.known, g.priority = true, priority
	if g.item != nil {
		g.item.Group.Priority = priority
		q.reconsider(g)
		return
	}
	parked := g.parked
	g.parked = nil
	for _, m := range parked {
		q.addMember(m)
	}
}

// RemoveGroup notes that a group's object is gone: its pods wait for another.
func (q *Queue) RemoveGroup(key podgroup.Key) {
	g := q.groups[key]
	if g == nil {
		return
	}
	g.known = false
	if g.item != nil && !g.busy {
		q.leave(g.item)
		g.parked = append(g.parked, g.item.Group.Members...)
		g.item = nil
	}
	q.tidy(g)
}

func (q *Queue) group(key podgroup.Key) *group {
	g := q.groups[key]
	if g == nil {
		g = &group{key: key}
		q.groups[key] = g
	}
	return g
}

func (q *Queue) tidy(g *group) {
	if !g.known && g.item == nil && len(g.parked) == 0 {
		delete(q.groups, g.key)
	}
}

// join files a new pod under its group; false says that it is in none.
func (q *Queue) join(it *Item) bool {
	if q.cfg.GroupOf == nil {
		return false
	}
	key, in := q.cfg.GroupOf(it.Pod.Object)
	if in {
		it.owner = q.group(key)
	}
	return in
}

// addMember lets a pod wait with its group.
func (q *Queue) addMember(m *Item) {
	g := q.group(m.owner.key)
	m.owner, m.place = g, grouped
	switch {
	case !g.known || g.busy:
		g.parked = append(g.parked, m)
	case g.item == nil:
		g.item = &Item{Group: &Group{Key: g.key, Priority: g.priority, Members: []*Item{m}, profile: m.profile()}, Timestamp: m.Timestamp, owner: g}
		q.activate(g.item, podAdd)
	default:
		it := g.item
		it.Group.Members = append(it.Group.Members, m)
		slices.SortStableFunc(it.Group.Members, inTurn)
		q.reconsider(g)
	}
}

// inTurn is the order of a group's pods: priority, then who was tried more
// often, then who waits longer.
func inTurn(a, b *Item) int {
	return cmp.Or(cmp.Compare(b.priority(), a.priority()), cmp.Compare(b.Attempts, a.Attempts),
		a.Timestamp.Compare(b.Timestamp), strings.Compare(a.Pod.Object.Name, b.Pod.Object.Name))
}

// reconsider looks anew at a group that has changed.
func (q *Queue) reconsider(g *group) {
	it := g.item
	if it == nil {
		return
	}
	switch it.place {
	case active:
		q.active.fix(it)
		if !q.membersMayEnqueue(it).OK() {
			q.leave(it)
			q.activate(it, podAdd)
		}
	case errorBackoff:
		q.errors.fix(it)
	case unschedulable:
		q.leave(it)
		q.activate(it, podAdd)
	}
}

// membersMayEnqueue is mayEnqueue for a group: one gated pod gates it.
func (q *Queue) membersMayEnqueue(it *Item) *plugin.Status {
	var refused *plugin.Status
	for _, m := range it.Group.Members {
		m.gate = ""
		if s := q.cfg.PreEnqueue(m.Pod.Object); !s.OK() {
			m.gate, m.rejectors = s.Plugin, []string{s.Plugin}
			refused = s
		}
	}
	return refused
}

// quit takes a pod out of its group.
func (q *Queue) quit(m *Item) {
	g := m.owner
	same := func(o *Item) bool { return o == m }
	g.parked = slices.DeleteFunc(g.parked, same)
	if g.item != nil && !g.busy {
		g.item.Group.Members = slices.DeleteFunc(g.item.Group.Members, same)
		if len(g.item.Group.Members) == 0 {
			q.leave(g.item)
			g.item = nil
		} else {
			q.reconsider(g)
		}
	}
	q.tidy(g)
}

// EndGroup ends an attempt to place a group, after Done or Reject for each of
// its pods. Pods that are left, or came meanwhile, are its next item.
func (q *Queue) EndGroup(it *Item, outcome Outcome, now time.Time) {
	g := it.owner
	g.busy, g.item = false, nil
	it.place = nowhere
	if len(g.parked) == 0 || !g.known {
		q.tidy(g)
		return
	}
	again := slices.ContainsFunc(g.parked, func(m *Item) bool { return slices.Contains(it.Group.Members, m) })
	it.Group = &Group{Key: g.key, Priority: g.priority, Members: g.parked, profile: g.parked[0].profile()}
	slices.SortStableFunc(it.Group.Members, inTurn)
	g.item, g.parked = it, nil
	it.Flushed = false
	if outcome != Scheduled || !again {
		it.Timestamp = now
	}
	switch outcome {
	case Scheduled:
		it.errors, it.rejections = 0, 0
		q.activate(it, ScheduleAttemptFailure)
		return
	case Unschedulable:
		it.errors = 0
		it.rejections++
		it.until = now.Add(q.groupDelay(it.rejections, it.size()))
	case Failed:
		it.errors++
		it.until = now.Add(q.groupDelay(it.errors, it.size()))
	}
	// No event of the cluster shortens a group's waiting, as upstream has it.
	if s := q.mayEnqueue(it); !s.OK() {
		q.gate(it, s, ScheduleAttemptFailure)
		return
	}
	it.place = errorBackoff
	q.errors.push(it)
	q.incoming(it, "backoff", ScheduleAttemptFailure)
}

// groupDelay is delay with a longer limit for larger groups.
func (q *Queue) groupDelay(failures, size int) time.Duration {
	limit := time.Duration(float64(q.cfg.MaxBackoff) * math.Sqrt(float64(size)))
	d := q.cfg.InitialBackoff
	for range failures - 1 {
		if d >= limit {
			break
		}
		d *= 2
	}
	return min(d, limit)
}
