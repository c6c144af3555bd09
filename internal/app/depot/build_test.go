// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTree keeps what makes files of a directory what they are: a file with two
// names is stored once, programs keep their bits and capabilities.
func TestTree(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "a")
	if err := os.WriteFile(program, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Link(program, filepath.Join(dir, "b")), os.Chmod(program, 0o755|os.ModeSetuid), os.Symlink("a", filepath.Join(dir, "c"))); err != nil {
		t.Fatal(err)
	}
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // of vfs_cap_data: CAP_NET_RAW
	err := unix.Setxattr(program, fileCapabilities, []byte(capability), 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
		capability = "" // not as root, or on a file system without any
	} else if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	out := tar.NewWriter(&raw)
	if err := errors.Join(writeTree(out, dir), out.Close()); err != nil {
		t.Fatal(err)
	}
	found := map[string]*tar.Header{}
	for in := tar.NewReader(&raw); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = h
	}
	if a := found["a"]; a == nil || a.Size != 7 || a.Mode != 0o4755 || a.PAXRecords["SCHILY.xattr."+fileCapabilities] != capability {
		t.Errorf("a: %+v", a)
	}
	if b := found["b"]; b == nil || b.Typeflag != tar.TypeLink || b.Linkname != "a" || b.Size != 0 {
		t.Errorf("b: %+v", b)
	}
	if c := found["c"]; c == nil || c.Typeflag != tar.TypeSymlink || c.Linkname != "a" {
		t.Errorf("c: %+v", c)
	}
}
