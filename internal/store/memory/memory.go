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
)

// Store implements store.Store. The zero value is not usable; call New.
type Store struct {
	mu struct {
		sync.Mutex
		closed    bool
		revision  int64
		compacted int64
		keys      []string // sorted; includes deleted keys with history
		history   map[string][]version
		log       []store.Event // all events after compacted, in order
		live      int64         // bytes of live values
		// changed is closed and replaced whenever revision or progress moves.
		changed  chan struct{}
		progress int64
		expiry   map[string]*time.Timer
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
	s.mu.changed = make(chan struct{})
	s.mu.expiry = map[string]*time.Timer{}
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
		if v := versions[i]; v.kv.ModRevision <= rev {
			return v.kv, !v.deleted
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
	rev, changed := s.mu.revision+1, false
	for _, op := range t.Ops {
		if s.apply(op, rev) {
			changed = true
		}
	}
	if changed {
		s.mu.revision = rev
		s.signal()
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

func (s *Store) apply(op store.Op, rev int64) bool {
	prev, found := s.at(op.Key, s.mu.revision)
	if op.Delete && !found {
		return false
	}
	if timer := s.mu.expiry[op.Key]; timer != nil {
		timer.Stop()
		delete(s.mu.expiry, op.Key)
	}
	if !found {
		prev = store.KeyValue{}
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
	return true
}

func (s *Store) expire(key string, rev int64) {
	// The guard keeps a key that was put again since; no error is possible
	// beyond a closed store, which has nothing left to expire.
	_, _ = s.Commit(context.Background(), store.Txn{
		Guards: []store.Guard{{Key: key, ModRevision: rev}},
		Ops:    []store.Op{{Key: key, Delete: true}},
	})
}

func (s *Store) signal() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
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
	out := make(chan store.Batch)
	go s.deliver(ctx, w, out, s.mu.progress)
	return out, nil
}

func (s *Store) deliver(ctx context.Context, w store.Watch, out chan<- store.Batch, progress int64) {
	defer close(out)
	for {
		batch, changed, asked := s.since(w, progress)
		progress = asked.count
		if len(batch.Events) > 0 || batch.Err != nil || asked.now {
			select {
			case out <- batch:
			case <-ctx.Done():
				return
			}
		}
		if batch.Err != nil {
			return
		}
		w.After = max(w.After, batch.Revision)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

type progressAsked struct {
	count int64
	now   bool
}

// since collects the events after w.After, and the channel that tells of more.
func (s *Store) since(w store.Watch, progress int64) (store.Batch, <-chan struct{}, progressAsked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := progressAsked{s.mu.progress, s.mu.progress != progress}
	batch := store.Batch{Revision: s.mu.revision}
	switch {
	case s.mu.closed:
		batch.Err = store.ErrClosed
	case w.After < s.mu.compacted:
		batch.Err = store.ErrCompacted
	}
	if batch.Err != nil {
		return batch, s.mu.changed, asked
	}
	first := sort.Search(len(s.mu.log), func(i int) bool { return s.mu.log[i].KV.ModRevision > w.After })
	for _, e := range s.mu.log[first:] {
		if e.KV.Key >= w.Start && (w.End == "" || e.KV.Key < w.End) {
			batch.Events = append(batch.Events, e)
		}
	}
	return batch, s.mu.changed, asked
}

// Progress implements store.Store.
func (s *Store) Progress(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	s.mu.progress++
	s.signal()
	return nil
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
	first := sort.Search(len(s.mu.log), func(i int) bool { return s.mu.log[i].KV.ModRevision > revision })
	s.mu.log = append([]store.Event(nil), s.mu.log[first:]...)
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
	s.signal()
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

// Size implements store.Store.
func (s *Store) Size(ctx context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.live, s.usable(ctx)
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil
	}
	s.mu.closed = true
	for _, timer := range s.mu.expiry {
		timer.Stop()
	}
	s.signal()
	return nil
}
