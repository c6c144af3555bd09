// SPDX-License-Identifier: Apache-2.0

package logs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"kaji/internal/kubelet/logs"
)

// A log that is large is put aside, few are kept, and nothing is lost when the
// runtime cannot write to a new file.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	write := func(name string) {
		if err := os.WriteFile(name, []byte("0123456789"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path)
	for _, old := range []string{".20260101-000000.gz", ".20260102-000000.gz", ".20260103-000000"} {
		write(path + old)
	}
	if done, err := logs.Rotate(path, 11, 3, nil); done || err != nil {
		t.Errorf("got %t, %v for a small log", done, err)
	}
	if done, err := logs.Rotate(path, 10, 3, func() error { return errors.New("no") }); done || err == nil {
		t.Errorf("got %t, %v where the runtime fails", done, err)
	}
	if done, err := logs.Rotate(path, 10, 3, func() error { write(path); return nil }); !done || err != nil {
		t.Errorf("got %t, %v", done, err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 3 {
		t.Errorf("got %v, %v, want three files", files, err)
	}
	if _, err := os.Stat(path + ".20260103-000000.gz"); err != nil {
		t.Errorf("the newest of the former logs is not kept compressed: %v", err)
	}
}
