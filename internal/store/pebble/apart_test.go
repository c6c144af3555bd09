// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"fmt"
	"testing"

	"kaji/internal/store"
)

// No table holds records and values, however often tables were merged.
func TestApart(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir(), MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 4<<10)
	for i := range 300 {
		op := store.Op{Key: fmt.Sprintf("/registry/pods/%d", i%50), Value: value}
		if _, err := s.Commit(t.Context(), store.Txn{Ops: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
		if i == 100 || i == 200 {
			if err := s.Compact(t.Context(), int64(i)); err != nil {
				t.Fatal(err)
			}
			if err := s.Defragment(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	levels, err := s.db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for _, level := range levels {
		for i := range level {
			tables++
			if first, last := level[i].Smallest.UserKey, level[i].Largest.UserKey; first[0] != last[0] {
				t.Errorf("a table from %q to %q", first, last)
			}
		}
	}
	if tables < 2 {
		t.Errorf("%d tables", tables)
	}
}
