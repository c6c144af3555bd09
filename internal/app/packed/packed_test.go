// SPDX-License-Identifier: Apache-2.0

package packed

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// pack returns this test's own executable, packed.
func pack(t *testing.T) (string, Program) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := Pack(self)
	if err != nil {
		t.Fatal(err)
	}
	return self, example(data)
}

func TestPath(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	self, p := pack(t)
	path, err := p.Path()
	if err != nil {
		t.Fatal(err)
	}
	same(t, self, path)
	// What a crash left empty is unpacked again.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if again, err := p.Path(); err != nil || again != path {
		t.Fatal(again, err)
	}
	same(t, self, path)
	if err := RemoveCache(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cache, "kaji")); err == nil {
		t.Error("the cache is still there")
	}
}

// TestCacheDir takes a directory of one's own and none that others can write to.
func TestCacheDir(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", base)
	dir := filepath.Join(base, "kaji")
	plants := map[string]func() error{
		"others may write": func() error { return os.Chmod(dir, 0o777) },
		"a link":           func() error { return errors.Join(os.Rename(dir, dir+"-moved"), os.Symlink(dir+"-moved", dir)) },
	}
	if os.Getuid() == 0 {
		plants["another's"] = func() error { return os.Chown(dir, 1, -1) }
	}
	for what, plant := range plants {
		for range 2 { // made, and found again
			if _, err := cacheDir(); err != nil {
				t.Fatal(err)
			}
		}
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if got, err := cacheDir(); err == nil {
			t.Errorf("%s: took %s", what, got)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func example(data []byte) Program {
	files := fstest.MapFS{"example.zst": {Data: data}}
	return Program{Name: "example", Data: func() (fs.File, error) { return files.Open("example.zst") }}
}

func same(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Errorf("%s differs from %s", b, a)
	}
}

func TestMatches(t *testing.T) {
	self, p := pack(t)
	if !p.Matches(self) {
		t.Error("the packed file itself does not match")
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, make([]byte, 1<<10), 0o755); err != nil {
		t.Fatal(err)
	}
	if p.Matches(other) {
		t.Error("another file matches")
	}
	if example([]byte("not packed")).Matches(self) {
		t.Error("data without a head match")
	}
}

// TestExec replaces a process of its own, with a cache and without one.
func TestExec(t *testing.T) {
	if os.Getenv("PACKED_TEST") == "exec" {
		_, p := pack(t)
		t.Fatal(p.Exec([]string{"renamed", "-test.run=^TestExec$"}, []string{"PACKED_TEST=arrived"}))
	}
	if os.Getenv("PACKED_TEST") == "arrived" {
		os.Stdout.WriteString("arrived as " + os.Args[0] + "\n")
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, cache := range map[string]string{"cache": t.TempDir(), "memory": "/proc/nowhere"} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(self, "-test.run=^TestExec$")
			cmd.Env = append(os.Environ(), "PACKED_TEST=exec", "XDG_CACHE_HOME="+cache)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "arrived as renamed\n") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
