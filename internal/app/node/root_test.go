// SPDX-License-Identifier: Apache-2.0

package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"kaji/internal/app/home"
)

// The agent goes by the name that stock manifests know where nobody else does.
func TestKubeletRoot(t *testing.T) {
	top := t.TempDir()
	stock := filepath.Join(top, "var", "kubelet")
	root := func(cluster string) string {
		t.Helper()
		dir := home.Dir(filepath.Join(top, cluster))
		got, err := kubeletRoot(dir, stock, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir.Kubelet(), unix.MNT_DETACH) }) // where it was shared
		return got
	}
	if got := root("a"); got != stock {
		t.Errorf("the first got %s", got)
	}
	if got := root("a"); got != stock {
		t.Errorf("the first, again, got %s", got)
	}
	if got := root("b"); got != filepath.Join(top, "b", "kubelet") {
		t.Errorf("the second got %s", got)
	}
	if err := dropRoot(home.Dir(filepath.Join(top, "b")), stock); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stock); err != nil {
		t.Errorf("the second took the first one's name away: %v", err)
	}
	if err := dropRoot(home.Dir(filepath.Join(top, "a")), stock); err != nil {
		t.Fatal(err)
	}
	if got := root("b"); got != stock {
		t.Errorf("the second, alone, got %s", got)
	}
	if err := os.Remove(stock); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(stock, "pods"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := root("b"); got == stock {
		t.Error("another agent's directory was taken")
	}
	if err := os.Remove(filepath.Join(stock, "pods")); err != nil {
		t.Fatal(err)
	}
	if got := root("b"); got != stock {
		t.Errorf("an empty directory was not taken: %s", got)
	}
}
