// SPDX-License-Identifier: Apache-2.0

package local

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"kaji/internal/app/home"
)

// TestRemoveMountedData empties a data directory that is a mount point, unmounts
// what is mounted in it, and says that the directory itself stays; any other goes.
func TestRemoveMountedData(t *testing.T) {
	for _, mounted := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "data")
		outside := t.TempDir()
		if err := os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if mounted {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
				t.Fatalf("this test needs root: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		}
		inner := filepath.Join(dir, "kubelet", "volume")
		if err := os.MkdirAll(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(outside, inner, "", unix.MS_BIND, ""); err != nil {
			t.Fatalf("this test needs root: %v", err)
		}
		kept, err := removeData(Cluster{Name: "x", Dir: home.Dir(dir)})
		if err != nil || kept != mounted {
			t.Errorf("mounted %t: kept %t, %v", mounted, kept, err)
		}
		left, err := os.ReadDir(dir)
		if mounted && (err != nil || len(left) > 0) || !mounted && !os.IsNotExist(err) {
			t.Errorf("mounted %t: %v is left (%v)", mounted, left, err)
		}
		if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
			t.Errorf("mounted %t: what was mounted is gone: %v", mounted, err)
		}
	}
}
