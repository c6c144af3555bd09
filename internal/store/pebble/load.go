// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// firstRevision is the revision of an empty store, as in etcd.
const firstRevision = 1

// load builds the index from the records.
func (s *Store) load() error {
	s.mu.index = newIndex()
	compacted, err := s.readCompacted()
	if err != nil {
		return err
	}
	s.mu.compacted = compacted
	// The newest record may have been a deletion that is compacted away, but
	// then the compacted revision is not older than it.
	s.mu.revision = max(firstRevision, compacted)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixRecord}, UpperBound: []byte{prefixRecord + 1}})
	if err != nil {
		return err
	}
	for valid := it.First(); valid; valid = it.Next() {
		if err := s.loadRecord(it); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return err
	}
	return nil
}

func (s *Store) loadRecord(it *pebble.Iterator) error {
	p, err := parseKey(it.Key(), prefixRecord)
	if err != nil {
		return err
	}
	b, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	v, key, err := parseRecord(p, b)
	if err != nil {
		return fmt.Errorf("revision %d: %w", p.revision, err)
	}
	s.add(key, v)
	s.mu.revision = max(s.mu.revision, p.revision)
	return nil
}

func (s *Store) readCompacted() (int64, error) {
	b, closer, err := s.db.Get([]byte(keyCompacted))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	if len(b) != 8 {
		return 0, errRecord
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}
