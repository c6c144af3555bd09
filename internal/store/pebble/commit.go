// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"kaji/internal/store"
)

// errFull and errLowDisk are what writers get while the disk has no room.
var (
	errFull    = fmt.Errorf("store: the disk is full: %w", syscall.ENOSPC)
	errLowDisk = fmt.Errorf("store: the disk is almost full, only deletions are accepted: %w", syscall.ENOSPC)
)

// request is a transaction on its way through the committer, which answers once.
type request struct {
	txn   store.Txn
	reply chan reply
}

type reply struct {
	result *store.TxnResult
	err    error
}

// Commit implements store.Store. When ctx ends or the disk fills up while the
// write is on its way, the error leaves open whether it will take effect.
func (s *Store) Commit(ctx context.Context, t store.Txn) (*store.TxnResult, error) {
	if err := s.admit(&t); err != nil {
		return nil, err
	}
	done, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	done() // the committer outlives whom it has accepted
	stalled := s.fs.Stalled()
	r := &request{txn: t, reply: make(chan reply, 1)}
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-stalled:
		return nil, errFull
	case <-s.ctx.Done():
		return nil, store.ErrClosed
	}
	select {
	case a := <-r.reply:
		return a.result, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-stalled:
		return nil, errFull
	case <-s.ctx.Done():
		return nil, store.ErrClosed
	}
}

// admit refuses what cannot be written.
func (s *Store) admit(t *store.Txn) error {
	if err := t.Check(); err != nil {
		return err
	}
	bytes, deletes := 0, true
	for _, op := range t.Ops {
		bytes += len(op.Key) + len(op.Value)
		deletes = deletes && op.Delete
	}
	if bytes > s.cfg.RequestBytes {
		return fmt.Errorf("store: %d bytes: %w", bytes, store.ErrTooLarge)
	}
	if err := s.Err(); err != nil && !(deletes && errors.Is(err, errLowDisk)) {
		return err
	}
	return nil
}

// A group is what one sync makes durable together.
const (
	groupRequests = 512
	groupBytes    = 1 << 20
)

// group gathers transactions on top of the index without changing it.
type group struct {
	batch    *pebble.Batch
	revision int64
	changed  map[string]change
	order    []change
	events   []store.Event
	answers  []reply
	requests []*request
	buf      []byte
}

// change is a key's new version, not yet in the index.
type change struct {
	key     string
	version version
	value   []byte
}

// commitLoop is the committer.
func (s *Store) commitLoop() {
	g := &group{changed: map[string]change{}}
	for {
		select {
		case r := <-s.requests:
			s.gather(g, r)
		case <-s.ctx.Done():
			return
		}
		s.finish(g)
	}
}

// gather evaluates first and whatever waits behind it.
func (s *Store) gather(g *group, first *request) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g.revision = s.mu.revision
	for r := first; ; {
		res, err := s.evaluate(g, &r.txn)
		g.requests = append(g.requests, r)
		g.answers = append(g.answers, reply{res, err})
		if len(g.requests) == groupRequests || g.batch != nil && g.batch.Len() > groupBytes {
			return
		}
		select {
		case r = <-s.requests:
		default:
			return
		}
	}
}

// finish makes the group durable, shows it, and answers.
func (s *Store) finish(g *group) {
	if g.batch != nil {
		if err := s.write(g.batch); err != nil {
			for i := range g.answers {
				g.answers[i] = reply{err: err}
			}
			g.order = nil
		}
	}
	if len(g.order) > 0 {
		s.show(g)
	}
	for i, r := range g.requests {
		r.reply <- g.answers[i]
	}
	if g.batch != nil {
		_ = g.batch.Close() // returns it to a pool
	}
	clear(g.changed)
	*g = group{changed: g.changed, buf: g.buf, order: g.order[:0], answers: g.answers[:0], requests: g.requests[:0]}
	clear(g.order[:cap(g.order)])
	clear(g.answers[:cap(g.answers)])
	clear(g.requests[:cap(g.requests)])
}

// write syncs a batch. A failed log cannot be appended to again: the store then
// stays readable, and its directory is intact up to the last acknowledged write.
func (s *Store) write(b *pebble.Batch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: %v", p)
		}
		if err != nil {
			s.fail(err)
		} else if cause := s.failure.Load(); cause != nil {
			err = *cause
		}
	}()
	if cause := s.failure.Load(); cause != nil {
		return *cause
	}
	return s.db.Apply(b, pebble.Sync)
}

// show makes a durable group visible.
func (s *Store) show(g *group) {
	wake := false
	s.mu.Lock()
	for i := range g.order {
		if s.add(g.order[i].key, g.order[i].version) {
			wake = true
		}
	}
	wake = wake || s.mu.expiring > s.cfg.ExpiringBytes
	s.mu.revision = g.revision
	s.mu.Unlock()
	s.hub.Publish(g.revision, g.events)
	if wake {
		s.wakeExpiry()
	}
}

// evaluate checks the guards and adds the operations to the group.
func (s *Store) evaluate(g *group, t *store.Txn) (*store.TxnResult, error) {
	for _, guard := range t.Guards {
		if s.modRevision(g, guard.Key) != guard.ModRevision {
			current, err := s.guarded(g, t.Guards)
			return &store.TxnResult{Revision: g.revision, Current: current}, err
		}
	}
	n, revision := uint32(0), g.revision+1
	for i := range t.Ops {
		wrote, err := s.stage(g, &t.Ops[i], place{revision, n})
		if err != nil {
			// Reading an old value failed: nothing of the group is sound.
			s.fail(err)
			return nil, err
		}
		if wrote {
			n++
		}
	}
	if n > 0 {
		g.revision = revision
	}
	return &store.TxnResult{Succeeded: true, Revision: g.revision}, nil
}

// newest returns the key's newest version, or nil.
func (s *Store) newest(g *group, key string) *version {
	if c, ok := g.changed[key]; ok {
		if c.version.deleted() {
			return nil
		}
		return &c.version
	}
	if e := s.mu.index.get(key); e != nil && !e.current.deleted() {
		return &e.current
	}
	return nil
}

func (s *Store) modRevision(g *group, key string) int64 {
	if v := s.newest(g, key); v != nil {
		return v.revision
	}
	return 0
}

// guarded returns the present state of every guarded key.
func (s *Store) guarded(g *group, guards []store.Guard) ([]store.KeyValue, error) {
	current := make([]store.KeyValue, len(guards))
	for i, guard := range guards {
		kv, err := s.present(g, guard.Key)
		if err != nil {
			return nil, err
		}
		kv.Key = guard.Key
		current[i] = kv
	}
	return current, nil
}

// present returns the newest state of a key; its ModRevision is zero if absent.
func (s *Store) present(g *group, key string) (store.KeyValue, error) {
	v := s.newest(g, key)
	if v == nil {
		return store.KeyValue{}, nil
	}
	if c, ok := g.changed[key]; ok {
		return v.keyValue(key, c.value), nil
	}
	value, err := readValue(s.db, v)
	return v.keyValue(key, value), err
}

// previous returns what a key was before a change, its value only where a watch
// wants to know it.
func (s *Store) previous(g *group, key string) (store.KeyValue, error) {
	if s.hub.WantsPrev() {
		return s.present(g, key)
	}
	v := s.newest(g, key)
	if v == nil {
		return store.KeyValue{}, nil
	}
	return v.keyValue(key, g.changed[key].value), nil
}

// stage adds one operation at p and returns whether it changes anything.
func (s *Store) stage(g *group, op *store.Op, p place) (bool, error) {
	prev, err := s.previous(g, op.Key)
	if err != nil || op.Delete && prev.ModRevision == 0 {
		return false, err
	}
	c := change{key: op.Key, version: version{place: p}}
	event := store.Event{Deleted: op.Delete, KV: store.KeyValue{Key: op.Key, ModRevision: p.revision}, Prev: prev}
	if !op.Delete {
		v := &c.version
		v.create, v.count, v.size = prev.CreateRevision, prev.Version+1, uint32(len(op.Value))
		if prev.ModRevision == 0 {
			v.create = p.revision
		}
		if op.TTL > 0 {
			v.ttl, v.expires = op.TTL, time.Now().UnixMilli()+op.TTL*1000
		}
		c.value = op.Value
		event.KV = v.keyValue(op.Key, op.Value)
	}
	if err := s.encode(g, &c); err != nil {
		return false, err
	}
	g.changed[op.Key] = c
	g.order = append(g.order, c)
	g.events = append(g.events, event)
	return true, nil
}

func (s *Store) encode(g *group, c *change) error {
	if g.batch == nil {
		g.batch = s.db.NewBatch()
	}
	g.buf = appendRecord(c.version.appendKey(g.buf[:0], prefixRecord), &c.version, c.key)
	if err := g.batch.Set(g.buf[:keyLen], g.buf[keyLen:], nil); err != nil {
		return err
	}
	if c.version.deleted() {
		return nil
	}
	return g.batch.Set(c.version.appendKey(g.buf[:0], prefixValue), c.value, nil)
}
