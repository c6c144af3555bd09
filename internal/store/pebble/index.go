// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"container/heap"

	"github.com/google/btree"

	"kaji/internal/store"
)

// index knows every key that has a version, in order. The caller locks.
type index struct {
	tree *btree.BTreeG[*entry]
}

// entry is one key: its newest version, and the superseded ones that are still
// history, oldest first. The newest may be a deletion while that is history.
type entry struct {
	key     string
	current version
	older   []version
}

func newIndex() index {
	return index{tree: btree.NewG(32, func(a, b *entry) bool { return a.key < b.key })}
}

// get returns the entry of a key, or nil.
func (x *index) get(key string) *entry {
	e, _ := x.tree.Get(&entry{key: key})
	return e
}

// put makes v the newest version of key and returns the key's entry and whether
// an older version was superseded.
func (x *index) put(key string, v version) (e *entry, superseded bool) {
	if e := x.get(key); e != nil {
		e.older = append(e.older, e.current)
		e.current = v
		return e, true
	}
	e = &entry{key: key, current: v}
	x.tree.ReplaceOrInsert(e)
	return e, false
}

// ascend calls f for the entries of [start, end) in order until it returns false.
func (x *index) ascend(start, end string, f func(*entry) bool) {
	if end == "" {
		x.tree.AscendGreaterOrEqual(&entry{key: start}, f)
		return
	}
	x.tree.AscendRange(&entry{key: start}, &entry{key: end}, f)
}

// at returns the version a read at revision sees, or nil.
func (e *entry) at(revision int64) *version {
	v := &e.current
	for i := len(e.older) - 1; v.revision > revision; i-- {
		if i < 0 {
			return nil
		}
		v = &e.older[i]
	}
	if v.deleted() {
		return nil
	}
	return v
}

// keyValue is a version as the interface shows it.
func (v *version) keyValue(key string, value []byte) store.KeyValue {
	return store.KeyValue{
		Key: key, Value: value, CreateRevision: v.create, ModRevision: v.revision, Version: v.count, TTL: v.ttl,
	}
}

// drop forgets one version of e, and the entry with its last one.
func (x *index) drop(e *entry, p place) {
	if e.current.place == p {
		x.tree.Delete(e)
		return
	}
	for i := range e.older {
		if e.older[i].place == p {
			e.older = append(e.older[:i], e.older[i+1:]...)
			break
		}
	}
	if len(e.older) == 0 {
		e.older = nil
	}
}

// garbage lists the versions to forget, in the order in which compaction
// reaches them.
type garbage struct {
	queue []corpse
	head  int
	bytes int64 // of their values
}

// corpse is a version of no use to reads at or after revision at.
type corpse struct {
	at int64
	place
	size  uint32
	entry *entry
}

func (g *garbage) push(c corpse) {
	g.queue = append(g.queue, c)
	g.bytes += int64(c.size)
}

// pop returns up to n corpses of compacted revisions.
func (g *garbage) pop(compacted int64, n int) []corpse {
	var out []corpse
	for len(out) < n && g.head < len(g.queue) && g.queue[g.head].at <= compacted {
		c := &g.queue[g.head]
		g.bytes -= int64(c.size)
		out = append(out, *c)
		*c = corpse{}
		g.head++
	}
	if g.head > len(g.queue)/2 {
		rest := copy(g.queue, g.queue[g.head:])
		clear(g.queue[rest:])
		g.queue, g.head = g.queue[:rest], 0
		if cap(g.queue) > 1024 && len(g.queue) < cap(g.queue)/4 {
			g.queue = append(make([]corpse, 0, 2*len(g.queue)), g.queue...)
		}
	}
	return out
}

// deadlines is a heap of the keys with a time to live, the next to expire
// first. A key put again since is recognized by its revision.
type deadlines []deadline

type deadline struct {
	expires int64 // Unix milliseconds
	place
	entry *entry
}

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].expires < d[j].expires }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	old := *d
	last := old[len(old)-1]
	old[len(old)-1] = deadline{}
	*d = old[:len(old)-1]
	return last
}

var _ heap.Interface = (*deadlines)(nil)

// add puts one version into the index with all that hangs on it: what it
// supersedes becomes garbage, its time to live a deadline. It returns whether
// that deadline is the nearest one.
func (s *Store) add(key string, v version) bool {
	x := &s.mu
	e, superseded := x.index.put(key, v)
	if superseded {
		old := &e.older[len(e.older)-1]
		if !old.deleted() {
			x.garbage.push(corpse{at: v.revision, place: old.place, size: old.size, entry: e})
		}
		if old.ttl > 0 {
			x.expiring -= int64(old.size)
		}
	}
	if v.deleted() {
		x.garbage.push(corpse{at: v.revision, place: v.place, entry: e})
	}
	if v.ttl == 0 {
		return false
	}
	x.expiring += int64(v.size)
	heap.Push(&x.deadlines, deadline{expires: v.expires, place: v.place, entry: e})
	return x.deadlines[0].place == v.place
}
