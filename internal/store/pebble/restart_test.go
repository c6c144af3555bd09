// SPDX-License-Identifier: Apache-2.0

package pebble_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"kaji/internal/store"
	"kaji/internal/store/memory"
	"kaji/internal/store/pebble"
)

const patience = 30 * time.Second

// until polls a condition that must come true.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func commit(t *testing.T, s store.Store, ops ...store.Op) int64 {
	t.Helper()
	res, err := s.Commit(t.Context(), store.Txn{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return res.Revision
}

// TestModel does the same random things to the engine, restarted now and then,
// and to the one in memory, and compares all they can be asked.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	cfg := pebble.Config{Dir: dir, History: -1, MemTableBytes: 64 << 10}
	s, m := open(t, cfg), memory.New()
	defer func() { s.Close() }()
	random := rand.New(rand.NewPCG(1, 2))
	oldest := int64(1)
	for i := range 3000 {
		var ops []store.Op
		for k := range 10 {
			if random.IntN(8) == 0 {
				ops = append(ops, store.Op{
					Key: fmt.Sprintf("/%d", k), Delete: random.IntN(3) == 0,
					Value: []byte(fmt.Sprintf("%d %0300d", i, i)), TTL: int64(random.IntN(2) * 3600),
				})
			}
		}
		commit(t, m, ops...)
		newest := commit(t, s, ops...)
		if i%500 == 499 {
			oldest = newest - int64(random.IntN(50)) - 1
			for _, st := range []store.Store{s, m} {
				if err := st.Compact(t.Context(), oldest); err != nil {
					t.Fatal(err)
				}
			}
		}
		if i%400 == 399 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, cfg)
		}
		if i%50 == 49 {
			compare(t, s, m, oldest+random.Int64N(newest-oldest+1))
		}
		if i%300 == 299 {
			a, b := replay(t, s, oldest, newest), replay(t, m, oldest, newest)
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("histories of %d to %d differ: %d and %d events", oldest, newest, len(a), len(b))
			}
		}
	}
}

func compare(t *testing.T, a, b store.Store, revision int64) {
	t.Helper()
	r := store.Range{Start: "/", Revision: revision}
	x, err := a.Range(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Range(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(x, y) {
		t.Fatalf("at %d:\n%+v\n%+v", revision, x, y)
	}
}

func replay(t *testing.T, s store.Store, after, until int64) (events []store.Event) {
	t.Helper()
	ch, err := s.Watch(t.Context(), store.Watch{Start: "/", After: after, Prev: true})
	if err != nil {
		t.Fatal(err)
	}
	for done := after; done < until; {
		select {
		case b := <-ch:
			if b.Err != nil {
				t.Fatal(b.Err)
			}
			events, done = append(events, b.Events...), b.Revision
		case <-time.After(patience):
			t.Fatal("no delivery")
		}
	}
	return events
}

// TestWatchResumes resumes a watch across a restart.
func TestWatchResumes(t *testing.T) {
	cfg := pebble.Config{Dir: t.TempDir()}
	s := open(t, cfg)
	first := commit(t, s, store.Op{Key: "/a", Value: []byte("1")})
	commit(t, s, store.Op{Key: "/a", Value: []byte("2")})
	last := commit(t, s, store.Op{Key: "/a", Delete: true})
	want := replay(t, s, first, last)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	defer s.Close()
	if got := replay(t, s, first, last); !reflect.DeepEqual(got, want) || len(got) != 2 {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestTTLAcrossRestart(t *testing.T) {
	cfg := pebble.Config{Dir: t.TempDir()}
	s := open(t, cfg)
	commit(t, s, store.Op{Key: "/short", Value: []byte("x"), TTL: 1}, store.Op{Key: "/long", Value: []byte("x"), TTL: 3600})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	defer s.Close()
	until(t, "the short key expires", func() bool {
		_, found, _, err := s.Get(t.Context(), "/short")
		return err == nil && !found
	})
	if kv, found, _, err := s.Get(t.Context(), "/long"); err != nil || !found || kv.TTL != 3600 {
		t.Fatalf("long: %+v %v %v", kv, found, err)
	}
}

// TestHistoryAges: superseded revisions leave by themselves once they are old,
// and their space comes back.
func TestHistoryAges(t *testing.T) {
	s := open(t, pebble.Config{Dir: t.TempDir(), History: 50 * time.Millisecond, MemTableBytes: 256 << 10})
	defer s.Close()
	value := make([]byte, 8<<10)
	for i := range 3000 { // 24 MB, of which 80 KB stay
		for j := range value {
			value[j] = byte(rand.Uint32())
		}
		commit(t, s, store.Op{Key: fmt.Sprintf("/%d", i%10), Value: value})
	}
	until(t, "old revisions are compacted", func() bool {
		_, err := s.Range(t.Context(), store.Range{Start: "/", Revision: 2900})
		return errors.Is(err, store.ErrCompacted)
	})
	if err := s.Defragment(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the space comes back", func() bool {
		size, err := s.Size(t.Context())
		return err == nil && size < 4<<20
	})
	res, err := s.Range(t.Context(), store.Range{Start: "/"})
	if err != nil || res.Count != 10 {
		t.Fatalf("%v %+v", err, res)
	}
}

// TestStorm: keys with a time to live cannot fill the store; the others stay.
func TestStorm(t *testing.T) {
	s := open(t, pebble.Config{Dir: t.TempDir(), ExpiringBytes: 256 << 10})
	defer s.Close()
	commit(t, s, store.Op{Key: "/keep", Value: []byte("x")})
	for i := range 1000 {
		commit(t, s, store.Op{Key: fmt.Sprintf("/events/%04d", i), Value: make([]byte, 1<<10), TTL: 3600})
	}
	until(t, "the oldest events go early", func() bool {
		res, err := s.Range(t.Context(), store.Range{Start: "/events/", End: store.PrefixEnd("/events/"), CountOnly: true})
		return err == nil && res.Count <= 256
	})
	_, newest, _, err := s.Get(t.Context(), "/events/0999")
	_, kept, _, err2 := s.Get(t.Context(), "/keep")
	if err != nil || err2 != nil || !newest || !kept {
		t.Fatalf("newest event %v, other key %v, %v %v", newest, kept, err, err2)
	}
}

func TestTooLarge(t *testing.T) {
	s := open(t, pebble.Config{Dir: t.TempDir(), RequestBytes: 1000})
	defer s.Close()
	_, err := s.Commit(t.Context(), put("/a", string(make([]byte, 1000))))
	if !errors.Is(err, store.ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
}
