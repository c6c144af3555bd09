// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "kaji.pid")
	if pid, err := Running(path); pid != 0 || err != nil {
		t.Fatalf("without a file: pid %d, err %v", pid, err)
	}
	release, err := Hold(path)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := Running(path); pid != os.Getpid() || err != nil {
		t.Fatalf("held: pid %d, err %v", pid, err)
	}
	if _, err := Hold(path); !errors.Is(err, ErrRunning) {
		t.Fatalf("held twice: %v", err)
	}
	release()
	if pid, err := Running(path); pid != 0 || err != nil {
		t.Fatalf("released: pid %d, err %v", pid, err)
	}
}
