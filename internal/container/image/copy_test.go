// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWithoutOverlay mounts root file systems where the kernel has no overlayfs,
// with fuse-overlayfs and without.
func TestWithoutOverlay(t *testing.T) {
	for _, kind := range []string{"fuse-overlayfs", "copy"} {
		t.Run(kind, func(t *testing.T) {
			if kind == "copy" {
				t.Setenv("PATH", t.TempDir())
			} else if _, err := exec.LookPath(kind); err != nil {
				t.Fatal("fuse-overlayfs is not installed: make test does that")
			}
			s := newStore(t)
			s.overlay = func([]string, string, string, string, string) error { return os.NewSyscallError("fsopen", unix.ENODEV) }
			stacked := imageOf(t, layerOf(t, map[string]string{"a": "1", "gone": "1", "dir/old": "1", "dir/kept": "1"}),
				layerOf(t, map[string]string{"a": "2", ".wh.gone": "", "dir/.wh.old": "", "new/x": "2"}))
			img, err := s.add(t.Context(), stacked, []string{"localhost/stacked:v1"}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Hold(img.DiffIDs)()
			dir := t.TempDir()
			m := Rootfs{Layers: img.DiffIDs, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Target: filepath.Join(dir, "rootfs")}
			shows := func(target string, want map[string]string) {
				t.Helper()
				for path, text := range want {
					raw, err := os.ReadFile(filepath.Join(target, path))
					if text == "" && !errors.Is(err, os.ErrNotExist) || text != "" && string(raw) != text {
						t.Errorf("%s: %q, %v; want %q", path, raw, err, text)
					}
				}
			}
			image := map[string]string{"a": "2", "gone": "", "dir/old": "", "dir/kept": "1", "new/x": "2"}
			if err := s.Mount(m); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = Unmount(m.Target) })
			shows(m.Target, image)
			if err := errors.Join(os.WriteFile(filepath.Join(m.Target, "own"), []byte("mine"), 0o644), os.Remove(filepath.Join(m.Target, "dir/kept"))); err != nil {
				t.Fatal(err)
			}
			// A container that was created, and not started, is mounted anew after a restart.
			if err := errors.Join(Unmount(m.Target), os.RemoveAll(m.Work), s.Mount(m)); err != nil {
				t.Fatal(err)
			}
			image["own"], image["dir/kept"] = "mine", ""
			shows(m.Target, image)
			volume := Rootfs{Layers: img.DiffIDs, Target: filepath.Join(dir, "volume")}
			if err := s.Mount(volume); err != nil {
				t.Fatal(err)
			}
			image["own"], image["dir/kept"] = "", "1"
			shows(volume.Target, image)
			if err := os.WriteFile(filepath.Join(volume.Target, "a"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing to a volume: %v", err)
			}
			if err := errors.Join(Unmount(volume.Target), Unmount(m.Target)); err != nil {
				t.Fatal(err)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*.copy")); err != nil || len(left) > 0 {
				t.Errorf("left: %q, %v", left, err)
			}
			if _, err := os.Stat(filepath.Join(s.LayerPath(img.DiffIDs[0]), "own")); err == nil {
				t.Error("the image has changed")
			}
		})
	}
}
