// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kaji/internal/container/layer"
)

// nothingLeft checks that a failed pull left neither images nor files.
func nothingLeft(t *testing.T, s *Store) {
	t.Helper()
	if images := s.List(); len(images) > 0 {
		t.Errorf("images are there: %v", images)
	}
	for _, kind := range []string{"tmp", "layers", "blobs", "records"} {
		entries, err := os.ReadDir(filepath.Join(s.cfg.Root, kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			// Layers that came whole may stay until the next sweep, halves may not.
			if kind == "tmp" || kind == "records" {
				t.Errorf("%s/%s is left", kind, e.Name())
			}
		}
	}
}

// TestFullDisk pulls an image that does not fit: the pull fails, says why, leaves
// no half of anything, and a smaller image can still be had.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	noise := make([]byte, 3<<20)
	_, _ = rand.Read(noise)
	text := hex.EncodeToString(noise) // twice the size when it is unpacked
	host := serve(t, plain)
	push(t, host+"/x/announced:v1", imageOf(t, layerOf(t, map[string]string{"f": text + text})))
	push(t, host+"/x/unpacked:v1", imageOf(t, layerOf(t, map[string]string{"f": strings.Repeat("a", 8<<20)})))
	push(t, host+"/x/small:v1", imageOf(t, layerOf(t, map[string]string{"f": "small"})))
	s := newStore(t, func(c *Config) { c.Root = filepath.Join(disk, "images") })
	for _, name := range []string{"announced", "unpacked"} {
		if _, err := s.Pull(t.Context(), host+"/x/"+name+":v1", Auth{}); err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s: %v, want that no space is left", name, err)
		}
		nothingLeft(t, s)
	}
	if _, err := s.Pull(t.Context(), host+"/x/small:v1", Auth{}); err != nil {
		t.Errorf("a small image afterwards: %v", err)
	}
}

// TestBomb pulls layers that are small on the way and huge, or very many files,
// when they are unpacked.
func TestBomb(t *testing.T) {
	files := map[string]string{}
	for range 200 {
		name := make([]byte, 8)
		_, _ = rand.Read(name)
		files[hex.EncodeToString(name)] = ""
	}
	host := serve(t, plain)
	push(t, host+"/x/bytes:v1", imageOf(t, layerOf(t, map[string]string{"f": strings.Repeat("0", 4<<20)})))
	push(t, host+"/x/files:v1", imageOf(t, layerOf(t, files)))
	s := newStore(t, func(c *Config) { c.Limits = layer.Limits{Bytes: 1 << 20, Inodes: 100} })
	for name, want := range map[string]string{"bytes": "more than 1048576 bytes", "files": "more than 100 files"} {
		if _, err := s.Pull(t.Context(), host+"/x/"+name+":v1", Auth{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		nothingLeft(t, s)
	}
}
