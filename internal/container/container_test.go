// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"kaji/internal/container/cgroup"
	"kaji/internal/cri/critest"
	"kaji/internal/cri/serve"
	"kaji/internal/cri/socket"
)

// directory is a test's own, which users of user namespaces may pass through.
func directory(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() { // what a failed test leaves
			r := open(t, dir)
			stop := run(t, r)
			removeAll(t, r)
			stop()
		}
		_ = cgroup.Driver{}.Remove(group(dir)) // there is none where no pod was
	})
	return dir
}

// group is the control group of the pods of one test: others may run beside it.
func group(dir string) string { return "/kaji-test-" + filepath.Base(filepath.Dir(dir)) }

// open starts a runtime in directories of the test, or finds an earlier one
// again there.
func open(t testing.TB, dir string, change ...func(*Config)) *Runtime {
	t.Helper()
	cfg := Config{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), CgroupRoot: group(dir),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "v0.0.1",
	}
	for _, c := range change {
		c(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run serves a runtime until the test or stop ends it.
func run(t testing.TB, r *Runtime) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// TestCRI holds the runtime to what the CRI demands.
func TestCRI(t *testing.T) {
	r := open(t, directory(t))
	run(t, r)
	critest.Run(t, critest.Suite{Runtime: r, Images: r})
}

// TestCRIOverSocket holds it to the same through the socket.
func TestCRIOverSocket(t *testing.T) {
	dir := directory(t)
	r := open(t, dir)
	run(t, r)
	path := filepath.Join(dir, "cri.sock")
	server, err := serve.New(serve.Config{Path: path, Runtime: r, Images: r})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	client, err := socket.Dial("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	critest.Run(t, critest.Suite{Runtime: client, Images: client})
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crash(dir, os.Getenv("KAJI_TEST_IMAGE"))
	}
	os.Exit(m.Run())
}
