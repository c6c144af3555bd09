// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"testing"

	"kaji/internal/store"
)

func testRange(t *testing.T, f *fixture) {
	for _, key := range []string{"/b/2", "/a", "/b/1", "/c", "/b", "/b/10", "/b0"} {
		f.put(key, "x")
	}
	for _, c := range []struct {
		start, end string
		want       []string
	}{
		{"/b/", store.PrefixEnd("/b/"), []string{"/b/1=x", "/b/10=x", "/b/2=x"}},
		{"/b/1", "/b/2", []string{"/b/1=x", "/b/10=x"}},
		{"/b", "/b\x00", []string{"/b=x"}},
		{"/b0", "", []string{"/b0=x", "/c=x"}},
		{"", "/b", []string{"/a=x"}},
		{"/d", "", []string{}},
		{"/c", "/a", []string{}},
	} {
		res := f.read(store.Range{Start: c.start, End: c.end})
		what := fmt.Sprintf("[%q,%q)", c.start, c.end)
		f.equal(what, pairs(res.KVs), c.want)
		f.equal(what+" count", res.Count, int64(len(c.want)))
		f.equal(what+" revision", res.Revision, f.revision())
		res = f.read(store.Range{Start: c.start, End: c.end, CountOnly: true})
		f.equal(what+" count only", *res, store.RangeResult{Count: int64(len(c.want)), Revision: f.revision()})
	}
	_ = t
}

func testRangeLimit(t *testing.T, f *fixture) {
	const n = 25
	for i := range n {
		f.put(fmt.Sprintf("/k/%02d", i), fmt.Sprint(i))
	}
	revision := f.revision()
	start, end, seen := "/k/", store.PrefixEnd("/k/"), 0
	for {
		res := f.read(store.Range{Start: start, End: end, Limit: 10, Revision: revision})
		f.equal("count", res.Count, int64(n-seen))
		for _, kv := range res.KVs {
			f.equal("key", kv.Key, fmt.Sprintf("/k/%02d", seen))
			seen++
		}
		if !res.More() {
			break
		}
		f.equal("page", len(res.KVs), 10)
		start = res.KVs[len(res.KVs)-1].Key + "\x00"
		// What is written meanwhile is not seen at the old revision.
		f.put(fmt.Sprintf("/k/%02d-new", seen), "new")
		f.delete(fmt.Sprintf("/k/%02d", n-1))
	}
	f.equal("seen", seen, n)
	_ = t
}

func testRangeOldRevision(t *testing.T, f *fixture) {
	r1 := f.put("a", "1")
	r2 := f.put("b", "1")
	r3 := f.put("a", "2")
	r4 := f.delete("b")
	r5 := f.put("b", "2")
	for revision, want := range map[int64][]string{
		r1: {"a=1"}, r2: {"a=1", "b=1"}, r3: {"a=2", "b=1"}, r4: {"a=2"}, r5: {"a=2", "b=2"}, 0: {"a=2", "b=2"},
	} {
		res := f.read(store.Range{Start: "a", End: "c", Revision: revision})
		f.equal(fmt.Sprintf("at %d", revision), pairs(res.KVs), want)
		f.equal("revision", res.Revision, r5)
	}
	res := f.read(store.Range{Start: "a", End: "b", Revision: r3})
	f.equal("a at its second revision", res.KVs, []store.KeyValue{
		{Key: "a", Value: []byte("2"), CreateRevision: r1, ModRevision: r3, Version: 2}})
	_ = t
}

func testRangeRevisionErrors(t *testing.T, f *fixture) {
	f.put("a", "1")
	r := f.put("a", "2")
	_, err := f.s.Range(f.ctx, store.Range{Start: "a", Revision: r + 1})
	f.fails("future", err, store.ErrFutureRevision)
	f.compact(r)
	_, err = f.s.Range(f.ctx, store.Range{Start: "a", Revision: r - 1})
	f.fails("compacted", err, store.ErrCompacted)
	f.equal("at the compacted revision", pairs(f.read(store.Range{Start: "a", Revision: r}).KVs), []string{"a=2"})
	_ = t
}

func testCompact(t *testing.T, f *fixture) {
	f.put("a", "1")
	r2 := f.put("a", "2")
	f.put("b", "1")
	r4 := f.put("a", "3")
	f.fails("future", f.s.Compact(f.ctx, r4+1), store.ErrFutureRevision)
	f.compact(r2)
	f.fails("again", f.s.Compact(f.ctx, r2), store.ErrCompacted)
	f.fails("backwards", f.s.Compact(f.ctx, r2-1), store.ErrCompacted)
	f.equal("at it", pairs(f.read(store.Range{Start: "a", Revision: r2}).KVs), []string{"a=2"})
	f.equal("after it", pairs(f.read(store.Range{Start: "a", Revision: r2 + 1}).KVs), []string{"a=2", "b=1"})
	f.equal("newest", pairs(f.read(store.Range{Start: "a"}).KVs), []string{"a=3", "b=1"})
	f.compact(r4)
	f.equal("newest still", pairs(f.read(store.Range{Start: "a", Revision: r4}).KVs), []string{"a=3", "b=1"})
	kv, _ := f.get("a")
	f.equal("version survives", kv.Version, int64(3))
	f.equal("writes go on", f.put("a", "4"), r4+1)
	_ = t
}

func testCompactForgetsDeleted(t *testing.T, f *fixture) {
	f.put("a", "1")
	r2 := f.delete("a")
	f.compact(r2)
	f.equal("nothing", len(f.read(store.Range{}).KVs), 0)
	f.equal("the revision stays", f.revision(), r2)
	r3 := f.put("a", "2")
	f.equal("next revision", r3, r2+1)
	kv, _ := f.get("a")
	f.equal("new incarnation", kv, store.KeyValue{Key: "a", Value: []byte("2"), CreateRevision: r3, ModRevision: r3, Version: 1})
	w := f.watch("a", "b", r2)
	f.equal("watch from the compacted revision", text(w.next(1)[0]), fmt.Sprintf("%d a=2 was @0", r3))
	_ = t
}
