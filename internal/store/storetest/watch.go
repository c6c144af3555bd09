// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"kaji/internal/store"
)

func (w *watcher) expect(want ...string) {
	w.f.Helper()
	got := []string{}
	for _, e := range w.next(len(want)) {
		got = append(got, text(e))
	}
	w.f.equal("events", got, want)
}

func testWatchLive(t *testing.T, f *fixture) {
	r := f.put("/a", "1")
	w := f.watch("/", store.PrefixEnd("/"), r)
	f.put("/a", "2")
	w.expect(fmt.Sprintf("%d /a=2 was 1@%d", r+1, r))
	f.put("/b", "1")
	f.delete("/a")
	f.put("/a", "3")
	w.expect(
		fmt.Sprintf("%d /b=1 was @0", r+2),
		fmt.Sprintf("%d delete /a was 2@%d", r+3, r+1),
		fmt.Sprintf("%d /a=3 was @0", r+4),
	)
	f.put("/a", "4")
	e := w.next(1)[0]
	f.equal("event", e, store.Event{
		KV:   store.KeyValue{Key: "/a", Value: []byte("4"), CreateRevision: r + 4, ModRevision: r + 5, Version: 2},
		Prev: store.KeyValue{Key: "/a", Value: []byte("3"), CreateRevision: r + 4, ModRevision: r + 4, Version: 1},
	})
	f.delete("/a")
	e = w.next(1)[0]
	f.equal("deletion", e.KV, store.KeyValue{Key: "/a", ModRevision: r + 6})
	_ = t
}

func testWatchHistory(t *testing.T, f *fixture) {
	r := f.put("/a", "1")
	f.put("/a", "2")
	f.delete("/a")
	f.put("/b", "1")
	all := []string{
		fmt.Sprintf("%d /a=1 was @0", r),
		fmt.Sprintf("%d /a=2 was 1@%d", r+1, r),
		fmt.Sprintf("%d delete /a was 2@%d", r+2, r+1),
		fmt.Sprintf("%d /b=1 was @0", r+3),
		fmt.Sprintf("%d /c=1 was @0", r+4),
	}
	var watches []*watcher
	for i := range all {
		watches = append(watches, f.watch("/", store.PrefixEnd("/"), r-1+int64(i)))
	}
	f.put("/c", "1")
	for i, w := range watches {
		w.expect(all[i:]...)
	}
	_ = t
}

// A watch that does not ask for previous values learns of the same events, and
// whoever asks for them later gets those of the time before, too.
func testWatchWithoutPrev(t *testing.T, f *fixture) {
	r := f.put("/a", "1")
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	ch, err := f.s.Watch(ctx, store.Watch{Start: "/", After: r})
	if err != nil {
		t.Fatal(err)
	}
	plain := &watcher{f: f, ch: ch, cancel: cancel, last: r}
	f.put("/a", "2")
	f.delete("/a")
	for i, e := range plain.next(2) {
		f.equal("event", e.KV.ModRevision, r+1+int64(i))
		f.equal("deletion", e.Deleted, i == 1)
	}
	w := f.watch("/", store.PrefixEnd("/"), r)
	f.put("/a", "3")
	f.put("/a", "")
	f.put("/a", "4")
	w.expect(
		fmt.Sprintf("%d /a=2 was 1@%d", r+1, r),
		fmt.Sprintf("%d delete /a was 2@%d", r+2, r+1),
		fmt.Sprintf("%d /a=3 was @0", r+3),
		fmt.Sprintf("%d /a= was 3@%d", r+4, r+3),
		fmt.Sprintf("%d /a=4 was @%d", r+5, r+4),
	)
	f.equal("the plain watch's next", plain.next(1)[0].KV.Key, "/a")
}

func testWatchBounds(t *testing.T, f *fixture) {
	r := f.put("/a", "0")
	one := f.watch("/b", "/b\x00", r)
	rest := f.watch("/c", "", r)
	none := f.watch("/x", "/y", r)
	for _, key := range []string{"/a", "/b", "/b/", "/c", "/b", "/d"} {
		f.put(key, "v")
	}
	one.expect(fmt.Sprintf("%d /b=v was @0", r+2), fmt.Sprintf("%d /b=v was v@%d", r+5, r+2))
	rest.expect(fmt.Sprintf("%d /c=v was @0", r+4), fmt.Sprintf("%d /d=v was @0", r+6))
	f.put("/x", "last")
	none.expect(fmt.Sprintf("%d /x=last was @0", r+7))
	_ = t
}

func testWatchRevisionIsWhole(t *testing.T, f *fixture) {
	r := f.put("/seed", "1")
	live := f.watch("/k", store.PrefixEnd("/k"), r)
	const n = 100
	var ops []store.Op
	for i := range n {
		ops = append(ops, store.Op{Key: fmt.Sprintf("/k/%03d", i), Value: []byte("x")})
	}
	f.commit(store.Txn{Ops: ops})
	for name, w := range map[string]*watcher{"live": live, "history": f.watch("/k", store.PrefixEnd("/k"), r)} {
		b := w.batch()
		for len(b.Events) == 0 && b.Err == nil {
			b = w.batch()
		}
		f.equal(name+" events of one revision in one batch", len(b.Events), n)
	}
	_ = t
}

func testWatchFuture(t *testing.T, f *fixture) {
	r := f.put("/a", "1")
	w := f.watch("/", store.PrefixEnd("/"), r+2)
	for i := range 4 {
		f.put("/a", fmt.Sprint(i))
	}
	w.expect(fmt.Sprintf("%d /a=2 was 1@%d", r+3, r+2), fmt.Sprintf("%d /a=3 was 2@%d", r+4, r+3))
	_ = t
}

func testWatchCompacted(t *testing.T, f *fixture) {
	f.put("/a", "0")
	f.put("/a", "1")
	r := f.put("/a", "2")
	f.put("/a", "3")
	f.compact(r)
	// After r-1 it is for the engine to say: r itself may still be known.
	ch, err := f.s.Watch(f.ctx, store.Watch{Start: "/", After: r - 2, Prev: true})
	if err == nil {
		// An engine that learns of it later says so on the channel.
		select {
		case b := <-ch:
			err = b.Err
		case <-time.After(patience):
		}
	}
	f.fails("watch from before", err, store.ErrCompacted)
	f.watch("/", "", r).expect(fmt.Sprintf("%d /a=3 was 2@%d", r+1, r))
	_ = t
}

// testWatchSlowReader never reads while much is written; nothing of it blocks
// the writer, and nothing is lost unless the watch says so.
func testWatchSlowReader(t *testing.T, f *fixture) {
	r := f.put("/k", "0")
	w := f.watch("/", store.PrefixEnd("/"), r)
	const n = 1000
	value := make([]byte, 4096)
	for i := range n {
		f.commit(store.Txn{Ops: []store.Op{{Key: fmt.Sprintf("/k/%d", i%10), Value: value}}})
	}
	for i := 0; i < n; {
		b := w.batch()
		if b.Err != nil {
			t.Fatalf("after %d events: %v", i, b.Err)
		}
		for _, e := range b.Events {
			i++
			if e.KV.ModRevision != r+int64(i) || len(e.KV.Value) != len(value) {
				t.Fatalf("event %d has revision %d and %d bytes", i, e.KV.ModRevision, len(e.KV.Value))
			}
		}
	}
}

func testWatchProgress(t *testing.T, f *fixture) {
	r := f.put("/a", "1")
	quiet := f.watch("/quiet", "/quieter", r)
	busy := f.watch("/a", "/b", r)
	for range 5 {
		f.put("/a", "x")
	}
	if err := f.s.Progress(f.ctx); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for _, w := range []*watcher{quiet, busy} {
		events := 0
		for {
			b := w.batch()
			events += len(b.Events)
			if b.Err != nil {
				t.Fatal(b.Err)
			}
			if b.Revision == r+5 && len(b.Events) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no progress notice")
			}
			if len(b.Events) == 0 {
				// An engine may have been asked before it saw the writes.
				if err := f.s.Progress(f.ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		if want := map[*watcher]int{quiet: 0, busy: 5}[w]; events != want {
			t.Errorf("%d events before the notice, want %d", events, want)
		}
	}
}

func testWatchEndsWithContext(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	ch, err := f.s.Watch(ctx, store.Watch{Start: "/", After: f.revision()})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case b, open := <-ch:
		if open && b.Err == nil {
			t.Fatalf("a delivery after the end: %+v", b)
		}
	case <-time.After(patience):
		t.Fatal("the channel stays open")
	}
}

// testWatchWhileWriting opens watches at random points of a busy history; each
// must see every revision from its point on, once.
func testWatchWhileWriting(t *testing.T, f *fixture) {
	const writers, each = 4, 100
	r := f.put("/w", "0")
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				txn := store.Txn{Ops: []store.Op{{Key: fmt.Sprintf("/w/%d", i), Value: []byte(fmt.Sprint(j))}}}
				if _, err := f.s.Commit(f.ctx, txn); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	for range 20 {
		after, err := f.s.Revision(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		w := f.watch("/w", store.PrefixEnd("/w"), after)
		wg.Go(func() {
			for want := after + 1; want <= r+writers*each; {
				b, open := <-w.ch
				if !open || b.Err != nil {
					t.Errorf("the watch ended at %d: %v", want, b.Err)
					return
				}
				for _, e := range b.Events {
					if e.KV.ModRevision != want {
						t.Errorf("revision %d, want %d", e.KV.ModRevision, want)
						return
					}
					want++
				}
			}
		})
	}
	wg.Wait()
}
