// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What tar packs it unpacks elsewhere, as kubectl cp does through a pipe; a name
// that leads outside is refused.
func TestTar(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "d", "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "d", "run"), []byte("content"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run", filepath.Join(from, "d", "link")); err != nil {
		t.Fatal(err)
	}
	var pipe, complaints bytes.Buffer
	s := &stdio{out: &pipe, err: &complaints, dir: from}
	if code := tarTool(t.Context(), s, []string{"cf", "-", "d"}); code != 0 {
		t.Fatal(complaints.String())
	}
	s = &stdio{in: &pipe, out: &bytes.Buffer{}, err: &complaints, dir: "/"}
	if code := tarTool(t.Context(), s, []string{"-xmf", "-", "-C", to}); code != 0 {
		t.Fatal(complaints.String())
	}
	data, err := os.ReadFile(filepath.Join(to, "d", "link"))
	info, infoErr := os.Stat(filepath.Join(to, "d", "run"))
	if err != nil || infoErr != nil || string(data) != "content" || info.Mode().Perm() != 0o750 {
		t.Errorf("content %q, mode %v, %v, %v", data, info, err, infoErr)
	}
	if _, err := os.Stat(filepath.Join(to, "d", "empty")); err != nil {
		t.Error(err)
	}

	pipe.Reset()
	s = &stdio{out: &pipe, err: &complaints, dir: filepath.Join(from, "d")}
	if code := tarTool(t.Context(), s, []string{"cf", "-", "../d/run"}); code != 0 {
		t.Fatal(complaints.String())
	}
	s = &stdio{in: &pipe, out: &bytes.Buffer{}, err: &complaints, dir: to}
	if code := tarTool(t.Context(), s, []string{"xf", "-"}); code == 0 || !strings.Contains(complaints.String(), "leads outside") {
		t.Errorf("a name outside is unpacked: %s", complaints.String())
	}
}

// sort orders by text or number, and drops what it has seen.
func TestSort(t *testing.T) {
	for _, c := range []struct{ options, in, want string }{
		{"", "b\na\n", "a b"}, {"n", "10\n9\n", "9 10"}, {"r", "a\nb\n", "b a"}, {"u", "a\na\nb\n", "a b"},
	} {
		if got := strings.Join(sortedLines(c.in, c.options), " "); got != c.want {
			t.Errorf("sort -%s: %q, want %q", c.options, got, c.want)
		}
	}
}
