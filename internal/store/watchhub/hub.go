// SPDX-License-Identifier: Apache-2.0

// Package watchhub delivers a store's events to its watches. An engine
// publishes every committed revision once; the hub keeps the recent events,
// shared by all watches, and asks the engine for older ones on behalf of
// watches that resume, whose reader is slow, or who want to know more than was
// published. A commit wakes only the watches
// whose range it touches, and never waits for any of them.
//
// The embedded engines (memory, pebble) use it. It stores nothing durable and
// decides nothing about compaction.
package watchhub

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"

	"kaji/internal/store"
)

// History reads the events of [start, end) after one revision and up to another
// for a watch that fell behind: whole revisions in order, as many as it sees
// fit, and the revision up to which they are complete. It returns
// store.ErrCompacted when some are gone.
type History func(ctx context.Context, start, end string, after, until int64) (events []store.Event, complete int64, err error)

// Config is what a hub needs.
type Config struct {
	// Revision is the newest revision of the store.
	Revision int64
	// History reads older events; it must be safe for concurrent use.
	History History
	// Bytes bounds the keys and values of the recent events that are kept;
	// zero means 4 MiB.
	Bytes int
}

// Hub is safe for concurrent use.
type Hub struct {
	history History
	budget  int
	// replays counts the calls of history under way.
	replays sync.WaitGroup

	// wanting counts the open watches that ask for previous values.
	wanting atomic.Int64

	mu struct {
		sync.Mutex
		revision int64
		// recent holds all events after floor, from index head on.
		recent  []store.Event
		head    int
		floor   int64
		bytes   int
		watches map[*watch]struct{}
		closed  bool
	}
}

// watch is the state of one open watch, guarded by Hub.mu.
type watch struct {
	start, end string
	prev       bool // previous values are asked for
	// pending says that there may be matching events after the revision
	// after; a watch without any is up to date whatever after says.
	pending  bool
	after    int64
	progress bool
	wake     chan struct{} // holds at most one signal
}

// New returns a hub without watches.
func New(cfg Config) *Hub {
	h := &Hub{history: cfg.History, budget: cfg.Bytes}
	if h.budget == 0 {
		h.budget = 4 << 20
	}
	h.mu.revision, h.mu.floor = cfg.Revision, cfg.Revision
	h.mu.watches = map[*watch]struct{}{}
	return h
}

// Publish makes the events of one or more revisions known, in order; revision
// is the newest of them. The caller publishes in commit order.
func (h *Hub) Publish(revision int64, events []store.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.mu.watches {
		if w.concerned(events) {
			if !w.pending {
				w.pending, w.after = true, max(w.after, h.mu.revision)
			}
			w.signal()
		}
	}
	h.mu.revision = revision
	for i := range events {
		h.mu.bytes += size(&events[i])
	}
	h.mu.recent = append(h.mu.recent, events...)
	h.trim()
}

// trim lets go of the oldest events, whole revisions at a time.
func (h *Hub) trim() {
	head := h.mu.head
	for h.mu.bytes > h.budget && head < len(h.mu.recent) {
		h.mu.floor = h.mu.recent[head].KV.ModRevision
		for head < len(h.mu.recent) && h.mu.recent[head].KV.ModRevision == h.mu.floor {
			h.mu.bytes -= size(&h.mu.recent[head])
			h.mu.recent[head] = store.Event{}
			head++
		}
	}
	if head > len(h.mu.recent)/2 {
		n := copy(h.mu.recent, h.mu.recent[head:])
		clear(h.mu.recent[n:])
		h.mu.recent, head = h.mu.recent[:n], 0
	}
	h.mu.head = head
}

// size is what an event costs; the bare structure counts too, so that a storm
// of tiny ones is bounded as well.
func size(e *store.Event) int {
	const structure = 160
	return structure + len(e.KV.Key) + len(e.KV.Value) + len(e.Prev.Value)
}

func (w *watch) covers(key string) bool { return key >= w.start && (w.end == "" || key < w.end) }

func (w *watch) concerned(events []store.Event) bool {
	for i := range events {
		if w.covers(events[i].KV.Key) && events[i].KV.ModRevision > w.after {
			return true
		}
	}
	return false
}

func (w *watch) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch opens a watch; the caller has checked that spec.After is not compacted.
func (h *Hub) Watch(ctx context.Context, spec store.Watch) (<-chan store.Batch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.closed {
		return nil, store.ErrClosed
	}
	w := &watch{start: spec.Start, end: spec.End, prev: spec.Prev, after: spec.After, wake: make(chan struct{}, 1)}
	if w.prev {
		h.wanting.Add(1)
	}
	if w.after < h.mu.revision {
		w.pending = true
		w.signal()
	}
	h.mu.watches[w] = struct{}{}
	out := make(chan store.Batch)
	go h.deliver(ctx, w, out)
	return out, nil
}

// Progress makes every watch deliver a notice once it is up to date.
func (h *Hub) Progress() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.closed {
		return store.ErrClosed
	}
	for w := range h.mu.watches {
		w.progress = true
		w.signal()
	}
	return nil
}

// Close ends every watch with store.ErrClosed and waits until History is no
// longer called. The goroutine of a watch ends when its reader has taken the
// error or its context has ended.
func (h *Hub) Close() {
	h.mu.Lock()
	h.mu.closed = true
	for w := range h.mu.watches {
		w.signal()
	}
	h.mu.Unlock()
	h.replays.Wait()
}

// deliver is the goroutine of one watch.
func (h *Hub) deliver(ctx context.Context, w *watch, out chan<- store.Batch) {
	defer close(out)
	defer h.forget(w)
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		for again := true; again; {
			var batch store.Batch
			batch, again = h.next(ctx, w)
			if len(batch.Events) == 0 && batch.Revision == 0 && batch.Err == nil {
				continue
			}
			select {
			case out <- batch:
			case <-ctx.Done():
				return
			}
			if batch.Err != nil {
				return
			}
		}
	}
}

func (h *Hub) forget(w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.mu.watches, w)
	if w.prev {
		h.wanting.Add(-1)
	}
}

// next returns what to deliver now, if anything, and whether to ask again
// without waiting for a signal.
func (h *Hub) next(ctx context.Context, w *watch) (batch store.Batch, again bool) {
	h.mu.Lock()
	switch {
	case h.mu.closed:
		h.mu.Unlock()
		return store.Batch{Err: store.ErrClosed}, false
	case w.pending && (w.after < h.mu.floor || w.prev && h.lacks(w)):
		after, until := w.after, h.mu.revision
		h.replays.Add(1) // under mu, so that Close waits for it
		h.mu.Unlock()
		return h.replay(ctx, w, after, until), true
	case w.pending:
		batch = h.collect(w)
		again = w.pending || w.progress
	case w.progress:
		w.progress = false
		// A watch of the future has nothing to report yet.
		if w.after <= h.mu.revision {
			batch.Revision = h.mu.revision
		}
	}
	h.mu.Unlock()
	return batch, again
}

// WantsPrev says whether a watch asks for previous values: an engine to which
// reading them costs leaves them out of what it publishes otherwise.
func (h *Hub) WantsPrev() bool { return h.wanting.Load() > 0 }

// lacks says whether a recent event for the watch was published without the
// previous value, before the watch was opened.
func (h *Hub) lacks(w *watch) bool {
	recent := h.mu.recent[h.mu.head:]
	for i := len(recent) - 1; i >= 0 && recent[i].KV.ModRevision > w.after; i-- {
		if e := &recent[i]; e.Prev.ModRevision != 0 && e.Prev.Value == nil && w.covers(e.KV.Key) {
			return true
		}
	}
	return false
}

// batchEvents bounds a delivery, save for a revision with more events.
const batchEvents = 512

// collect takes the next matching events from the recent ones.
func (h *Hub) collect(w *watch) store.Batch {
	recent := h.mu.recent[h.mu.head:]
	i := sort.Search(len(recent), func(i int) bool { return recent[i].KV.ModRevision > w.after })
	var events []store.Event
	for ; i < len(recent); i++ {
		if n := len(events); n >= batchEvents && recent[i].KV.ModRevision != events[n-1].KV.ModRevision {
			w.after = events[n-1].KV.ModRevision
			return store.Batch{Events: events, Revision: w.after}
		}
		if w.covers(recent[i].KV.Key) {
			events = append(events, recent[i])
		}
	}
	w.pending, w.after = false, h.mu.revision
	if len(events) == 0 {
		return store.Batch{}
	}
	return store.Batch{Events: events, Revision: w.after}
}

func (h *Hub) replay(ctx context.Context, w *watch, after, until int64) store.Batch {
	defer h.replays.Done()
	events, complete, err := h.history(ctx, w.start, w.end, after, until)
	if err != nil {
		return store.Batch{Err: err}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	w.after = complete
	if len(events) == 0 {
		return store.Batch{}
	}
	return store.Batch{Events: events, Revision: complete}
}
