// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"slices"
	"sync"

	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/h2"
)

// Dispatcher sends events to watches that have nothing to do but wait: one
// goroutine a kind serves all of them, a connection after the other, where each
// would wake for itself otherwise, which costs several times what the event
// does. The zero value is ready; its methods are safe for concurrent use.
//
//	watch: join ──▶ waits, without a goroutine ──▶ wakes (a bookmark, its end) ──▶ leave
//	              ╲                                ╱
//	  group (a connection's watches of a kind): follows the feed,
//	  moved by ─ the kind's goroutine, or, while its client has much to read,
//	             a goroutine of its own, so that it holds up nobody
//
// A watch whose client does not take what is sent to it alone is let go, and goes
// on in a goroutine of its own, waiting as it may.
type Dispatcher struct {
	mu    sync.Mutex
	kinds map[<-chan struct{}]*dispatch // by the end of the feed
}

// dispatch is a kind with waiting watches.
type dispatch struct {
	groups map[h2.Conn]*group
	list   []*group // of groups, made anew after a change; nil when it is not
	empty  chan struct{}
	done   chan struct{}
}

// group is the watches of one kind on one connection.
type group struct {
	conn h2.Conn

	mu     sync.Mutex
	cursor cache.Cursor // what all have seen
	alone  bool         // a goroutine of its own moves it
	// event is being sent, and was to those before next.
	event   *cache.Event
	before  cache.Cursor
	next    int
	waiting []*waiting // nil where one has left
	left    int        // how many have
}

// place is where a watch is in a group, nowhere when group is nil.
type place struct {
	group *group
	ended <-chan struct{} // of the group's kind
	in    bool            // the group has it, at index
	index int
}

// join takes a watch that has sent everything into its connection's group. It
// reports false when the watch is not where the group is, be it that there is
// something to send.
func (d *Dispatcher) join(w *waiting) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	cursor := w.stream.cursor
	if !cursor.AtEnd(w.cfg.Cache.Revision()) {
		return false
	}
	conn := w.answer.Conn()
	w.ended = cursor.Ended()
	kind := d.kinds[w.ended]
	if kind == nil {
		kind = &dispatch{groups: map[h2.Conn]*group{}, empty: make(chan struct{}), done: make(chan struct{})}
		if d.kinds == nil {
			d.kinds = map[<-chan struct{}]*dispatch{}
		}
		d.kinds[w.ended] = kind
		go d.run(kind, *cursor)
	}
	g := kind.groups[conn]
	if g == nil {
		g = &group{conn: conn, cursor: *cursor}
		kind.groups[conn] = g
		kind.list = nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.alone && !g.cursor.Same(cursor) {
		// The kind's goroutine has not come to it yet.
		g.move()
		g.conn.Flush()
	}
	if g.event != nil || !g.cursor.Same(cursor) {
		return false
	}
	g.compact()
	w.group, w.index, w.in = g, len(g.waiting), true
	g.waiting = append(g.waiting, w)
	*cursor = cache.Cursor{} // holds nothing of what goes by
	return true
}

// leave takes a watch out; its stream stands where the group does.
func (d *Dispatcher) leave(w *waiting) {
	d.mu.Lock()
	g := w.group
	if g == nil {
		d.mu.Unlock()
		return
	}
	w.group = nil
	g.mu.Lock()
	if w.in {
		g.release(w)
	}
	empty := g.left == len(g.waiting)
	g.mu.Unlock()
	kind := d.kinds[w.ended]
	if empty && kind != nil && kind.groups[g.conn] == g {
		delete(kind.groups, g.conn)
		kind.list = nil
	}
	last := kind != nil && len(kind.groups) == 0
	if last {
		delete(d.kinds, w.ended)
		close(kind.empty)
	}
	d.mu.Unlock()
	if last {
		<-kind.done
	}
}

// run moves the groups of a kind as events come, until there are none.
func (d *Dispatcher) run(kind *dispatch, cursor cache.Cursor) {
	defer close(kind.done)
	for {
		select {
		case <-cursor.Ready():
		case <-kind.empty:
			return
		}
		// What comes from here on makes the cursor ready again.
		err := cursor.Skip()
		d.mu.Lock()
		if kind.list == nil {
			kind.list = make([]*group, 0, len(kind.groups))
			for _, g := range kind.groups {
				kind.list = append(kind.list, g)
			}
		}
		list := kind.list
		d.mu.Unlock()
		for _, g := range list {
			g.wake()
		}
		if err != nil {
			<-kind.empty // everybody was let go
			return
		}
	}
}

// wake has a group send what there is.
func (g *group) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.alone || g.left == len(g.waiting) {
		return
	}
	if !g.move() {
		g.alone = true
		g.conn.Go(g.moveAlone)
	}
	g.conn.Flush()
}

// moveAlone moves a group whose client has much to read, as it reads.
func (g *group) moveAlone() {
	for {
		g.conn.AwaitRoom()
		g.mu.Lock()
		moved := g.move()
		if moved {
			g.alone = false
		}
		g.mu.Unlock()
		g.conn.Flush()
		if moved {
			return
		}
	}
}

// move sends what there is to those who wait. It reports false when the
// connection's client has to read first.
func (g *group) move() bool {
	for {
		if g.event == nil {
			g.before = g.cursor
			event, err := g.cursor.TryNext()
			if err != nil {
				for _, w := range g.waiting {
					if w != nil {
						g.release(w)
					}
				}
				return true
			}
			if event == nil {
				return true
			}
			g.event, g.next = event, 0
		}
		for ; g.next < len(g.waiting); g.next++ {
			w := g.waiting[g.next]
			if w == nil {
				continue
			}
			switch w.try(g.event) {
			case h2.Crowded:
				return false
			case h2.Blocked:
				g.release(w)
			}
		}
		g.event, g.before = nil, cache.Cursor{}
		g.compact()
	}
}

// try sends an event without waiting.
func (w *waiting) try(change *cache.Event) h2.Outcome {
	event, ok := w.stream.seen(change)
	if !ok {
		return h2.Sent
	}
	object, err := w.cfg.Form.Object(event.Entry)
	if err != nil {
		return h2.Blocked // it fails again where that can be told
	}
	before, behind := w.frame.around(string(event.Type), len(object))
	outcome := w.answer.TrySend(before, object, behind)
	if outcome == h2.Sent && w.cfg.Sent != nil {
		w.cfg.Sent(len(object))
	}
	return outcome
}

// release lets a watch go, to where it is to go on.
func (g *group) release(w *waiting) {
	g.waiting[w.index], w.in = nil, false
	g.left++
	*w.stream.cursor = g.cursor
	if g.event != nil && w.index >= g.next {
		*w.stream.cursor = g.before // it has not seen the event
	}
	w.wake()
}

// compact forgets those who have left, once they are many. Nothing is being sent.
func (g *group) compact() {
	if g.left <= len(g.waiting)/2 {
		return
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(w *waiting) bool { return w == nil })
	g.left = 0
	for i, w := range g.waiting {
		w.index = i
	}
}
