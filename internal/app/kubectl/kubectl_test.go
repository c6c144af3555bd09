// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPrivate takes a directory of one's own and none that others can write to.
func TestPrivate(t *testing.T) {
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	dir, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cacheDir(); err != nil {
		t.Errorf("the second time: %v", err)
	}
	first := filepath.Dir(dir)
	for what, plant := range map[string]func() error{
		"others may write": func() error { return os.Chmod(first, 0o777) },
		"another's": func() error {
			return os.Chown(first, os.Getuid()+1, -1) // as root
		},
		"a link": func() error {
			if err := os.Rename(first, first+"-moved"); err != nil {
				return err
			}
			return os.Symlink(first+"-moved", first)
		},
	} {
		if os.Getuid() != 0 && what == "another's" {
			continue
		}
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if got, err := cacheDir(); err == nil {
			t.Errorf("%s: took %s", what, got)
		}
		if err := os.RemoveAll(first); err != nil {
			t.Fatal(err)
		}
		if _, err := cacheDir(); err != nil {
			t.Fatal(err)
		}
	}
}
