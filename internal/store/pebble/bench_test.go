// SPDX-License-Identifier: Apache-2.0

package pebble_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"kaji/internal/store"
	"kaji/internal/store/pebble"
)

func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s, err := pebble.Open(pebble.Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			value := make([]byte, 2<<10)
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism((writers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			if writers == 1 {
				for b.Loop() {
					write(b, s, n.Add(1), value)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					write(b, s, n.Add(1), value)
				}
			})
		})
	}
}

func write(b *testing.B, s store.Store, n int64, value []byte) {
	key := fmt.Sprintf("/registry/pods/default/pod-%06d", n%10000)
	if _, err := s.Commit(context.Background(), store.Txn{Ops: []store.Op{{Key: key, Value: value}}}); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkRange10000(b *testing.B) {
	s, err := pebble.Open(pebble.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 4<<10)
	for i := range 100 {
		var t store.Txn
		for j := range 100 {
			t.Ops = append(t.Ops, store.Op{Key: fmt.Sprintf("/registry/pods/%02d/%02d", j, i), Value: value})
		}
		if _, err := s.Commit(b.Context(), t); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		res, err := s.Range(b.Context(), store.Range{Start: "/"})
		if err != nil || len(res.KVs) != 10000 {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s, err := pebble.Open(pebble.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := range int64(10000) {
		write(b, s, i, make([]byte, 2<<10))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i += 7
		if _, _, _, err := s.Get(b.Context(), fmt.Sprintf("/registry/pods/default/pod-%06d", i%10000)); err != nil {
			b.Fatal(err)
		}
	}
}
