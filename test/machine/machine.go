// SPDX-License-Identifier: Apache-2.0

// Package machine gives tests a machine of their own to run whole clusters on: a
// network namespace with a home directory, a name for the cluster that nobody
// else has, and kaji and kubectl on the search path. Nothing of it is left when
// the test ends. The end-to-end tests below test/ use it, as root.
package machine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Machine is where a test's clusters run.
type Machine struct {
	// Name is the cluster that kaji's verbs mean when none is named.
	Name string
	// Home is the user's home directory; Root the source tree.
	Home, Root string

	ns  *os.File
	env []string
}

// New makes a machine for one test; the test of who is not root fails. The
// cluster is taken down when the test ends.
func New(t testing.TB) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces and containers")
	}
	m := &Machine{Name: "t" + random(), Home: t.TempDir(), Root: sourceRoot(t)}
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.ns.Close() })
	m.links(t)
	m.env = m.environment(t)
	t.Cleanup(func() { m.purge(t) })
	return m
}

func random() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// sourceRoot finds the directory of go.mod.
func sourceRoot(t testing.TB) string {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "cmd", "kaji")); missing == nil {
			return dir
		}
	}
	t.Fatal("no source tree above the test")
	return ""
}

// open makes the network namespace with a link that leads to nowhere, as a
// machine's default route.
func (m *Machine) open() error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("making a network namespace: %w", err)
			}
			var err error
			if m.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			return network()
		}()
	}()
	return <-result
}

func network() error {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "outside"}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("making links: %w", err)
	}
	var errs []error
	for _, name := range []string{"lo", "outside", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		errs = append(errs, netlink.LinkSetUp(link))
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 9, 0, 1), Mask: net.CIDRMask(24, 32)}}
	errs = append(errs, netlink.AddrAdd(pair, address), netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(10, 9, 0, 254)}))
	return errors.Join(errs...)
}

// links puts the program on the search path, by the names users call it by.
func (m *Machine) links(t testing.TB) {
	program := filepath.Join(m.Root, "bin", "kaji")
	if given := os.Getenv("KAJI_BINARY"); given != "" {
		program = given
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	if err := os.MkdirAll(filepath.Join(m.Home, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kaji", "kubectl"} {
		if err := os.Symlink(program, filepath.Join(m.Home, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
}

// environment is the test's with a home of its own; Go keeps its caches.
func (m *Machine) environment(t testing.TB) []string {
	var env []string
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "HOME", "PATH", "KUBECONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "KAJI_NAME", "GOFLAGS",
			"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES": // of the make that runs the tests
		default:
			env = append(env, v)
		}
	}
	if cache, err := os.UserCacheDir(); err == nil && os.Getenv("GOCACHE") == "" {
		env = append(env, "GOCACHE="+filepath.Join(cache, "go-build"))
	}
	if home, err := os.UserHomeDir(); err == nil && os.Getenv("GOPATH") == "" {
		env = append(env, "GOPATH="+filepath.Join(home, "go"))
	}
	return append(env, "HOME="+m.Home, "XDG_CACHE_HOME="+filepath.Join(m.Home, ".cache"), "KAJI_NAME="+m.Name, "PATH="+filepath.Join(m.Home, "bin")+":"+os.Getenv("PATH"))
}

// Command returns a command with the machine's environment, to be started by
// Start or Run.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if !strings.Contains(name, "/") {
		if path := filepath.Join(m.Home, "bin", name); exists(path) {
			name = path
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = append([]string(nil), m.env...), m.Home
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Start starts a command on the machine.
func (m *Machine) Start(cmd *exec.Cmd) error { return m.Do(cmd.Start) }

// Do runs f on a thread whose network is the machine's.
func (m *Machine) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(m.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("entering the machine: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// Run runs a command of the machine and returns what it printed, on either
// stream.
func (m *Machine) Run(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	// A file, not a pipe: what a command leaves running would hold a pipe.
	out, err := os.CreateTemp(t.TempDir(), "output-*")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := m.Command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err = m.Start(cmd); err == nil {
		err = cmd.Wait()
	}
	text, readErr := os.ReadFile(out.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	return string(text), err
}

// Must is Run for what has to succeed.
func (m *Machine) Must(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := m.Run(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// Eventually runs a command until what it prints is good.
func (m *Machine) Eventually(t testing.TB, good func(out string) bool, name string, args ...string) string {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		out, err := m.Run(t, name, args...)
		if err == nil && good(out) {
			return out
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s: never as wanted; last: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
}

// DataDir is where the machine's cluster keeps its data.
func (m *Machine) DataDir() string { return "/var/lib/kaji/" + m.Name }

// purge removes the cluster if the test left it, with the end of its log when
// the test failed.
func (m *Machine) purge(t testing.TB) {
	if !exists(m.DataDir()) {
		return
	}
	if t.Failed() {
		if data, err := os.ReadFile(filepath.Join(m.DataDir(), "kaji.log")); err == nil {
			t.Logf("the end of the cluster's log:\n%s", data[max(0, len(data)-40000):])
		}
	}
	if out, err := m.Run(t, "kaji", "down", "--purge"); err != nil {
		t.Errorf("kaji down --purge: %v\n%s", err, out)
	}
}
