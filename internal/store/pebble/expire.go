// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"container/heap"
	"time"

	"kaji/internal/store"
)

// expireStep is how many keys one step lets expire.
const expireStep = 128

func (s *Store) wakeExpiry() {
	select {
	case s.expiry <- struct{}{}:
	default:
	}
}

// expireLoop deletes the keys whose time to live is over, at their time and
// without looking at any other.
func (s *Store) expireLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.expiry:
		case <-s.ctx.Done():
			return
		}
		due, next := s.due(time.Now().UnixMilli())
		if !s.expire(due) {
			next = time.Second // the disk is full or broken
		}
		timer.Reset(next)
	}
}

// due takes the expired keys off the heap, and tells when to look again.
func (s *Store) due(now int64) ([]deadline, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []deadline
	excess := s.mu.expiring - s.cfg.ExpiringBytes
	for len(s.mu.deadlines) > 0 {
		d := s.mu.deadlines[0]
		stale := d.entry.current.place != d.place
		if !stale && d.expires > now && excess <= 0 {
			// At least a moment, so that near deadlines share a step.
			return due, max(time.Duration(d.expires-now)*time.Millisecond, 10*time.Millisecond)
		}
		if !stale && len(due) == expireStep {
			return due, 0
		}
		heap.Pop(&s.mu.deadlines)
		if !stale {
			due = append(due, d)
			excess -= int64(d.entry.current.size)
		}
	}
	return due, time.Hour
}

// expire deletes the keys that have not been put again meanwhile. What it could
// not delete goes back on the heap, and false is returned.
func (s *Store) expire(due []deadline) bool {
	requests := make([]*request, len(due))
	for i, d := range due {
		requests[i] = &request{reply: make(chan reply, 1), txn: store.Txn{
			Guards: []store.Guard{{Key: d.entry.key, ModRevision: d.revision}},
			Ops:    []store.Op{{Key: d.entry.key, Delete: true}},
		}}
		select {
		case s.requests <- requests[i]:
		case <-s.ctx.Done():
			return true
		}
	}
	ok := true
	for i, r := range requests {
		select {
		case a := <-r.reply:
			if a.err != nil {
				s.mu.Lock()
				heap.Push(&s.mu.deadlines, due[i])
				s.mu.Unlock()
				ok = false
			}
		case <-s.ctx.Done():
			return true
		}
	}
	return ok
}
