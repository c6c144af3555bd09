// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
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

// One cluster has a network namespace at a time; who else comes hears its name.
func TestNetworkHasOneHolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes a network namespace")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- unix.Unshare(unix.CLONE_NEWNET)
		if name := NetworkHolder(); name != "" {
			t.Errorf("held by %q before anybody came", name)
		}
		release, err := HoldNetwork("first")
		if err != nil {
			t.Error(err)
			close(done)
			return
		}
		if name := NetworkHolder(); name != "first" {
			t.Errorf("held by %q", name)
		}
		if _, err := HoldNetwork("second"); !errors.Is(err, ErrNetworkTaken) {
			t.Errorf("held twice: %v", err)
		}
		release()
		if name := NetworkHolder(); name != "" {
			t.Errorf("held by %q after its release", name)
		}
		close(done)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-done
}
