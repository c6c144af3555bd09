// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

type entry struct {
	tar.Header
	content string
}

func stream(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		if e.Mode == 0 {
			e.Mode = 0o755
		}
		e.Size = int64(len(e.content))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func regular(name, content string) entry { return entry{tar.Header{Name: name}, content} }
func directory(name string) entry        { return entry{tar.Header{Name: name, Typeflag: tar.TypeDir}, ""} }
func symlink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}
func hardlink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}, ""}
}

func want(t *testing.T, path, content string) {
	t.Helper()
	if raw, err := os.ReadFile(path); err != nil || string(raw) != content {
		t.Errorf("%s: %q, %v, want %q", path, raw, err, content)
	}
}

// TestUnpack covers each kind of entry.
func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	when := time.Unix(1e9, 0)
	used, err := Unpack(dir, bytes.NewReader(stream(t,
		entry{tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: when}, ""},
		entry{tar.Header{Name: "d/f", Mode: 0o4750, Uid: 12, Gid: 34, ModTime: when, PAXRecords: map[string]string{paxXattr + "user.x": "y"}}, "content"},
		regular("no/parents/named", "x"),
		symlink("d/l", "f"), hardlink("d/h", "d/f"),
		entry{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo}, ""},
		entry{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""},
		regular("twice", "first"), regular("twice", "second"),
		regular("file-then-dir", "x"), directory("file-then-dir"),
		regular("w/.wh.gone", ""), regular("o/.wh..wh..opq", ""),
	)), DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if used.Bytes < 7 || used.Inodes < 10 {
		t.Errorf("used %+v", used)
	}
	want(t, filepath.Join(dir, "d/h"), "content")
	want(t, filepath.Join(dir, "d/l"), "content")
	want(t, filepath.Join(dir, "twice"), "second")
	want(t, filepath.Join(dir, "no/parents/named"), "x")
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, "d/f"), &st); err != nil || st.Uid != 12 || st.Gid != 34 || st.Mode&0o7777 != 0o4750 || st.Mtim.Sec != 1e9 {
		t.Errorf("d/f: %+v, %v", st, err)
	}
	if err := unix.Lstat(filepath.Join(dir, "d"), &st); err != nil || st.Mode&0o7777 != 0o1777 || st.Mtim.Sec != 1e9 {
		t.Errorf("d: %+v, %v", st, err)
	}
	if err := unix.Lstat(filepath.Join(dir, "w/gone"), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout: %+v, %v", st, err)
	}
	value := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(dir, "o"), opaqueXattr, value); err != nil || string(value[:n]) != "y" {
		t.Errorf("opaque directory: %q, %v", value[:max(n, 0)], err)
	}
	if n, err := unix.Getxattr(filepath.Join(dir, "d/f"), "user.x", value); err != nil || string(value[:n]) != "y" {
		t.Errorf("attribute: %q, %v", value[:max(n, 0)], err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "file-then-dir")); err != nil || !fi.IsDir() {
		t.Errorf("a later directory does not replace a file: %v", err)
	}
}

// TestUnpackStaysInside tries the tricks by which archives reach out.
func TestUnpackStaysInside(t *testing.T) {
	for name, entries := range map[string][]entry{
		"dots":               {regular("../../evil", "x")},
		"absolute":           {regular("/evil", "x")},
		"absolute link":      {symlink("a", "/"), regular("a/evil", "x")},
		"relative link":      {symlink("a", "../.."), regular("a/evil", "x")},
		"link to link":       {symlink("a", ".."), symlink("b", "a/.."), regular("b/evil", "x")},
		"file through link":  {symlink("evil", "../evil"), regular("evil", "x")},
		"hard link outside":  {hardlink("h", "../outside/secret"), regular("h", "x")},
		"hard link via link": {symlink("a", "../outside"), hardlink("h", "a/secret"), regular("h", "x")},
		"whiteout outside":   {regular("../outside/.wh.secret", "")},
		"opaque outside":     {symlink("a", "../outside"), regular("a/.wh..wh..opq", "")},
		"whiteout of dots":   {regular(".wh...", "")},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dir, outside := filepath.Join(base, "in"), filepath.Join(base, "outside")
			for _, d := range []string{dir, outside} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			secret := filepath.Join(outside, "secret")
			if err := os.WriteFile(secret, []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _ = Unpack(dir, bytes.NewReader(stream(t, entries...)), DefaultLimits) // refused or confined, both are right
			want(t, secret, "kept")
			if left, err := os.ReadDir(base); err != nil || len(left) != 2 {
				t.Errorf("files outside: %v, %v", left, err)
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
				t.Errorf("files outside: %v, %v", left, err)
			}
			if _, err := os.Lstat("/evil"); !errors.Is(err, fs.ErrNotExist) {
				t.Error("/evil exists")
			}
			if n, err := unix.Getxattr(outside, opaqueXattr, nil); err == nil {
				t.Errorf("an attribute of %d bytes outside", n)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	many := make([]entry, 20)
	for i := range many {
		many[i] = regular(strings.Repeat("x", i+1), "")
	}
	if _, err := Unpack(t.TempDir(), bytes.NewReader(stream(t, many...)), Limits{Bytes: 100, Inodes: 10}); err == nil || !strings.Contains(err.Error(), "more than 10 files") {
		t.Errorf("too many files: %v", err)
	}
	if _, err := Unpack(t.TempDir(), bytes.NewReader(stream(t, regular("a", strings.Repeat("x", 200)))), Limits{Bytes: 100, Inodes: 10}); err == nil || !strings.Contains(err.Error(), "more than 100 bytes") {
		t.Errorf("too many bytes: %v", err)
	}
	whole := stream(t, regular("a", strings.Repeat("x", 2000)))
	if _, err := Unpack(t.TempDir(), bytes.NewReader(whole[:1000]), DefaultLimits); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a torn stream: %v", err)
	}
}

func TestDecompress(t *testing.T) {
	text := []byte(strings.Repeat("some text ", 1000))
	var zipped, zstded bytes.Buffer
	g := gzip.NewWriter(&zipped)
	_, err := g.Write(text)
	if err := errors.Join(err, g.Close()); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(&zstded)
	if err != nil {
		t.Fatal(err)
	}
	_, err = z.Write(text)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	for name, packed := range map[string][]byte{"gzip": zipped.Bytes(), "zstd": zstded.Bytes(), "plain": text, "empty": {}} {
		r, err := Decompress(bytes.NewReader(packed))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || name != "empty" && !bytes.Equal(got, text) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// FuzzUnpack demands that no stream whatever panics or writes outside.
func FuzzUnpack(f *testing.F) {
	f.Add(stream(f, directory("d"), regular("d/f", "x"), symlink("l", "../.."), regular("l/evil", "x"), hardlink("h", "d/f")))
	f.Add(stream(f, regular("w/.wh.gone", ""), regular("o/.wh..wh..opq", "")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		base := t.TempDir()
		dir := filepath.Join(base, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		r, err := Decompress(bytes.NewReader(raw))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = Unpack(dir, r, Limits{Bytes: 1 << 20, Inodes: 100})
		if left, err := os.ReadDir(base); err != nil || len(left) != 1 {
			t.Fatalf("files outside: %v, %v", left, err)
		}
	})
}
