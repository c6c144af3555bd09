// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"kaji/internal/store"
)

func testRevisions(t *testing.T, f *fixture) {
	first := f.put("a", "1")
	f.equal("revision after a put", f.revision(), first)
	f.equal("second put", f.put("a", "2"), first+1)
	f.equal("another key", f.put("b", "1"), first+2)
	kv, found := f.get("a")
	f.equal("found", found, true)
	f.equal("a", kv, store.KeyValue{Key: "a", Value: []byte("2"), CreateRevision: first, ModRevision: first + 1, Version: 2})
	f.equal("deletion", f.delete("a"), first+3)
	if kv, found := f.get("a"); found {
		t.Errorf("deleted key is found: %+v", kv)
	}
	f.equal("deletion of an absent key", f.delete("a"), first+3)
	f.equal("created again", f.put("a", "3"), first+4)
	kv, _ = f.get("a")
	f.equal("a again", kv, store.KeyValue{Key: "a", Value: []byte("3"), CreateRevision: first + 4, ModRevision: first + 4, Version: 1})
	_, found, revision, err := f.s.Get(f.ctx, "absent")
	if err != nil || found {
		t.Errorf("absent key: %v %v", found, err)
	}
	f.equal("revision of a get", revision, first+4)
}

func testGuards(t *testing.T, f *fixture) {
	create := store.Txn{Guards: []store.Guard{{Key: "a"}}, Ops: []store.Op{{Key: "a", Value: []byte("1")}}}
	res := f.commit(create)
	f.equal("create", res.Succeeded, true)
	r1 := res.Revision

	res = f.commit(create)
	f.equal("create again", *res, store.TxnResult{Revision: r1, Current: []store.KeyValue{
		{Key: "a", Value: []byte("1"), CreateRevision: r1, ModRevision: r1, Version: 1}}})

	update := store.Txn{Guards: []store.Guard{{Key: "a", ModRevision: r1}}, Ops: []store.Op{{Key: "a", Value: []byte("2")}}}
	res = f.commit(update)
	f.equal("update", *res, store.TxnResult{Succeeded: true, Revision: r1 + 1})
	f.equal("stale update", f.commit(update).Succeeded, false)
	kv, _ := f.get("a")
	f.equal("value", string(kv.Value), "2")

	res = f.commit(store.Txn{
		Guards: []store.Guard{{Key: "absent", ModRevision: 7}, {Key: "a", ModRevision: r1 + 1}},
		Ops:    []store.Op{{Key: "a", Delete: true}},
	})
	f.equal("one guard of two fails", res.Succeeded, false)
	f.equal("current states", len(res.Current), 2)
	f.equal("absent", res.Current[0].ModRevision, int64(0))
	f.equal("present", string(res.Current[1].Value), "2")

	res = f.commit(store.Txn{Guards: []store.Guard{{Key: "a", ModRevision: r1 + 1}}, Ops: []store.Op{{Key: "a", Delete: true}}})
	f.equal("guarded deletion", *res, store.TxnResult{Succeeded: true, Revision: r1 + 2})
	f.equal("guards alone", f.commit(store.Txn{Guards: []store.Guard{{Key: "a"}}}).Succeeded, true)
	f.equal("guards alone write nothing", f.revision(), r1+2)
	_ = t
}

func testTransaction(t *testing.T, f *fixture) {
	r0 := f.put("b", "old")
	res := f.commit(store.Txn{Ops: []store.Op{
		{Key: "a", Value: []byte("1")}, {Key: "b", Delete: true}, {Key: "c", Value: []byte("3")}, {Key: "absent", Delete: true},
	}})
	f.equal("revision", res.Revision, r0+1)
	all := f.read(store.Range{Start: "a", End: "z"})
	f.equal("keys", pairs(all.KVs), []string{"a=1", "c=3"})
	for _, kv := range all.KVs {
		f.equal("one revision", kv.ModRevision, r0+1)
	}
	f.equal("nothing to delete", f.delete("b"), r0+1)
	_ = t
}

func testBadTransaction(t *testing.T, f *fixture) {
	r := f.put("a", "1")
	for name, txn := range map[string]store.Txn{
		"empty key":   {Ops: []store.Op{{Value: []byte("x")}}},
		"twice":       {Ops: []store.Op{{Key: "a", Value: []byte("x")}, {Key: "a", Delete: true}}},
		"twice a put": {Ops: []store.Op{{Key: "b"}, {Key: "b"}}},
	} {
		if _, err := f.s.Commit(f.ctx, txn); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	f.equal("revision", f.revision(), r)
}

// testBytes holds the store to being indifferent to what it keeps.
func testBytes(t *testing.T, f *fixture) {
	keys := []string{"\x00", "\x00\x00", "\x00\xff", "/a", "/a/", "/a/b", "/a0", "ключ", "\xff", "\xff\xff"}
	for i, key := range keys {
		f.put(key, string(bytes.Repeat([]byte{byte(i)}, i*1000)))
	}
	res := f.read(store.Range{Start: "\x00"})
	if len(res.KVs) != len(keys) {
		t.Fatalf("%d keys, want %d", len(res.KVs), len(keys))
	}
	for i, kv := range res.KVs {
		f.equal("key", kv.Key, keys[i])
		if !bytes.Equal(kv.Value, bytes.Repeat([]byte{byte(i)}, i*1000)) {
			t.Errorf("value of %q differs", keys[i])
		}
	}
	f.put("big", string(bytes.Repeat([]byte("k"), 1<<20)))
	kv, _ := f.get("big")
	f.equal("length of a big value", len(kv.Value), 1<<20)
}

func testTTL(t *testing.T, f *fixture) {
	r := f.commit(store.Txn{Ops: []store.Op{
		{Key: "short", Value: []byte("x"), TTL: 1},
		{Key: "renewed", Value: []byte("x"), TTL: 1},
		{Key: "kept", Value: []byte("x"), TTL: 1},
		{Key: "long", Value: []byte("x"), TTL: 3600},
	}}).Revision
	f.commit(store.Txn{Ops: []store.Op{{Key: "renewed", Value: []byte("y"), TTL: 3600}}})
	last := f.commit(store.Txn{Ops: []store.Op{{Key: "kept", Value: []byte("y")}}}).Revision
	kv, _ := f.get("long")
	f.equal("TTL", kv.TTL, int64(3600))
	kv, _ = f.get("kept")
	f.equal("no TTL", kv.TTL, int64(0))
	w := f.watch("", "", r)
	events := w.next(3)
	f.equal("expiry", text(events[2]), fmt.Sprintf("%d delete short was x@%d", last+1, r))
	f.equal("what is left", pairs(f.read(store.Range{}).KVs), []string{"kept=y", "long=x", "renewed=y"})
	// A put after the expiry is a new incarnation.
	again := f.put("short", "z")
	kv, _ = f.get("short")
	f.equal("again", kv, store.KeyValue{Key: "short", Value: []byte("z"), CreateRevision: again, ModRevision: again, Version: 1})
	_ = t
}

// testCounter has many writers raise one number by compare-and-swap.
func testCounter(t *testing.T, f *fixture) {
	const writers, rounds = 8, 20
	f.put("n", "\x00")
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				if !raise(f.ctx, t, f.s) {
					return
				}
			}
		})
	}
	wg.Wait()
	kv, _ := f.get("n")
	f.equal("sum", int(kv.Value[0]), writers*rounds)
	f.equal("version", kv.Version, int64(writers*rounds+1))
}

func raise(ctx context.Context, t *testing.T, s store.Store) bool {
	kv, _, _, err := s.Get(ctx, "n")
	for err == nil {
		var res *store.TxnResult
		res, err = s.Commit(ctx, store.Txn{
			Guards: []store.Guard{{Key: "n", ModRevision: kv.ModRevision}},
			Ops:    []store.Op{{Key: "n", Value: []byte{kv.Value[0] + 1}}},
		})
		if err == nil && res.Succeeded {
			return true
		}
		if err == nil {
			kv = res.Current[0]
		}
	}
	t.Errorf("raise: %v", err)
	return false
}

func testClose(t *testing.T, f *fixture) {
	f.put("a", "1")
	ch, err := f.s.Watch(f.ctx, store.Watch{Start: "a", End: "b", After: f.revision()})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	var last error
	for open := true; open; {
		var b store.Batch
		select {
		case b, open = <-ch:
			if open {
				last = b.Err
			}
		case <-deadline:
			t.Fatal("the watch of a closed store stays open")
		}
	}
	f.fails("watch", last, store.ErrClosed)
	_, _, _, err = f.s.Get(f.ctx, "a")
	f.fails("get", err, store.ErrClosed)
	_, err = f.s.Range(f.ctx, store.Range{})
	f.fails("range", err, store.ErrClosed)
	_, err = f.s.Commit(f.ctx, store.Txn{Ops: []store.Op{{Key: "a"}}})
	f.fails("commit", err, store.ErrClosed)
	_, err = f.s.Watch(f.ctx, store.Watch{})
	f.fails("watch", err, store.ErrClosed)
	f.fails("compact", f.s.Compact(f.ctx, 1), store.ErrClosed)
	f.fails("progress", f.s.Progress(f.ctx), store.ErrClosed)
	_, err = f.s.Revision(f.ctx)
	f.fails("revision", err, store.ErrClosed)
	if err := f.s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}
