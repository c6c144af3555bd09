// SPDX-License-Identifier: Apache-2.0

// Package cache holds the decoded present state, and the recent past, of every
// kind that somebody reads. It follows the store's one event stream, applies it
// in commit order and serves reads from immutable snapshots: gets, lists at any
// recent revision, and watches that all walk the same list of events.
//
// The API server's verbs call it. It never writes to the store, knows nothing
// of HTTP, versions or encodings (callers may keep encodings in an Entry), and
// does not authorize. A kind is loaded when it is first read.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"kaji/internal/api"
	"kaji/internal/store"
)

// Errors of the cache (test with errors.Is).
var (
	// ErrTooOld says the asked revision is beyond the history that is kept.
	ErrTooOld = errors.New("too old resource version")
	// ErrUnknownKind says the kind was not added, or was removed.
	ErrUnknownKind = errors.New("unknown kind")
	// ErrEnded says a watch ended because its kind was removed, the cache had
	// to start afresh, or the watcher was too slow; it may begin again.
	ErrEnded = errors.New("watch ended")
)

// Config configures a Cache. Store and Decode are needed.
type Config struct {
	Store store.Store
	// Decode makes the hub object of a stored value; the cache sets its
	// resourceVersion.
	Decode func(*api.Kind, store.KeyValue) (api.Object, error)
	// Slim returns what to hold of an object that was just decoded, and all
	// of it; nil for the latter where that is held. Nil holds all of everything.
	Slim func(*api.Kind, api.Object) (held api.Object, whole Packed)
	// Root is the directory that holds all kinds, "/registry/" when empty.
	Root string
	// History is how long events are kept in memory, 75 s when zero; older
	// ones are read from the store as long as it has them. HistoryEvents
	// bounds their number a kind, 10,000 when zero.
	History       time.Duration
	HistoryEvents int
	Logger        *slog.Logger
}

// Cache is the watch cache of all kinds. All methods are safe for concurrent use.
type Cache struct {
	cfg    Config
	log    *slog.Logger
	pool   pool
	owners owners

	mu    sync.RWMutex
	feeds map[string]*feed // by the kind's prefix

	progress progress
}

// New returns a cache without kinds; it serves nothing before Run.
func New(cfg Config) *Cache {
	if cfg.Root == "" {
		cfg.Root = "/registry/"
	}
	if cfg.History == 0 {
		cfg.History = 75 * time.Second
	}
	if cfg.HistoryEvents == 0 {
		cfg.HistoryEvents = 10_000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{cfg: cfg, log: cfg.Logger, feeds: map[string]*feed{}}
	c.progress.changed = make(chan struct{})
	return c
}

// Add makes kinds known; each is loaded when it is first read. A kind with the
// prefix of one known already takes its place, as Remove and Add would.
func (c *Cache) Add(kinds ...*api.Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range kinds {
		if old := c.feeds[k.Prefix]; old != nil {
			if old.kind == k {
				continue
			}
			old.stop()
		}
		c.feeds[k.Prefix] = &feed{cache: c, kind: k}
	}
}

// Remove forgets a kind and ends its watches.
func (c *Cache) Remove(kind *api.Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.feeds[kind.Prefix]; f != nil && f.kind == kind {
		f.stop()
		delete(c.feeds, kind.Prefix)
	}
}

// Revision returns the newest revision that the cache has applied.
func (c *Cache) Revision() int64 { return c.progress.get() }

// WaitFor returns when the cache has applied everything up to revision.
func (c *Cache) WaitFor(ctx context.Context, revision int64) error {
	if c.progress.get() >= revision {
		return nil
	}
	// An idle store needs to be asked before it tells that nothing happened.
	retry := time.NewTimer(20 * time.Millisecond)
	defer retry.Stop()
	for {
		changed := c.progress.wait()
		if c.progress.get() >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-retry.C:
			if err := c.cfg.Store.Progress(ctx); err != nil {
				return fmt.Errorf("ask the store for progress: %w", err)
			}
			retry.Reset(200 * time.Millisecond)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// WaitNewest returns when the cache has applied everything that was committed
// before the call, and the store's revision then: a read that follows is
// linearizable.
func (c *Cache) WaitNewest(ctx context.Context) (int64, error) {
	revision, err := c.cfg.Store.Revision(ctx)
	if err != nil {
		return 0, err
	}
	return revision, c.WaitFor(ctx, revision)
}

// Get returns the newest known state of an object.
func (c *Cache) Get(ctx context.Context, kind *api.Kind, namespace, name string) (*Entry, bool, error) {
	tail, err := c.tail(ctx, kind)
	if err != nil {
		return nil, false, err
	}
	if n := tail.root.get(kind.Key(namespace, name)); n != nil {
		return n.entry, true, nil
	}
	return nil, false, nil
}

// Count returns how many objects of a kind there are; none before the first
// read of it. It never waits.
func (c *Cache) Count(kind *api.Kind) int {
	c.mu.RLock()
	f := c.feeds[kind.Prefix]
	c.mu.RUnlock()
	if f == nil {
		return 0
	}
	if tail := f.tail.Load(); tail != nil {
		return tail.root.len()
	}
	return 0
}

// Snapshot returns the newest known state of a kind.
func (c *Cache) Snapshot(ctx context.Context, kind *api.Kind) (*Snapshot, error) {
	// The revision is read first: whatever it covers is in the tail already.
	revision := c.progress.get()
	tail, err := c.tail(ctx, kind)
	if err != nil {
		return nil, err
	}
	return &Snapshot{Revision: max(revision, tail.revision), kind: kind, at: tail}, nil
}

// SnapshotAt returns the state of a kind at a revision the cache has reached,
// from the store when it is no longer in memory, or ErrTooOld.
func (c *Cache) SnapshotAt(ctx context.Context, kind *api.Kind, revision int64) (*Snapshot, error) {
	f, err := c.loaded(ctx, kind)
	if err != nil {
		return nil, err
	}
	// A quiet kind's last state stays in memory, but a revision that the store
	// has forgotten is answered alike for all kinds.
	if s, ok := c.cfg.Store.(interface{ Compacted() int64 }); ok && revision < s.Compacted() {
		return nil, fmt.Errorf("%w: %d", ErrTooOld, revision)
	}
	if l, _ := f.at(revision); l != nil {
		return &Snapshot{Revision: revision, kind: kind, at: l}, nil
	}
	entries, _, err := f.read(ctx, revision)
	if errors.Is(err, store.ErrCompacted) {
		return nil, fmt.Errorf("%w: %d", ErrTooOld, revision)
	}
	if err != nil {
		return nil, err
	}
	return &Snapshot{Revision: revision, kind: kind, at: f.link(entries, revision)}, nil
}

// Watch returns a cursor that stands after revision: its first event is the
// first one of the kind after it. What is no longer in memory is read from the
// store; ErrTooOld is returned when that has forgotten it too.
func (c *Cache) Watch(ctx context.Context, kind *api.Kind, revision int64) (*Cursor, error) {
	f, err := c.loaded(ctx, kind)
	if err != nil {
		return nil, err
	}
	if l, ended := f.at(revision); l != nil {
		return &Cursor{at: l, ended: ended, skip: revision}, nil
	}
	past, err := f.replay(ctx, revision)
	if errors.Is(err, store.ErrCompacted) {
		return nil, fmt.Errorf("%w: %d", ErrTooOld, revision)
	}
	if err != nil {
		return nil, err
	}
	return past, nil
}

func (c *Cache) tail(ctx context.Context, kind *api.Kind) (*link, error) {
	f, err := c.loaded(ctx, kind)
	if err != nil {
		return nil, err
	}
	if tail := f.tail.Load(); tail != nil {
		return tail, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownKind, kind.GroupResource())
}

// loaded returns the feed of a kind with its objects loaded.
func (c *Cache) loaded(ctx context.Context, kind *api.Kind) (*feed, error) {
	c.mu.RLock()
	f := c.feeds[kind.Prefix]
	c.mu.RUnlock()
	if f == nil || f.kind != kind {
		return nil, fmt.Errorf("%w: %s", ErrUnknownKind, kind.GroupResource())
	}
	if f.tail.Load() != nil {
		return f, nil
	}
	if err := c.progress.started(ctx); err != nil {
		return nil, err
	}
	return f, f.load(ctx)
}

// Run follows the store until ctx ends. It must run once.
func (c *Cache) Run(ctx context.Context) error {
	janitor := make(chan struct{})
	go func() {
		defer close(janitor)
		c.sweep(ctx)
	}()
	defer func() { <-janitor }()
	for {
		err := c.follow(ctx)
		c.reset()
		if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return ctx.Err()
		}
		c.log.Error("store watch ended, starting afresh", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// follow applies the store's events from its present revision on.
func (c *Cache) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	revision, err := c.cfg.Store.Revision(ctx)
	if err != nil {
		return err
	}
	batches, err := c.cfg.Store.Watch(ctx, store.Watch{Start: c.cfg.Root, End: store.PrefixEnd(c.cfg.Root), After: revision})
	if err != nil {
		return err
	}
	c.progress.set(revision)
	for batch := range batches {
		if batch.Err != nil {
			return batch.Err
		}
		for i := range batch.Events {
			if f := c.feedOf(batch.Events[i].KV.Key); f != nil {
				f.apply(&batch.Events[i])
			}
		}
		revision = max(revision, batch.Revision)
		if n := len(batch.Events); n > 0 {
			revision = max(revision, batch.Events[n-1].KV.ModRevision)
		}
		c.progress.set(revision)
	}
	return ctx.Err()
}

// feedOf finds the kind a key belongs to: all but its name, or all but its
// namespace and name, is the kind's prefix.
func (c *Cache) feedOf(key string) *feed {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for range 2 {
		cut := strings.LastIndexByte(key, '/')
		if cut < 0 {
			return nil
		}
		key = key[:cut]
		if f := c.feeds[key]; f != nil {
			return f
		}
	}
	return nil
}

// reset forgets all that was loaded: the event stream has a gap.
func (c *Cache) reset() {
	c.progress.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for prefix, f := range c.feeds {
		f.stop()
		c.feeds[prefix] = &feed{cache: c, kind: f.kind}
	}
}

// sweep drops old events and idle encodings now and then.
func (c *Cache) sweep(ctx context.Context) {
	ticker := time.NewTicker(c.cfg.History / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c.pool.sweep()
		c.mu.RLock()
		feeds := make([]*feed, 0, len(c.feeds))
		for _, f := range c.feeds {
			feeds = append(feeds, f)
		}
		c.mu.RUnlock()
		for _, f := range feeds {
			f.trim(time.Now())
		}
	}
}
