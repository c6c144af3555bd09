// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryProgramHasALink compares the links with the programs of cmd/box.
func TestEveryProgramHasALink(t *testing.T) {
	have := map[string]bool{}
	for _, l := range links {
		have[l] = true
	}
	for _, file := range []string{"main.go", "tools.go"} {
		source, err := os.ReadFile(filepath.Join("..", "..", "..", "cmd", "box", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(source), "\n") {
			if !strings.HasPrefix(line, "\t\t\"") {
				continue
			}
			for _, m := range regexp.MustCompile(`"([a-z]+)": `).FindAllStringSubmatch(line, -1) {
				if !have[m[1]] {
					t.Errorf("program %s has no link in the image", m[1])
				}
			}
		}
	}
}

func TestFilesystemIsReproducible(t *testing.T) {
	first, second := filesystem([]byte("x")), filesystem([]byte("x"))
	if !bytes.Equal(first, second) {
		t.Error("the same program gave two layers")
	}
	seen := map[string]bool{}
	in := tar.NewReader(bytes.NewReader(first))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		seen[h.Name] = true
	}
	for _, want := range []string{"bin/box", "bin/sh", "tmp/", "etc/passwd"} {
		if !seen[want] {
			t.Errorf("%s is missing", want)
		}
	}
}
