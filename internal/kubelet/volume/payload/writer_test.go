// SPDX-License-Identifier: Apache-2.0

package payload

import (
	"os"
	"path/filepath"
	"testing"
)

// An update changes all files through one link, removes what is gone, and
// leaves a volume alone that is right already.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	first := map[string]file{"a": {data: []byte("1"), mode: 0o644}, "d/b": {data: []byte("2"), mode: 0o400}}
	if err := write(dir, first, nil); err != nil {
		t.Fatal(err)
	}
	before, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "d", "b")); err != nil || string(got) != "2" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := write(dir, first, nil); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.Readlink(filepath.Join(dir, dataLink)); again != before {
		t.Errorf("equal content was written again: %s, then %s", before, again)
	}
	if err := write(dir, map[string]file{"a": {data: []byte("3"), mode: 0o644}}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(got) != "3" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "d")); !os.IsNotExist(err) {
		t.Errorf("the link of a file that is gone is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, before)); !os.IsNotExist(err) {
		t.Errorf("former data is still there: %v", err)
	}
}
