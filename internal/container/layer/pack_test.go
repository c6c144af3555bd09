// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPack changes files on an overlay of two layers and wants the changes, and
// what is gone, told.
func TestPack(t *testing.T) {
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	write := func(path, text string) error {
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	err := errors.Join(
		write(at("low", "kept"), "1"), write(at("low", "gone"), "1"), write(at("low", "dir", "a"), "1"), write(at("low", "dir", "sub", "deep"), "1"),
		write(at("low", "dir", "old"), "1"), write(at("low", "moved", "deep", "a"), "moved"), write(at("low", "moved", "b"), "1"), write(at("high", "dir", "b"), "1"), unix.Mknod(at("high", "dir", "old"), unix.S_IFCHR, 0),
		os.MkdirAll(at("upper"), 0o755), os.MkdirAll(at("work"), 0o755), os.MkdirAll(at("merged"), 0o755),
		unix.Mount("overlay", at("merged"), "overlay", 0, "redirect_dir=on,lowerdir="+at("high")+":"+at("low")+",upperdir="+at("upper")+",workdir="+at("work")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(at("merged"), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	err = errors.Join(os.Remove(at("merged", "gone")), os.Rename(at("merged", "moved"), at("merged", "there")), os.Remove(at("merged", "there", "b")), os.RemoveAll(at("merged", "dir")), write(at("merged", "dir", "b"), "new"),
		write(at("merged", "dir", "sub", "other"), "new"), write(at("merged", "new", "x"), "x"), os.Link(at("merged", "new", "x"), at("merged", "new", "y")),
		os.Symlink("x", at("merged", "new", "link")), unix.Setxattr(at("merged", "new", "x"), "user.color", []byte("red"), 0),
		os.Chown(at("merged", "new", "x"), 7, 8), unix.Mkfifo(at("merged", "new", "fifo"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	deleted, err := Pack(&out, at("upper"), []string{at("high"), at("low")}, at("merged"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(deleted)
	// dir/old was gone before; dir/sub is there again, with other content.
	if want := []string{"dir/a", "dir/sub/deep", "gone", "moved"}; !slices.Equal(deleted, want) {
		t.Errorf("deleted %q, want %q", deleted, want)
	}
	if err := os.Mkdir(at("again"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(at("again"), &out, DefaultLimits); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"dir/b": "new", "dir/sub/other": "new", "new/x": "x", "new/y": "x", "new/link": "x", "there/deep/a": "moved"} {
		if got, err := os.ReadFile(at("again", path)); string(got) != want {
			t.Errorf("%s has %q, %v", path, got, err)
		}
	}
	var st, other unix.Stat_t
	if err := errors.Join(unix.Stat(at("again", "new/x"), &st), unix.Stat(at("again", "new/y"), &other)); err != nil {
		t.Fatal(err)
	}
	color := make([]byte, 8)
	if n, err := unix.Getxattr(at("again", "new/x"), "user.color", color); err != nil || string(color[:n]) != "red" {
		t.Errorf("attribute %q, %v", color[:max(n, 0)], err)
	}
	if st.Uid != 7 || st.Gid != 8 || st.Ino != other.Ino {
		t.Errorf("owner %d:%d, inodes %d and %d", st.Uid, st.Gid, st.Ino, other.Ino)
	}
	if st, err := os.Lstat(at("again", "new/fifo")); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("fifo: %v, %v", st, err)
	}
}
