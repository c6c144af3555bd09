// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"kaji/internal/store"
)

// A replay reads about so much at once, to hold neither memory nor a snapshot
// for long.
const (
	replayEvents  = 1024
	replayBytes   = 2 << 20
	replayRecords = 64 << 10
)

// history is the hub's source of events it no longer has: whole revisions after
// after, up to until.
func (s *Store) history(ctx context.Context, start, end string, after, until int64) ([]store.Event, int64, error) {
	done, err := s.use(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	snapshot := s.db.NewSnapshot()
	events, complete, err := s.replay(ctx, snapshot, start, end, after, until)
	if err = errors.Join(err, snapshot.Close()); err != nil {
		return nil, 0, err
	}
	// What was compacted before the snapshot was taken is missing in it.
	s.mu.RLock()
	defer s.mu.RUnlock()
	if after < s.mu.compacted {
		return nil, 0, store.ErrCompacted
	}
	return events, complete, nil
}

func (s *Store) replay(
	ctx context.Context, snapshot *pebble.Snapshot, start, end string, after, until int64,
) (events []store.Event, complete int64, err error) {
	it, err := snapshot.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: place{revision: after + 1}.key(prefixRecord), UpperBound: place{revision: until + 1}.key(prefixRecord),
	})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	complete = after
	bytes, records := 0, 0
	for valid := it.First(); valid; valid = it.Next() {
		p, err := parseKey(it.Key(), prefixRecord)
		if err != nil {
			return nil, 0, err
		}
		if p.revision != complete {
			complete = p.revision - 1
			if len(events) >= replayEvents || bytes >= replayBytes || records >= replayRecords {
				return events, complete, ctx.Err()
			}
			complete = p.revision
		}
		records++
		b, err := it.ValueAndErr()
		if err != nil {
			return nil, 0, err
		}
		v, key, err := parseRecord(p, b)
		if err != nil {
			return nil, 0, err
		}
		if key < start || end != "" && key >= end {
			continue
		}
		e, err := s.event(snapshot, key, &v)
		if err != nil {
			return nil, 0, err
		}
		bytes += len(e.KV.Value) + len(e.Prev.Value)
		events = append(events, e)
	}
	return events, until, it.Error()
}

// event tells a version as the change it was. The version before it is missing
// only if it is compacted; then the whole replay is void.
func (s *Store) event(snapshot *pebble.Snapshot, key string, v *version) (e store.Event, err error) {
	e.KV = store.KeyValue{Key: key, ModRevision: v.revision}
	if e.Deleted = v.deleted(); !e.Deleted {
		value, err := readValue(snapshot, v)
		if err != nil {
			return e, s.orCompacted(v.revision, err)
		}
		e.KV = v.keyValue(key, value)
	}
	s.mu.RLock()
	var prev version
	if entry := s.mu.index.get(key); entry != nil {
		if p := entry.at(v.revision - 1); p != nil {
			prev = *p
		}
	}
	s.mu.RUnlock()
	if prev.revision == 0 {
		return e, nil
	}
	value, err := readValue(snapshot, &prev)
	if err != nil {
		return e, s.orCompacted(v.revision, err)
	}
	e.Prev = prev.keyValue(key, value)
	return e, nil
}

// orCompacted tells a value that compaction took from one that is lost.
func (s *Store) orCompacted(revision int64, err error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if errors.Is(err, pebble.ErrNotFound) && revision <= s.mu.compacted {
		return store.ErrCompacted
	}
	return err
}
