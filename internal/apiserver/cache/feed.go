// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/fields"

	"kaji/internal/api"
	"kaji/internal/store"
)

// feed is one kind: a list of links, one an event, each with the state of the
// kind after it. The newest is the tail.
//
//	 history[0]            history[n]
//	┌──────────┐  next   ┌──────────┐  next
//	│ revision │ ──────▶ │ revision │ ──────▶ ready is open: nothing yet
//	│ root     │         │ root     │
//	└──────────┘         └──────────┘
//	                       ▲ cursors stand on the last link they have seen
//
// A link that leaves the history loses its next, so that a cursor left behind
// there holds one link and not all that follow; it notices when it goes on.
type feed struct {
	cache *Cache
	kind  *api.Kind
	tail  atomic.Pointer[link] // nil until loaded

	mu      sync.Mutex
	loading chan struct{} // closed when the load under way is done
	pending []store.Event // what happened while loading
	history []*link
	base    int64         // the revision that was loaded
	end     chan struct{} // closed when the feed stops; made by load
	stopped bool
}

// link is one event with the state after it. The first link of a feed has no
// event: it stands for what was loaded.
type link struct {
	event    Event
	revision int64
	root     *node
	indices  []*node // in the order of Kind.IndexedFields
	at       int64   // unix seconds
	next     atomic.Pointer[link]
	ready    chan struct{} // closed when next is set, or nothing will follow
}

// Event is one change of one object.
type Event struct {
	// Entry is the new state; for a deletion the last state with the
	// revision of the deletion.
	Entry *Entry
	// Prev is the state before, nil if there was none.
	Prev *Entry
	// Deleted tells a deletion from a creation or change.
	Deleted bool

	gone atomic.Pointer[Entry]
	// fields are the selectable fields of Entry and Prev, once asked for.
	fields [2]atomic.Pointer[fields.Set]
}

// Fields returns the selectable fields of e, which is the event's Entry or its
// Prev, calling make for the first of all watchers that ask.
func (e *Event) Fields(of *Entry, make func() fields.Set) fields.Set {
	kept := &e.fields[0]
	if of == e.Prev {
		kept = &e.fields[1]
	}
	if set := kept.Load(); set != nil {
		return *set
	}
	set := make()
	kept.Store(&set)
	return set
}

// Gone returns the state before the event with the event's revision: what a
// watcher is told about an object that no longer matches its selector.
func (e *Event) Gone() *Entry {
	if e.Deleted || e.Prev == nil {
		return e.Entry
	}
	if gone := e.gone.Load(); gone != nil {
		return gone
	}
	e.gone.CompareAndSwap(nil, last(e.Prev, e.Entry.Revision))
	return e.gone.Load()
}

// last returns the state of an entry as it is told at its removal.
func last(e *Entry, revision int64) *Entry {
	object := api.Own(e.Object)
	object.SetResourceVersion(strconv.FormatInt(revision, 10))
	return &Entry{Key: e.Key, Object: object, Revision: revision, packed: e.packed, pool: e.pool}
}

// load reads the kind from the store, once.
func (f *feed) load(ctx context.Context) error {
	f.mu.Lock()
	for f.loading != nil {
		wait := f.loading
		f.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.mu.Lock()
	}
	if f.stopped {
		f.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrUnknownKind, f.kind.GroupResource())
	}
	if f.tail.Load() != nil {
		f.mu.Unlock()
		return nil
	}
	// From here on events are kept in pending; everything before is in what
	// is read now.
	done := make(chan struct{})
	f.loading = done
	f.mu.Unlock()

	entries, revision, err := f.read(ctx, 0)

	f.mu.Lock()
	defer f.mu.Unlock()
	defer close(done)
	f.loading = nil
	pending := f.pending
	f.pending = nil
	if err != nil {
		return err
	}
	if f.stopped {
		return fmt.Errorf("%w: %s", ErrUnknownKind, f.kind.GroupResource())
	}
	first := f.link(entries, revision)
	f.end = make(chan struct{})
	f.history, f.base = []*link{first}, revision
	f.tail.Store(first)
	for i := range pending {
		f.appendLocked(&pending[i])
	}
	return nil
}

// link returns a list of one link: the state at a revision.
func (f *feed) link(entries []*Entry, revision int64) *link {
	l := &link{revision: revision, root: build(entries), at: time.Now().Unix(), ready: make(chan struct{})}
	if n := len(f.kind.IndexedFields); n > 0 {
		l.indices = make([]*node, n)
		for _, e := range entries {
			for i, value := range f.indexed(e) {
				l.indices[i] = l.indices[i].put(indexKey(value, e.Key), nil)
			}
		}
	}
	return l
}

// indexed returns the values of the kind's indexed fields.
func (f *feed) indexed(e *Entry) []string {
	if len(f.kind.IndexedFields) == 0 || f.kind.Rules.Fields == nil {
		return nil
	}
	set := f.kind.Rules.Fields(e.Object)
	values := make([]string, len(f.kind.IndexedFields))
	for i, field := range f.kind.IndexedFields {
		values[i] = set[field]
	}
	return values
}

// indexKey orders an index by value and then by the object's key.
func indexKey(value, key string) string { return value + "\x00" + key }

// pageSize is how many keys are read from the store at once, and slimPage how
// many first, and of a kind that is held slim: its objects are large.
const (
	pageSize = 5000
	slimPage = 32
)

// read returns the kind's objects at a revision, the newest when zero.
func (f *feed) read(ctx context.Context, revision int64) ([]*Entry, int64, error) {
	start, end := f.kind.Prefix+"/", store.PrefixEnd(f.kind.Prefix+"/")
	var entries []*Entry
	for limit := int64(slimPage); ; {
		page, err := f.cache.cfg.Store.Range(ctx, store.Range{Start: start, End: end, Limit: limit, Revision: revision})
		if err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", f.kind.GroupResource(), err)
		}
		if revision == 0 {
			revision = page.Revision
		}
		entries = slices.Grow(entries, len(page.KVs))
		for i := range page.KVs {
			e, err := f.entry(page.KVs[i])
			if err != nil {
				return nil, 0, err
			}
			entries = append(entries, e)
		}
		if !page.More() || len(page.KVs) == 0 {
			return entries, revision, nil
		}
		start = page.KVs[len(page.KVs)-1].Key + "\x00"
		if !entries[len(entries)-1].Slim() {
			limit = pageSize
		}
	}
}

func (f *feed) entry(kv store.KeyValue) (*Entry, error) {
	object, err := f.cache.cfg.Decode(f.kind, kv)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kv.Key, err)
	}
	if !f.kind.Custom { // whose entries would be copies
		f.cache.owners.share(object.GetManagedFields())
	}
	e := &Entry{Key: kv.Key, Object: object, Revision: kv.ModRevision, pool: &f.cache.pool}
	if slim := f.cache.cfg.Slim; slim != nil {
		e.Object, e.packed = slim(f.kind, object)
	}
	e.Object.SetResourceVersion(strconv.FormatInt(kv.ModRevision, 10))
	return e, nil
}

// apply takes one event of the store.
func (f *feed) apply(event *store.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.loading != nil:
		f.pending = append(f.pending, *event)
	case f.tail.Load() != nil:
		f.appendLocked(event)
	}
}

func (f *feed) appendLocked(event *store.Event) {
	tail := f.tail.Load()
	// What was loaded already holds earlier events.
	if f.stopped || tail == nil || event.KV.ModRevision <= f.base {
		return
	}
	l := &link{revision: event.KV.ModRevision, root: tail.root, indices: tail.indices, at: time.Now().Unix(), ready: make(chan struct{})}
	var prev *Entry
	if n := tail.root.get(event.KV.Key); n != nil {
		prev = n.entry
	}
	if event.Deleted {
		if prev == nil {
			return
		}
		l.event.Deleted, l.event.Prev = true, prev
		l.event.Entry = last(prev, event.KV.ModRevision)
		l.root = l.root.remove(event.KV.Key)
		l.indices = f.reindex(l.indices, prev, nil)
	} else {
		e, err := f.entry(event.KV)
		if err != nil {
			// The kind is read again at its next use, which reports the error.
			f.cache.log.Error("cannot decode a stored object", "err", err)
			f.unloadLocked()
			return
		}
		l.event.Entry, l.event.Prev = e, prev
		l.root = l.root.put(e.Key, e)
		l.indices = f.reindex(l.indices, prev, e)
	}
	f.history = append(f.history, l)
	f.trimLocked(time.Unix(l.at, 0))
	f.tail.Store(l)
	tail.next.Store(l)
	close(tail.ready)
}

// reindex returns the indices with an object's old values replaced.
func (f *feed) reindex(indices []*node, prev, now *Entry) []*node {
	if len(indices) == 0 {
		return nil
	}
	var before, after []string
	if prev != nil {
		before = f.indexed(prev)
	}
	if now != nil {
		after = f.indexed(now)
	}
	if slices.Equal(before, after) {
		return indices
	}
	indices = slices.Clone(indices)
	for i := range indices {
		if before != nil {
			indices[i] = indices[i].remove(indexKey(before[i], prev.Key))
		}
		if after != nil {
			indices[i] = indices[i].put(indexKey(after[i], now.Key), nil)
		}
	}
	return indices
}

// trim lets events go that are older than the history kept.
func (f *feed) trim(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trimLocked(now)
}

func (f *feed) trimLocked(now time.Time) {
	oldest := now.Add(-f.cache.cfg.History).Unix()
	drop := max(0, len(f.history)-f.cache.cfg.HistoryEvents)
	for drop < len(f.history)-1 && f.history[drop].at < oldest {
		drop++
	}
	for _, l := range f.history[:drop] {
		l.next.Store(nil)
	}
	clear(f.history[:drop])
	f.history = f.history[drop:]
}

// at returns the last link at or before a revision, nil when it is not kept,
// and a channel that is closed when the feed stops.
func (f *feed) at(revision int64) (*link, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := sort.Search(len(f.history), func(i int) bool { return f.history[i].revision > revision })
	if after == 0 {
		return nil, nil
	}
	return f.history[after-1], f.end
}

// stop ends the feed for good.
func (f *feed) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.unloadLocked()
}

func (f *feed) unloadLocked() {
	tail := f.tail.Swap(nil)
	if tail == nil {
		return
	}
	f.history = nil
	close(f.end)
	close(tail.ready) // nothing follows it
}

// replay returns a cursor over the store's own history after a revision, which
// goes on with the feed's where that begins.
func (f *feed) replay(ctx context.Context, revision int64) (*Cursor, error) {
	f.mu.Lock()
	if len(f.history) == 0 {
		f.mu.Unlock()
		return nil, ErrEnded
	}
	first, end := f.history[0], f.end
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prefix := f.kind.Prefix + "/"
	batches, err := f.cache.cfg.Store.Watch(ctx, store.Watch{Start: prefix, End: store.PrefixEnd(prefix), After: revision, Prev: true})
	if err != nil {
		return nil, err
	}
	if err := f.cache.cfg.Store.Progress(ctx); err != nil {
		return nil, err
	}
	cursor := &Cursor{at: first, ended: end, skip: first.revision}
	for reached := revision; reached < first.revision; {
		batch, open := <-batches
		if !open {
			return nil, errors.Join(ErrEnded, ctx.Err())
		}
		if batch.Err != nil {
			return nil, batch.Err
		}
		for i := range batch.Events {
			reached = max(reached, batch.Events[i].KV.ModRevision)
			if reached > first.revision {
				break
			}
			past := &Event{}
			if err := f.recall(past, &batch.Events[i]); err != nil {
				return nil, err
			}
			cursor.past = append(cursor.past, past)
		}
		reached = max(reached, batch.Revision)
	}
	return cursor, nil
}

// recall makes the event of the past from the store's.
func (f *feed) recall(to *Event, event *store.Event) error {
	if event.Prev.ModRevision != 0 {
		prev, err := f.entry(event.Prev)
		if err != nil {
			return err
		}
		to.Prev = prev
	}
	if event.Deleted {
		if to.Prev == nil {
			return fmt.Errorf("deletion of %s without its last state", event.KV.Key)
		}
		to.Deleted, to.Entry = true, last(to.Prev, event.KV.ModRevision)
		return nil
	}
	e, err := f.entry(event.KV)
	to.Entry = e
	return err
}
