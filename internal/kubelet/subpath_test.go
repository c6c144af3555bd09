// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"os"
	"path/filepath"
	"testing"

	"kaji/internal/kubelet/volume"
)

// Directories of a sub-path are as the volume is: a volume in memory is sticky,
// one with an fsGroup gives its group on.
func TestSubPathsMode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it mounts")
	}
	dir, mounter := t.TempDir(), volume.Kernel{}
	k := &Kubelet{cfg: Config{RootDir: t.TempDir(), Mounter: mounter}}
	if err := mounter.Tmpfs(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mounter.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	group := int64(123)
	if err := (volume.Request{FSGroup: &group}).Own(dir, nil); err != nil {
		t.Fatal(err)
	}
	target, err := k.subPath("u", "c", 0, "v", dir, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mounter.Unmount(target); err != nil {
			t.Error(err)
		}
	})
	for _, path := range []string{dir, filepath.Join(dir, "a"), target} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().String(); got != "dgtrwxrwxrwx" {
			t.Errorf("%s is %s", path, got)
		}
	}
}
