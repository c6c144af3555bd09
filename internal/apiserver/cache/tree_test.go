// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// check fails when a subtree is out of order, out of balance or miscounted.
func (n *node) check(t *testing.T) {
	if n == nil {
		return
	}
	l, r := n.left.len()+1, n.right.len()+1
	if n.size != l+r-1 || l > balance*r || r > balance*l {
		t.Fatalf("node %s: size %d over %d and %d", n.key, n.size, l-1, r-1)
	}
	n.left.check(t)
	n.right.check(t)
}

// The tree answers as a sorted map does after any sequence of changes, and old
// roots are not touched by later changes.
func TestTreeAgainstMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var root *node
	model := map[string]*Entry{}
	for step := range 3000 {
		key := fmt.Sprintf("%03d", random.IntN(300))
		before, size := root, root.len()
		if random.IntN(3) == 0 {
			root = root.remove(key)
			delete(model, key)
		} else {
			e := &Entry{Key: key}
			root = root.put(key, e)
			model[key] = e
		}
		if before.len() != size {
			t.Fatalf("step %d changed the old root", step)
		}
		if step%50 != 0 {
			continue
		}
		root.check(t)
		keys := slices.Sorted(maps.Keys(model))
		var got []string
		root.ascend("", "", func(n *node) bool { got = append(got, n.key); return n.entry == model[n.key] })
		if !slices.Equal(got, keys) {
			t.Fatalf("step %d: got %v, want %v", step, got, keys)
		}
		below, _ := slices.BinarySearch(keys, key)
		if got := root.count(key); got != below {
			t.Fatalf("step %d: %d keys below %s, want %d", step, got, key, below)
		}
	}
}

func TestTreeRange(t *testing.T) {
	var entries []*Entry
	for i := range 100 {
		entries = append(entries, &Entry{Key: fmt.Sprintf("%02d", i)})
	}
	root := build(entries)
	root.check(t)
	var got []string
	root.ascend("17", "20", func(n *node) bool { got = append(got, n.key); return true })
	if want := []string{"17", "18", "19"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
