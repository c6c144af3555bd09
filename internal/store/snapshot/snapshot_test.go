// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"kaji/internal/store"
	"kaji/internal/store/memory"
	"kaji/internal/store/pebble"
)

func put(t *testing.T, s store.Store, key string, value []byte, ttl int64) int64 {
	t.Helper()
	res, err := s.Commit(t.Context(), store.Txn{Ops: []store.Op{{Key: key, Value: value, TTL: ttl}}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Revision
}

func all(t *testing.T, s store.Store, revision int64) []store.KeyValue {
	t.Helper()
	res, err := s.Range(t.Context(), store.Range{Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	return res.KVs
}

// TestSaveRestore takes a snapshot while others write, and restores it: what it
// holds is the store as it was at one revision.
func TestSaveRestore(t *testing.T) {
	s, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 1000 {
		put(t, s, fmt.Sprintf("/registry/%03d", i%700), bytes.Repeat([]byte{byte(i)}, i), int64(i%2)*3600)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = s.Commit(ctx, store.Txn{Ops: []store.Op{
				{Key: "/registry/000", Value: []byte("x")}, {Key: fmt.Sprintf("/registry/%03d", i%700), Delete: i%700 != 0},
			}})
		}
	})
	file := filepath.Join(t.TempDir(), "snapshot")
	info, err := Save(t.Context(), s, nil, file)
	cancel()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	want := all(t, s, info.Revision)
	checked, err := Check(t.Context(), nil, file)
	if err != nil || checked != info || info.Keys != int64(len(want)) {
		t.Fatalf("saved %+v, checked %+v, %v; %d keys", info, checked, err, len(want))
	}

	const bump = 1000
	dir := filepath.Join(t.TempDir(), "restored")
	if _, err := Restore(t.Context(), nil, file, pebble.Config{Dir: dir}, bump); err != nil {
		t.Fatal(err)
	}
	r, err := pebble.Open(pebble.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := all(t, r, 0); !reflect.DeepEqual(got, want) {
		t.Fatalf("restored %d keys, want %d, or they differ", len(got), len(want))
	}
	if _, err := r.Watch(t.Context(), store.Watch{After: info.Revision}); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a watch from before the restoration: %v", err)
	}
	if got := put(t, r, "/new", nil, 0); got != info.Revision+bump+1 {
		t.Errorf("the next revision is %d, the snapshot's was %d", got, info.Revision)
	}
	if _, err := Restore(t.Context(), nil, file, pebble.Config{Dir: dir}, 0); err == nil {
		t.Error("restored over a store")
	}
}

func TestDamage(t *testing.T) {
	m := memory.New()
	defer m.Close()
	for i := range 20 {
		put(t, m, fmt.Sprintf("/%02d", i), []byte("some value"), 0)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot")
	if _, err := Save(t.Context(), m, nil, file); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Check(t.Context(), nil, file); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		target := filepath.Join(dir, "target")
		if _, err := Restore(t.Context(), nil, file, pebble.Config{Dir: target}, 0); err == nil {
			t.Errorf("%s: restored", what)
		}
		if _, err := os.Stat(target); err == nil {
			t.Errorf("%s: left a directory behind", what)
		}
	}
	check("empty", nil)
	check("longer", append(bytes.Clone(whole), 0))
	for i := 0; i < len(whole); i += 7 {
		check(fmt.Sprintf("cut at %d", i), whole[:i])
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		check(fmt.Sprintf("flipped at %d", i), b)
	}
}

// FuzzReader: any bytes are refused or read, without a crash or much memory.
func FuzzReader(f *testing.F) {
	m := memory.New()
	defer m.Close()
	_, err := m.Commit(context.Background(), store.Txn{Ops: []store.Op{{Key: "/a", Value: []byte("1")}}})
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := Write(context.Background(), m, &b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReader(bytes.NewReader(b))
		keys := int64(0)
		for kv, err := range r.keys(t.Context()) {
			if err != nil {
				return
			}
			if kv.Key == "" {
				t.Fatal("a key without a name")
			}
			keys++
		}
		if keys != r.info.Keys || r.info.Bytes != int64(len(b)) {
			t.Fatalf("%+v after %d keys and %d bytes", r.info, keys, len(b))
		}
	})
}
