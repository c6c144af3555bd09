// SPDX-License-Identifier: Apache-2.0

// Package storetest is the proof every store engine passes: what package store
// promises, as tests that know only the interface. Engines call Run from a test
// of their own.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"kaji/internal/store"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// Run proves the store that open returns. open is called once for each test and
// returns an empty store, which Run closes.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"Revisions", testRevisions},
		{"Guards", testGuards},
		{"Transaction", testTransaction},
		{"BadTransaction", testBadTransaction},
		{"Range", testRange},
		{"RangeLimit", testRangeLimit},
		{"RangeOldRevision", testRangeOldRevision},
		{"RangeRevisionErrors", testRangeRevisionErrors},
		{"Bytes", testBytes},
		{"Compact", testCompact},
		{"CompactForgetsDeleted", testCompactForgetsDeleted},
		{"WatchLive", testWatchLive},
		{"WatchHistory", testWatchHistory},
		{"WatchWithoutPrev", testWatchWithoutPrev},
		{"WatchBounds", testWatchBounds},
		{"WatchRevisionIsWhole", testWatchRevisionIsWhole},
		{"WatchFuture", testWatchFuture},
		{"WatchCompacted", testWatchCompacted},
		{"WatchSlowReader", testWatchSlowReader},
		{"WatchProgress", testWatchProgress},
		{"WatchEndsWithContext", testWatchEndsWithContext},
		{"WatchWhileWriting", testWatchWhileWriting},
		{"TTL", testTTL},
		{"Counter", testCounter},
		{"Linearizable", testLinearizable},
		{"Close", testClose},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fixture{T: t, s: open(t), ctx: t.Context()}
			t.Cleanup(func() {
				if err := f.s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test.run(t, f)
		})
	}
}

// fixture is a store under test, with calls that fail the test on error.
type fixture struct {
	*testing.T
	s   store.Store
	ctx context.Context
}

func (f *fixture) put(key, value string) int64 {
	f.Helper()
	return f.commit(store.Txn{Ops: []store.Op{{Key: key, Value: []byte(value)}}}).Revision
}

func (f *fixture) delete(key string) int64 {
	f.Helper()
	return f.commit(store.Txn{Ops: []store.Op{{Key: key, Delete: true}}}).Revision
}

func (f *fixture) commit(t store.Txn) *store.TxnResult {
	f.Helper()
	res, err := f.s.Commit(f.ctx, t)
	if err != nil {
		f.Fatalf("commit: %v", err)
	}
	return res
}

func (f *fixture) get(key string) (store.KeyValue, bool) {
	f.Helper()
	kv, found, _, err := f.s.Get(f.ctx, key)
	if err != nil {
		f.Fatalf("get %q: %v", key, err)
	}
	return kv, found
}

func (f *fixture) read(r store.Range) *store.RangeResult {
	f.Helper()
	res, err := f.s.Range(f.ctx, r)
	if err != nil {
		f.Fatalf("range %+v: %v", r, err)
	}
	return res
}

func (f *fixture) compact(revision int64) {
	f.Helper()
	if err := f.s.Compact(f.ctx, revision); err != nil {
		f.Fatalf("compact %d: %v", revision, err)
	}
}

func (f *fixture) revision() int64 {
	f.Helper()
	revision, err := f.s.Revision(f.ctx)
	if err != nil {
		f.Fatalf("revision: %v", err)
	}
	return revision
}

func (f *fixture) equal(what string, got, want any) {
	f.Helper()
	if !reflect.DeepEqual(got, want) {
		f.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func (f *fixture) fails(what string, got, want error) {
	f.Helper()
	if !errors.Is(got, want) {
		f.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// pairs renders keys and values for comparison.
func pairs(kvs []store.KeyValue) []string {
	out := []string{}
	for _, kv := range kvs {
		out = append(out, kv.Key+"="+string(kv.Value))
	}
	return out
}

// watch opens a watch that ends with the test.
func (f *fixture) watch(start, end string, after int64) *watcher {
	f.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	ch, err := f.s.Watch(ctx, store.Watch{Start: start, End: end, After: after, Prev: true})
	if err != nil {
		cancel()
		f.Fatalf("watch: %v", err)
	}
	w := &watcher{f: f, ch: ch, cancel: cancel, last: after}
	f.Cleanup(w.end)
	return w
}

type watcher struct {
	f      *fixture
	ch     <-chan store.Batch
	cancel context.CancelFunc
	last   int64
	events []store.Event
}

// end cancels the watch and waits until its channel is closed.
func (w *watcher) end() {
	w.cancel()
	deadline := time.After(patience)
	for {
		select {
		case _, open := <-w.ch:
			if !open {
				return
			}
		case <-deadline:
			w.f.Error("the channel of a cancelled watch stays open")
			return
		}
	}
}

// batch returns the next delivery, checked against what every watch promises.
func (w *watcher) batch() store.Batch {
	w.f.Helper()
	select {
	case b, open := <-w.ch:
		if !open {
			w.f.Fatal("the watch ended")
		}
		for _, e := range b.Events {
			if e.KV.ModRevision < w.last || e.KV.ModRevision > b.Revision {
				w.f.Fatalf("event of revision %d in a batch up to %d after %d", e.KV.ModRevision, b.Revision, w.last)
			}
			w.last = e.KV.ModRevision
		}
		if b.Err == nil {
			if b.Revision < w.last {
				w.f.Fatalf("a batch of revision %d after %d", b.Revision, w.last)
			}
			w.last = b.Revision
		}
		return b
	case <-time.After(patience):
		w.f.Fatal("no delivery")
	}
	return store.Batch{}
}

// next returns the next n events.
func (w *watcher) next(n int) []store.Event {
	w.f.Helper()
	for len(w.events) < n {
		b := w.batch()
		if b.Err != nil {
			w.f.Fatalf("the watch failed: %v", b.Err)
		}
		w.events = append(w.events, b.Events...)
	}
	events := w.events[:n:n]
	w.events = w.events[n:]
	return events
}

// text renders an event as "3 a=1 was 0" or "4 delete a was 3".
func text(e store.Event) string {
	if e.Deleted {
		return fmt.Sprintf("%d delete %s was %s@%d", e.KV.ModRevision, e.KV.Key, e.Prev.Value, e.Prev.ModRevision)
	}
	return fmt.Sprintf("%d %s=%s was %s@%d", e.KV.ModRevision, e.KV.Key, e.KV.Value, e.Prev.Value, e.Prev.ModRevision)
}
