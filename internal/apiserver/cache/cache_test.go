// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"

	"kaji/internal/api"
	"kaji/internal/store"
	"kaji/internal/store/memory"
)

// pods is a small kind whose stored value is the node's name.
func pods() *api.Kind {
	return &api.Kind{
		Name: "Pod", Resource: "pods", Namespaced: true, Prefix: "/registry/pods",
		IndexedFields: []string{"spec.nodeName"},
		Rules: api.For[*corev1.Pod]{Fields: func(p *corev1.Pod) fields.Set {
			return fields.Set{"spec.nodeName": p.Spec.NodeName}
		}}.Rules(),
	}
}

func decode(_ *api.Kind, kv store.KeyValue) (api.Object, error) {
	if string(kv.Value) == "broken" {
		return nil, errors.New("broken")
	}
	p := &corev1.Pod{}
	p.Name = kv.Key[len("/registry/pods/ns/"):]
	p.Spec.NodeName = string(kv.Value)
	return p, nil
}

type bench struct {
	t     *testing.T
	store store.Store
	cache *Cache
	kind  *api.Kind
}

// start runs a cache over a memory store until the test ends.
func start(t *testing.T, cfg Config) *bench {
	b := &bench{t: t, store: memory.New(), kind: pods()}
	cfg.Store, cfg.Decode = b.store, decode
	b.cache = New(cfg)
	b.cache.Add(b.kind)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.cache.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; b.store.Close() })
	return b
}

func (b *bench) commit(op store.Op) int64 {
	b.t.Helper()
	r, err := b.store.Commit(b.t.Context(), store.Txn{Ops: []store.Op{op}})
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Revision
}

func (b *bench) put(name, node string) int64 {
	b.t.Helper()
	return b.commit(store.Op{Key: b.kind.Key("ns", name), Value: []byte(node)})
}

func (b *bench) remove(name string) int64 {
	b.t.Helper()
	return b.commit(store.Op{Key: b.kind.Key("ns", name), Delete: true})
}

func (b *bench) newest() *Snapshot {
	b.t.Helper()
	if _, err := b.cache.WaitNewest(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	s, err := b.cache.Snapshot(b.t.Context(), b.kind)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func names(s *Snapshot) (out []string) {
	for e := range s.All("", "") {
		out = append(out, e.Object.GetName()+"@"+e.Object.(*corev1.Pod).Spec.NodeName)
	}
	return out
}

func (b *bench) next(c *Cursor) string {
	b.t.Helper()
	e, err := c.Next(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	kind := "put"
	if e.Deleted {
		kind = "delete"
	}
	return fmt.Sprintf("%s %s %s", kind, e.Entry.Object.GetName(), e.Entry.Object.GetResourceVersion())
}

// Old snapshots stay as they were, and a revision can be asked for again.
func TestSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Config{})
		b.put("a", "n1")
		first := b.newest()
		r := b.put("b", "n2")
		b.remove("a")
		b.put("c", "n1")
		if got, want := names(first), []string{"a@n1"}; !slices.Equal(got, want) {
			t.Errorf("first snapshot: got %v, want %v", got, want)
		}
		now := b.newest()
		if got, want := names(now), []string{"b@n2", "c@n1"}; !slices.Equal(got, want) {
			t.Errorf("newest: got %v, want %v", got, want)
		}
		at, err := b.cache.SnapshotAt(t.Context(), b.kind, r)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := names(at), []string{"a@n1", "b@n2"}; !slices.Equal(got, want) {
			t.Errorf("at %d: got %v, want %v", r, got, want)
		}
		if got := now.Remaining("ns", b.kind.Key("ns", "c")); got != 1 {
			t.Errorf("remaining from c: got %d, want 1", got)
		}
	})
}

// The index follows an object from one node to the next.
func TestIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Config{})
		b.put("a", "n1")
		b.newest()
		b.put("b", "n1")
		b.put("a", "n2")
		s := b.newest()
		for node, want := range map[string]string{"n1": "b", "n2": "a"} {
			var got []string
			for e := range s.Select("ns", "", "spec.nodeName", node) {
				got = append(got, e.Object.GetName())
			}
			if !slices.Equal(got, []string{want}) {
				t.Errorf("on %s: got %v, want %s", node, got, want)
			}
		}
	})
}

// A watch from a revision that left the memory is served from the store, and
// goes on with what the cache has; one the store forgot is too old.
func TestWatchResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Config{HistoryEvents: 2})
		r1 := b.put("a", "n1")
		b.newest()
		r2 := b.put("a", "n2")
		r3 := b.remove("a")
		r4 := b.put("b", "n1")
		r5 := b.put("c", "n1")
		b.newest()
		c, err := b.cache.Watch(t.Context(), b.kind, r1)
		if err != nil {
			t.Fatal(err)
		}
		r6 := b.put("d", "n1")
		for _, want := range []string{
			fmt.Sprintf("put a %d", r2), fmt.Sprintf("delete a %d", r3), fmt.Sprintf("put b %d", r4),
			fmt.Sprintf("put c %d", r5), fmt.Sprintf("put d %d", r6),
		} {
			if got := b.next(c); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		if err := b.store.Compact(t.Context(), r3); err != nil {
			t.Fatal(err)
		}
		if _, err := b.cache.Watch(t.Context(), b.kind, r1); !errors.Is(err, ErrTooOld) {
			t.Errorf("after compaction: got %v, want %v", err, ErrTooOld)
		}
	})
}

// A quiet kind's past is too old as soon as the store forgot it, though memory
// still has it: paged lists end alike for all kinds.
func TestQuietKindForgetsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Config{})
		r1 := b.put("a", "n1")
		r2 := b.put("b", "n1")
		b.newest()
		if _, err := b.cache.SnapshotAt(t.Context(), b.kind, r1); err != nil {
			t.Fatal(err)
		}
		if err := b.store.Compact(t.Context(), r2); err != nil {
			t.Fatal(err)
		}
		if _, err := b.cache.SnapshotAt(t.Context(), b.kind, r1); !errors.Is(err, ErrTooOld) {
			t.Errorf("after compaction: got %v, want %v", err, ErrTooOld)
		}
		if _, err := b.cache.SnapshotAt(t.Context(), b.kind, r2); err != nil {
			t.Errorf("the newest: %v", err)
		}
	})
}

// A watcher left behind by more than the history ends instead of holding it.
func TestSlowWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Config{HistoryEvents: 2})
		c := b.cache.Cursor(b.newest())
		for i := range 5 {
			b.put(fmt.Sprint("p", i), "n")
		}
		b.newest()
		if _, err := c.Next(t.Context()); !errors.Is(err, ErrEnded) {
			t.Errorf("got %v, want %v", err, ErrEnded)
		}
	})
}

// Watches end when their kind is removed, and reads say that it is gone.
func TestRemoveEndsWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Config{})
		c := b.cache.Cursor(b.newest())
		go b.cache.Remove(b.kind)
		if _, err := c.Next(t.Context()); !errors.Is(err, ErrEnded) {
			t.Errorf("got %v, want %v", err, ErrEnded)
		}
		if _, err := b.cache.Snapshot(t.Context(), b.kind); !errors.Is(err, ErrUnknownKind) {
			t.Errorf("got %v, want %v", err, ErrUnknownKind)
		}
	})
}

// An object that cannot be decoded fails reads of its kind until it is gone.
func TestBrokenObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Config{})
		b.newest()
		r := b.put("a", "broken")
		if err := b.cache.WaitFor(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if _, err := b.cache.Snapshot(t.Context(), b.kind); err == nil {
			t.Error("read a kind with a broken object")
		}
		b.remove("a")
		if got := b.newest().Len(); got != 0 {
			t.Errorf("got %d objects, want 0", got)
		}
	})
}

// Encodings are made once, and go when they were not asked for.
func TestEncodings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, Config{})
		b.put("a", "n1")
		e, found, err := b.cache.Get(t.Context(), b.kind, "ns", "a")
		if err != nil || !found {
			t.Fatal(found, err)
		}
		made := 0
		encode := func() []byte { made++; return []byte("x") }
		e.Encoded("json", encode)
		e.Encoded("json", encode)
		e.Encoded("proto", encode)
		if made != 2 {
			t.Errorf("made %d encodings, want 2", made)
		}
		<-time.After(2 * time.Minute)
		e.Encoded("json", encode)
		if made != 3 {
			t.Errorf("made %d encodings, want 3 after the first were dropped", made)
		}
	})
}
