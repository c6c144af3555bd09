// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"kaji/internal/store"
	"kaji/internal/vfs"
)

// Import makes a store in the empty directory cfg.Dir with the given keys, in
// ascending order, as they stood at revision, which becomes its newest and its
// compacted one. Times to live begin anew. Interrupted, it leaves a directory
// that is not a store; the caller removes it.
func Import(cfg Config, revision int64, kvs iter.Seq2[store.KeyValue, error]) (err error) {
	cfg.defaults()
	if err := vfs.Private(cfg.FS, cfg.Dir); err != nil {
		return fmt.Errorf("store: import: %w", err)
	}
	switch names, err := cfg.FS.List(cfg.Dir); {
	case err != nil:
		return fmt.Errorf("store: import: %w", err)
	case len(names) > 0:
		return fmt.Errorf("store: import: %s is not empty", cfg.Dir)
	}
	s := &Store{cfg: cfg, fs: vfs.NewPatient(cfg.FS, time.Second)}
	s.fs.GiveUp() // whoever restores a snapshot is there to see that the disk is full
	db, err := pebble.Open(cfg.Dir, s.options())
	if err != nil {
		return openError(cfg.Dir, err)
	}
	defer func() {
		if err = errors.Join(err, db.Close()); err != nil {
			err = fmt.Errorf("store: import: %w", err)
		}
	}()
	i := importer{db: db, batch: db.NewBatch(), revision: revision, now: time.Now().UnixMilli()}
	for kv, err := range kvs {
		if err == nil {
			err = i.add(kv)
		}
		if err != nil {
			return errors.Join(err, i.batch.Close())
		}
	}
	if err := i.batch.Set([]byte(keyCompacted), binary.BigEndian.AppendUint64(nil, uint64(revision)), nil); err != nil {
		return err
	}
	if err := i.batch.Commit(pebble.Sync); err != nil {
		return err
	}
	if failure := s.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

type importer struct {
	db       *pebble.DB
	batch    *pebble.Batch
	revision int64
	now      int64
	n        uint32
	last     string
}

func (i *importer) add(kv store.KeyValue) error {
	if kv.Key <= i.last || kv.ModRevision > i.revision || kv.CreateRevision > kv.ModRevision ||
		kv.CreateRevision <= 0 || kv.Version <= 0 {
		return fmt.Errorf("key %q: malformed or out of order", kv.Key)
	}
	i.last = kv.Key
	// Keys of one revision need different places; one counter serves all.
	i.n++
	v := version{
		place: place{kv.ModRevision, i.n}, size: uint32(len(kv.Value)),
		create: kv.CreateRevision, count: kv.Version, ttl: kv.TTL,
	}
	if v.ttl > 0 {
		v.expires = i.now + v.ttl*1000
	}
	if err := i.batch.Set(v.key(prefixRecord), appendRecord(nil, &v, kv.Key), nil); err != nil {
		return err
	}
	if err := i.batch.Set(v.key(prefixValue), kv.Value, nil); err != nil {
		return err
	}
	if i.batch.Len() < groupBytes {
		return nil
	}
	if err := i.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	i.batch = i.db.NewBatch()
	return nil
}
