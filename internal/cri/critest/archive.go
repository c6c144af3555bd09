// SPDX-License-Identifier: Apache-2.0

package critest

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const runtimeArch = runtime.GOARCH

var discard = log.New(io.Discard, "", 0)

// file is one entry of an archive; a name that ends in a slash is a directory.
type file struct {
	mode    int64
	content []byte
}

// archive is a tar stream of files, with the directories above them.
func archive(t testing.TB, files map[string]file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{".": true}
	write := func(h *tar.Header, content []byte) {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		if dir := path.Dir(strings.TrimSuffix(name, "/")); !made[dir] {
			made[dir] = true
			write(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
		}
		if strings.HasSuffix(name, "/") {
			write(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: f.mode}, nil)
			continue
		}
		write(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: f.mode, Size: int64(len(f.content))}, f.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
