// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kaji/internal/vfs"
)

func put(text string, err error) func(io.Writer) error {
	return func(w io.Writer) error {
		if _, werr := io.WriteString(w, text); werr != nil {
			return werr
		}
		return err
	}
}

func read(t *testing.T, fs vfs.FS, name string) string {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		return fmt.Sprint(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWriteFileIsAllOrNothing(t *testing.T) {
	fs := vfs.NewMem()
	if err := vfs.WriteFile(fs, "a", put("one", nil)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := vfs.WriteFile(fs, "a", put("two", broken)); !errors.Is(err, broken) {
		t.Fatalf("got %v, want the writer's error", err)
	}
	if got := read(t, fs, "a"); got != "one" {
		t.Fatalf("after a failed write: %q", got)
	}
	if err := vfs.WriteFile(fs, "a", put("three", nil)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, fs.CrashClone(vfs.Crash{}), "a"); got != "three" {
		t.Fatalf("after a crash: %q", got)
	}
	names, err := fs.List("")
	if err != nil || len(names) != 1 {
		t.Fatalf("left behind: %v %v", names, err)
	}
}

func TestPatientWaitsForSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		mem := vfs.NewMem()
		p := vfs.NewPatient(vfs.Inject(mem, func(op vfs.Op) error {
			if full.Load() && vfs.Writes(op) {
				return syscall.ENOSPC
			}
			return nil
		}), time.Second)
		f, err := p.Create("log", "")
		if err != nil {
			t.Fatal(err)
		}
		full.Store(true)
		done := make(chan error, 1)
		go func() {
			_, err := f.Write([]byte("kept"))
			done <- err
		}()
		<-p.Stalled()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("the write ended on a full disk: %v", err)
		default:
		}
		full.Store(false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-p.Stalled():
			t.Fatal("still stalled")
		default:
		}
		if got := read(t, mem, "log"); got != "kept" {
			t.Fatalf("got %q", got)
		}

		full.Store(true)
		go func() {
			_, err := f.Write([]byte("lost"))
			done <- err
		}()
		<-p.Stalled()
		p.GiveUp()
		if err := <-done; !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("got %v, want the disk's error", err)
		}
	})
}
