// SPDX-License-Identifier: Apache-2.0

// Package memory is the store engine that keeps everything in process memory:
// the twin of the durable engines, for tests and throw-away control planes.
// It never touches a disk.
package memory

import (
	"context"
	"sort"
	"sync"
	"time"

	"kaji/internal/store"
	"kaji/internal/store/watchhub"
)

// Store implements store.Store. The zero value is not usable; call New.
type Store struct {
	hub *watchhub.Hub
	mu  struct {
		sync.Mutex
		closed    bool
		revision  int64
		compacted int64
		keys      []string // sorted; includes deleted keys with history
		history   map[string][]version
		log       []store.Event // all events after compacted, in order
		live      int64         // bytes of live values
		expiry    map[string]*time.Timer
	}
}

type version struct {
	kv      store.KeyValue
	deleted bool
}

// New returns an empty store at revision 1.
func New() *Store {
	s := &Store{}
	s.mu.revision = 1
	s.mu.history = map[string][]version{}
	s.mu.expiry = map[string]*time.Timer{}
	s.hub = watchhub.New(watchhub.Config{Revision: s.mu.revision, History: s.events})
	return s
}

var _ store.Store = (*Store)(nil)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.KeyValue, bool, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.KeyValue{}, false, 0, err
	}
	kv, ok := s.at(key, s.mu.revision)
	return kv, ok, s.mu.revision, nil
}

func (s *Store) usable(ctx context.Context) error {
	if s.mu.closed {
		return store.ErrClosed
	}
	return ctx.Err()
}

func (s *Store) at(key string, rev int64) (store.KeyValue, bool) {
	versions := s.mu.history[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if v := versions[i]; v.kv.ModRevision <= rev && !v.deleted {
			return v.kv, true
		} else if v.kv.ModRevision <= rev {
			break
		}
	}
	return store.KeyValue{}, false
}

// Range implements store.Store.
func (s *Store) Range(ctx context.Context, r store.Range) (*store.RangeResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	rev := r.Revision
	switch {
	case rev == 0:
		rev = s.mu.revision
	case rev > s.mu.revision:
		return nil, store.ErrFutureRevision
	case rev < s.mu.compacted:
		return nil, store.ErrCompacted
	}
	res := &store.RangeResult{Revision: s.mu.revision}
	for i := sort.SearchStrings(s.mu.keys, r.Start); i < len(s.mu.keys); i++ {
		key := s.mu.keys[i]
		if r.End != "" && key >= r.End {
			break
		}
		kv, ok := s.at(key, rev)
		if !ok {
			continue
		}
		res.Count++
		if !r.CountOnly && (r.Limit == 0 || int64(len(res.KVs)) < r.Limit) {
			res.KVs = append(res.KVs, kv)
		}
	}
	return res, nil
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, t store.Txn) (*store.TxnResult, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if current, ok := s.guard(t.Guards); !ok {
		return &store.TxnResult{Revision: s.mu.revision, Current: current}, nil
	}
	rev, known := s.mu.revision+1, len(s.mu.log)
	for _, op := range t.Ops {
		s.apply(op, rev)
	}
	if len(s.mu.log) > known {
		s.mu.revision = rev
		s.hub.Publish(rev, s.mu.log[known:])
	}
	return &store.TxnResult{Succeeded: true, Revision: s.mu.revision}, nil
}

func (s *Store) guard(guards []store.Guard) ([]store.KeyValue, bool) {
	current, ok := make([]store.KeyValue, len(guards)), true
	for i, g := range guards {
		kv, found := s.at(g.Key, s.mu.revision)
		if !found {
			kv = store.KeyValue{Key: g.Key}
		}
		current[i] = kv
		ok = ok && kv.ModRevision == g.ModRevision
	}
	return current, ok
}

func (s *Store) apply(op store.Op, rev int64) {
	prev, found := s.at(op.Key, s.mu.revision)
	if op.Delete && !found {
		return
	}
	if timer := s.mu.expiry[op.Key]; timer != nil {
		timer.Stop()
		delete(s.mu.expiry, op.Key)
	}
	s.mu.live -= int64(len(prev.Value))
	next := store.KeyValue{Key: op.Key, ModRevision: rev}
	if !op.Delete {
		next.Value, next.TTL, next.Version = op.Value, op.TTL, prev.Version+1
		next.CreateRevision = prev.CreateRevision
		if !found {
			next.CreateRevision = rev
		}
		s.mu.live += int64(len(op.Value))
		if op.TTL > 0 {
			s.mu.expiry[op.Key] = time.AfterFunc(time.Duration(op.TTL)*time.Second, func() { s.expire(op.Key, rev) })
		}
	}
	if _, known := s.mu.history[op.Key]; !known {
		i := sort.SearchStrings(s.mu.keys, op.Key)
		s.mu.keys = append(s.mu.keys, "")
		copy(s.mu.keys[i+1:], s.mu.keys[i:])
		s.mu.keys[i] = op.Key
	}
	s.mu.history[op.Key] = append(s.mu.history[op.Key], version{next, op.Delete})
	s.mu.log = append(s.mu.log, store.Event{Deleted: op.Delete, KV: next, Prev: prev})
}

func (s *Store) expire(key string, rev int64) {
	// The guard keeps a key that was put again since; no error is possible
	// beyond a closed store, which has nothing left to expire.
	_, _ = s.Commit(context.Background(), store.Txn{
		Guards: []store.Guard{{Key: key, ModRevision: rev}},
		Ops:    []store.Op{{Key: key, Delete: true}},
	})
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, w store.Watch) (<-chan store.Batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if w.After < s.mu.compacted {
		return nil, store.ErrCompacted
	}
	return s.hub.Watch(ctx, w)
}

// events is the hub's source of events it no longer has.
func (s *Store) events(_ context.Context, start, end string, after, until int64) ([]store.Event, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after < s.mu.compacted {
		return nil, 0, store.ErrCompacted
	}
	var events []store.Event
	for _, e := range s.mu.log[s.after(after):s.after(until)] {
		if e.KV.Key >= start && (end == "" || e.KV.Key < end) {
			events = append(events, e)
		}
	}
	return events, until, nil
}

// after returns the index of the first logged event after revision.
func (s *Store) after(revision int64) int {
	return sort.Search(len(s.mu.log), func(i int) bool { return s.mu.log[i].KV.ModRevision > revision })
}

// Progress implements store.Store.
func (s *Store) Progress(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.hub.Progress()
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.revision, s.usable(ctx)
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	if revision > s.mu.revision {
		return store.ErrFutureRevision
	}
	if revision <= s.mu.compacted {
		return store.ErrCompacted
	}
	s.mu.compacted = revision
	s.mu.log = append([]store.Event(nil), s.mu.log[s.after(revision):]...)
	keys := s.mu.keys[:0:0]
	for _, key := range s.mu.keys {
		kept := forget(s.mu.history[key], revision)
		if len(kept) == 0 {
			delete(s.mu.history, key)
			continue
		}
		s.mu.history[key] = kept
		keys = append(keys, key)
	}
	s.mu.keys = keys
	return nil
}

// forget drops the versions that no read at or after revision can see.
func forget(versions []version, revision int64) []version {
	first := 0
	for i, v := range versions {
		if v.kv.ModRevision > revision {
			break
		}
		first = i
		if v.deleted {
			first = i + 1
		}
	}
	return append([]version(nil), versions[first:]...)
}

// Compacted returns the oldest revision that can be read.
func (s *Store) Compacted() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.compacted
}

// Size implements store.Store.
func (s *Store) Size(ctx context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.live, s.usable(ctx)
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	for _, timer := range s.mu.expiry {
		timer.Stop()
	}
	s.mu.Unlock()
	s.hub.Close()
	return nil
}
