// SPDX-License-Identifier: Apache-2.0

package pebble_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kaji/internal/store"
	"kaji/internal/store/pebble"
	"kaji/internal/vfs"
)

// childDir tells the test binary to be the process that is killed.
const childDir = "KAJI_STORE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := writeForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

const crashWriters = 16

// writeForever has writers count up, each under its own key, and prints every
// acknowledged count.
func writeForever(dir string) error {
	s, err := pebble.Open(pebble.Config{Dir: dir, MemTableBytes: 256 << 10, History: 50 * time.Millisecond})
	if err != nil {
		return err
	}
	fails := make(chan error, crashWriters)
	var out sync.Mutex
	for w := range crashWriters {
		go func() {
			for n := 1; ; n++ {
				_, err := s.Commit(context.Background(), put(fmt.Sprintf("/w/%02d", w), fmt.Sprintf("%d %01000d", n, n)))
				if err != nil {
					fails <- err
					return
				}
				out.Lock()
				_, err = fmt.Println(w, n)
				out.Unlock()
				if err != nil {
					fails <- err
					return
				}
			}
		}()
	}
	return <-fails
}

func put(key, value string) store.Txn {
	return store.Txn{Ops: []store.Op{{Key: key, Value: []byte(value)}}}
}

// TestKill kills a process under load, again and again in the same directory:
// what it had acknowledged is there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	for round := range 4 {
		acked := killed(t, dir, 2000+1000*round)
		s := open(t, pebble.Config{Dir: dir})
		for w, n := range acked {
			kv, found, _, err := s.Get(t.Context(), fmt.Sprintf("/w/%02d", w))
			if err != nil || !found {
				t.Fatalf("writer %d: acknowledged %d, found %v, %v", w, n, found, err)
			}
			var got int
			if _, err := fmt.Sscan(string(kv.Value), &got); err != nil {
				t.Fatal(err)
			}
			// One write may have been on its way.
			if got != n && got != n+1 {
				t.Fatalf("writer %d: acknowledged %d, found %d", w, n, got)
			}
		}
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killed runs the writing process until it has acknowledged so many writes,
// kills it, and returns the last count each writer acknowledged.
func killed(t *testing.T, dir string, writes int) map[int]int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked, lines := map[int]int{}, bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		var w, count int
		if _, err := fmt.Sscan(lines.Text(), &w, &count); err != nil {
			break // a line cut off by the kill
		}
		acked[w] = count
		if n == writes {
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if len(acked) == 0 {
		t.Fatal("the process wrote nothing")
	}
	return acked
}

// TestPowerCut crashes the disk under load: only synced bytes survive for sure,
// of the others a random part.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(12) {
		disk := vfs.NewMem()
		s := open(t, pebble.Config{Dir: "data", FS: disk, MemTableBytes: 64 << 10, History: 20 * time.Millisecond})
		var acked [8]atomic.Int64
		enough := make(chan struct{})
		var wg sync.WaitGroup
		for w := range acked {
			wg.Go(func() {
				for n := int64(1); n <= 200; n++ {
					if _, err := s.Commit(t.Context(), put(fmt.Sprint(w), fmt.Sprintf("%d %0200d", n, n))); err != nil {
						t.Errorf("commit: %v", err)
						return
					}
					if acked[w].Store(n); w == 0 && n == 100 {
						close(enough)
					}
				}
			})
		}
		<-enough
		var before [8]int64
		for w := range acked {
			before[w] = acked[w].Load()
		}
		after := disk.CrashClone(vfs.Crash{UnsyncedDataPercent: int(seed%3) * 40, RNG: rand.New(rand.NewPCG(seed, 0))})
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, pebble.Config{Dir: "data", FS: after})
		for w, n := range before {
			kv, _, _, err := s.Get(t.Context(), fmt.Sprint(w))
			if err != nil {
				t.Fatal(err)
			}
			var got int64
			if _, err := fmt.Sscan(string(kv.Value), &got); n > 0 && err != nil || got < n {
				t.Fatalf("seed %d, writer %d: acknowledged %d, found %d (%v)", seed, w, n, got, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// fill writes a store of several tables and closes it.
func fill(t *testing.T, dir string) {
	t.Helper()
	s := open(t, pebble.Config{Dir: dir, MemTableBytes: 64 << 10})
	value, noise := make([]byte, 2000), rand.NewChaCha8([32]byte{})
	for i := range 400 {
		if _, err := noise.Read(value); err != nil { // incompressible
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), put(fmt.Sprintf("/k/%03d", i), string(value))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return names
}

func TestTornLogTail(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	logs := files(t, dir, "*.log")
	f, err := os.OpenFile(logs[len(logs)-1], os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("half a record, never acknowledged")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, pebble.Config{Dir: dir})
	defer s.Close()
	res, err := s.Range(t.Context(), store.Range{Start: "/k/"})
	if err != nil || res.Count != 400 {
		t.Fatalf("%v: %+v", err, res)
	}
	if _, err := s.Commit(t.Context(), put("/k/new", "x")); err != nil {
		t.Fatal(err)
	}
}

// TestDamage damages each kind of file: Open names the file, and says what to do.
func TestDamage(t *testing.T) {
	for pattern, damage := range map[string]func(string) error{
		"*.sst": flip,
		"MANIFEST-*": func(name string) error {
			return os.Truncate(name, 20)
		},
		"0*.sst": os.Remove,
	} {
		t.Run(pattern, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir)
			names := files(t, dir, pattern)
			name := names[len(names)-1]
			if err := damage(name); err != nil {
				t.Fatal(err)
			}
			s, err := pebble.Open(pebble.Config{Dir: dir})
			if err == nil {
				s.Close()
				t.Fatal("a damaged store was opened")
			}
			var corrupt *pebble.CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("got %v", err)
			}
			if filepath.Base(corrupt.File) != filepath.Base(name) {
				t.Errorf("the error names %s, the damage is in %s: %v", corrupt.File, name, err)
			}
			if !strings.Contains(err.Error(), "kaji store restore") {
				t.Errorf("the error does not say what to do: %v", err)
			}
		})
	}
}

// flip changes one bit in the middle of a file.
func flip(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 4
	return os.WriteFile(name, b, 0o600)
}

func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, pebble.Config{Dir: dir})
	defer s.Close()
	if _, err := pebble.Open(pebble.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("opened twice: %v", err)
	}
}

// TestFullDisk fills the disk under a store that is in use.
func TestFullDisk(t *testing.T) {
	var full atomic.Bool
	disk := vfs.Inject(vfs.NewMem(), func(op vfs.Op) error {
		if full.Load() && vfs.Writes(op) {
			return syscall.ENOSPC
		}
		return nil
	})
	s := open(t, pebble.Config{Dir: "data", FS: disk})
	if _, err := s.Commit(t.Context(), put("a", "1")); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if _, err := s.Commit(t.Context(), put("a", "2")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("commit on a full disk: %v", err)
	}
	if _, err := s.Commit(t.Context(), put("b", "1")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("another commit: %v", err)
	}
	if err := s.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("readiness: %v", err)
	}
	kv, found, _, err := s.Get(t.Context(), "a")
	if err != nil || !found || string(kv.Value) != "1" {
		t.Fatalf("a read meanwhile: %+v %v %v", kv, found, err)
	}
	full.Store(false)
	deadline := time.Now().Add(30 * time.Second)
	for s.Err() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("no recovery: %v", s.Err())
		}
		_, _, _, _ = s.Get(t.Context(), "a")
	}
	if _, err := s.Commit(t.Context(), put("a", "3")); err != nil {
		t.Fatalf("after recovery: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, pebble.Config{Dir: "data", FS: disk})
	defer s.Close()
	if kv, _, _, err = s.Get(t.Context(), "a"); err != nil || string(kv.Value) != "3" {
		t.Fatalf("after a restart: %+v %v", kv, err)
	}
}

// TestFailedDisk: a log that cannot be synced ends the writes for good, reads
// go on, and a restart has all that was acknowledged.
func TestFailedDisk(t *testing.T) {
	var broken atomic.Bool
	mem := vfs.NewMem()
	disk := vfs.Inject(mem, func(op vfs.Op) error {
		if broken.Load() && vfs.Writes(op) {
			return syscall.EIO
		}
		return nil
	})
	s := open(t, pebble.Config{Dir: "data", FS: disk})
	if _, err := s.Commit(t.Context(), put("a", "1")); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	for range 2 {
		if _, err := s.Commit(t.Context(), put("a", "2")); err == nil {
			t.Fatal("a commit on a broken disk succeeded")
		}
	}
	broken.Store(false)
	if _, err := s.Commit(t.Context(), put("a", "3")); err == nil {
		t.Fatal("a commit after a failed sync succeeded")
	}
	if kv, _, _, err := s.Get(t.Context(), "a"); err != nil || string(kv.Value) != "1" {
		t.Fatalf("read: %+v %v", kv, err)
	}
	clone := mem.CrashClone(vfs.Crash{})
	_ = s.Close() // it may report the failure again
	s = open(t, pebble.Config{Dir: "data", FS: clone})
	defer s.Close()
	if kv, _, _, err := s.Get(t.Context(), "a"); err != nil || string(kv.Value) != "1" {
		t.Fatalf("after a restart: %+v %v", kv, err)
	}
}
