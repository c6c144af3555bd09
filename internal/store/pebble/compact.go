// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"kaji/internal/store"
)

// compactStep is how many versions one step forgets; between two steps the
// index is free for others.
const compactStep = 512

// Compact implements store.Store. It returns when the revisions can no longer
// be read; their space comes back in the background.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := s.setCompacted(revision); err != nil {
		return err
	}
	return s.sweep(ctx)
}

// Compacted returns the oldest revision that can be read.
func (s *Store) Compacted() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.compacted
}

func (s *Store) setCompacted(revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision > s.mu.revision {
		return store.ErrFutureRevision
	}
	if revision <= s.mu.compacted {
		return store.ErrCompacted
	}
	s.mu.compacted = revision
	return nil
}

// sweep forgets the garbage of compacted revisions. The compacted revision is
// written in front of what it takes away, in the same log.
func (s *Store) sweep(ctx context.Context) error {
	for {
		if err := s.Err(); err != nil && err != errLowDisk {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		corpses, compacted := s.bury()
		if len(corpses) == 0 {
			return nil
		}
		if err := s.erase(corpses, compacted); err != nil {
			return fmt.Errorf("store: compact: %w", err)
		}
	}
}

// bury takes one step's garbage out of the index.
func (s *Store) bury() ([]corpse, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	corpses := s.mu.garbage.pop(s.mu.compacted, compactStep)
	for _, c := range corpses {
		s.mu.index.drop(c.entry, c.place)
	}
	return corpses, s.mu.compacted
}

// erase deletes one step's garbage from Pebble. Each key was set exactly once,
// which is what SingleDelete demands; it vanishes as soon as it meets its key.
func (s *Store) erase(corpses []corpse, compacted int64) error {
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.Set([]byte(keyCompacted), binary.BigEndian.AppendUint64(nil, uint64(compacted)), nil); err != nil {
		return err
	}
	var buf [keyLen]byte
	for i := range corpses {
		for _, prefix := range []byte{prefixRecord, prefixValue} {
			if err := b.SingleDelete(corpses[i].appendKey(buf[:0], prefix), nil); err != nil {
				return err
			}
		}
	}
	if cause := s.failure.Load(); cause != nil {
		return *cause
	}
	return s.db.Apply(b, pebble.NoSync)
}

// Defragment gives the space of forgotten versions back to the disk at once.
func (s *Store) Defragment(ctx context.Context) error {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := s.db.Flush(); err != nil {
		return fmt.Errorf("store: defragment: %w", err)
	}
	if err := s.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
		return fmt.Errorf("store: defragment: %w", err)
	}
	return nil
}

// sample remembers that the store had a revision at a time.
type sample struct {
	at       time.Time
	revision int64
}

// maintainLoop compacts what is older than the configured history, and watches
// the disk's free space.
func (s *Store) maintainLoop() {
	period := 10 * time.Second
	if s.cfg.History > 0 {
		period = max(min(period, s.cfg.History/2), time.Millisecond)
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	var samples []sample
	for {
		s.checkDisk()
		samples = s.age(samples, time.Now())
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// age notes the present revision and compacts up to the newest one that is old
// enough.
func (s *Store) age(samples []sample, now time.Time) []sample {
	if s.cfg.History < 0 {
		return nil
	}
	s.mu.RLock()
	revision, history := s.mu.revision, s.mu.garbage.bytes
	s.mu.RUnlock()
	if n := len(samples); n == 0 || samples[n-1].revision != revision {
		samples = append(samples, sample{now, revision})
	}
	due := 0
	for due < len(samples) && now.Sub(samples[due].at) >= s.cfg.History {
		due++
	}
	if due == 0 && history > s.cfg.HistoryBytes {
		due = max(1, len(samples)/2)
	}
	if due == 0 {
		return samples
	}
	if err := s.setCompacted(samples[due-1].revision); err == nil {
		if err := s.sweep(s.ctx); err != nil && s.ctx.Err() == nil {
			s.cfg.Logger.Warn("Compacting the store failed and is tried again", "err", err.Error())
		}
	}
	if due == len(samples) {
		due-- // the revision the store still has
	}
	return append(samples[:0], samples[due:]...)
}

func (s *Store) checkDisk() {
	if s.cfg.MinFreeBytes < 0 {
		return
	}
	usage, err := s.fs.GetDiskUsage(s.cfg.Dir)
	if err != nil {
		return // no such notion on this file system
	}
	low := usage.AvailBytes < uint64(s.cfg.MinFreeBytes)
	if s.lowDisk.Swap(low) != low {
		s.cfg.Logger.Warn("Free disk space crossed the store's minimum", "low", low, "freeBytes", usage.AvailBytes)
	}
}
