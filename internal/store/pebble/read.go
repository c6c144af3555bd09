// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"kaji/internal/store"
)

// readValue reads the value of a version.
func readValue(r pebble.Reader, v *version) ([]byte, error) {
	var buf [keyLen]byte
	b, closer, err := r.Get(v.appendKey(buf[:0], prefixValue))
	if err != nil {
		return nil, fmt.Errorf("store: value of revision %d: %w", v.revision, err)
	}
	value := append(make([]byte, 0, len(b)), b...) // not nil when empty
	return value, closer.Close()
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.KeyValue, bool, int64, error) {
	done, err := s.use(ctx)
	if err != nil {
		return store.KeyValue{}, false, 0, err
	}
	defer done()
	for {
		s.mu.RLock()
		e, revision := s.mu.index.get(key), s.mu.revision
		if e == nil || e.current.deleted() {
			s.mu.RUnlock()
			return store.KeyValue{}, false, revision, nil
		}
		v := e.current
		s.mu.RUnlock()
		value, err := readValue(s.db, &v)
		if errors.Is(err, pebble.ErrNotFound) && s.superseded(key, v.place) {
			continue // and compacted, while we were on the way to it
		}
		if err != nil {
			return store.KeyValue{}, false, 0, err
		}
		return v.keyValue(key, value), true, revision, nil
	}
}

func (s *Store) superseded(key string, p place) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.mu.index.get(key)
	return e == nil || e.current.place != p
}

// found is a version a Range returns.
type found struct {
	key string
	version
}

// Range implements store.Store.
func (s *Store) Range(ctx context.Context, r store.Range) (*store.RangeResult, error) {
	done, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	res, versions, snapshot, err := s.find(r)
	if err != nil {
		return nil, err
	}
	if snapshot == nil {
		return res, nil
	}
	res.KVs, err = readAll(ctx, snapshot, versions)
	if err = errors.Join(err, snapshot.Close()); err != nil {
		return nil, err
	}
	return res, nil
}

// find walks the index; the snapshot holds the values of what it found, however
// long reading them takes.
func (s *Store) find(r store.Range) (*store.RangeResult, []found, *pebble.Snapshot, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at := r.Revision
	switch {
	case at == 0:
		at = s.mu.revision
	case at > s.mu.revision:
		return nil, nil, nil, store.ErrFutureRevision
	case at < s.mu.compacted:
		return nil, nil, nil, store.ErrCompacted
	}
	res := &store.RangeResult{Revision: s.mu.revision}
	var versions []found
	if r.End != "" && r.End <= r.Start {
		return res, nil, nil, nil
	}
	s.mu.index.ascend(r.Start, r.End, func(e *entry) bool {
		v := e.at(at)
		if v == nil {
			return true
		}
		res.Count++
		if !r.CountOnly && (r.Limit == 0 || res.Count <= r.Limit) {
			versions = append(versions, found{e.key, *v})
		}
		return true
	})
	if len(versions) == 0 {
		return res, nil, nil, nil
	}
	return res, versions, s.db.NewSnapshot(), nil
}

// fewValues is where one pass over the values in the order in which they stand
// becomes cheaper than a look-up each.
const fewValues = 8

// readAll reads the values in the order of their revisions: neighbours on disk
// are read once.
func readAll(ctx context.Context, snapshot *pebble.Snapshot, versions []found) (_ []store.KeyValue, err error) {
	kvs := make([]store.KeyValue, len(versions))
	if len(versions) <= fewValues {
		for i := range versions {
			value, err := readValue(snapshot, &versions[i].version)
			if err != nil {
				return nil, err
			}
			kvs[i] = versions[i].keyValue(versions[i].key, value)
		}
		return kvs, nil
	}
	order := make([]int, len(versions))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return versions[a].place.compare(versions[b].place)
	})
	it, err := snapshot.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: []byte{prefixValue}, UpperBound: []byte{prefixValue + 1},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var buf [keyLen]byte
	for n, i := range order {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		v := &versions[i]
		value, err := seekValue(it, v.appendKey(buf[:0], prefixValue))
		if err != nil {
			return nil, fmt.Errorf("store: value of revision %d: %w", v.revision, err)
		}
		kvs[i] = v.keyValue(v.key, value)
	}
	return kvs, nil
}

// seekValue moves it forward to key and returns a copy of what stands there.
func seekValue(it *pebble.Iterator, key []byte) ([]byte, error) {
	// Often the next value is the one.
	if it.Valid() {
		it.Next()
	}
	if !it.Valid() || !bytes.Equal(it.Key(), key) {
		it.SeekGE(key)
	}
	if !it.Valid() || !bytes.Equal(it.Key(), key) {
		if err := it.Error(); err != nil {
			return nil, err
		}
		return nil, pebble.ErrNotFound
	}
	b, err := it.ValueAndErr()
	return bytes.Clone(b), err
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.revision, q.revision), cmp.Compare(p.n, q.n))
}
