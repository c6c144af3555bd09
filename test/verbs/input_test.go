// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kaji/test/machine"
)

// Each bad input gets one plain sentence with what to do, and leaves nothing.
func TestBadInput(t *testing.T) {
	m := machine.New(t)
	full := filepath.Join(t.TempDir(), "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(full, unix.MNT_DETACH) }) // the directory is the test's
	occupied := t.TempDir()
	if err := os.WriteFile(filepath.Join(occupied, "letter"), []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := traces(t, m)
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"overlapping ranges", []string{"--cluster-cidr=10.96.0.0/14"}, "--cluster-cidr (10.96.0.0/14) and --service-cluster-ip-range (10.96.0.0/"},
		{"the machine's network", []string{"--cluster-cidr=10.9.0.0/16"}, "--cluster-cidr (10.9.0.0/16) overlaps the network 10.9.0.0/24 of this machine's link eth0: choose another range"},
		{"no range", []string{"--cluster-cidr=pods"}, "--cluster-cidr: "},
		{"a bad name", []string{"--name=A_B"}, "a cluster's name is made of lower-case letters"},
		{"somebody's directory", []string{"--data-dir=" + occupied}, "is not empty and holds no cluster: choose another --data-dir"},
		{"a full disk", []string{"--data-dir=" + full}, "free at least 256 MiB, or choose another place with --data-dir"},
		{"a file that is not there", []string{"--encryption-provider-config=/nowhere.yaml"}, "/nowhere.yaml"},
		{"a word too many", []string{"now"}, "unknown command"},
	} {
		out, err := m.Run(t, "kaji", append([]string{"up"}, c.args...)...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v, want %q in\n%s", c.name, err, c.want, out)
		}
		for _, left := range difference(traces(t, m), before) {
			t.Errorf("%s: left over: %s", c.name, left)
		}
	}
	if _, err := os.Stat(filepath.Join(occupied, "letter")); err != nil {
		t.Error(err)
	}
	if out, err := m.Run(t, "kaji", "down", "--purge"); err == nil || !strings.Contains(out, "there is no cluster") {
		t.Errorf("down without a cluster: %v\n%s", err, out)
	}
}

// A port that somebody listens on is named, and who it is.
func TestPortInUse(t *testing.T) {
	m := machine.New(t)
	for _, port := range []string{"6443", "10250"} {
		var l net.Listener
		if err := m.Do(func() (err error) { l, err = net.Listen("tcp", "0.0.0.0:"+port); return err }); err != nil {
			t.Fatal(err)
		}
		out, err := m.Run(t, "kaji", "up")
		l.Close()
		want := fmt.Sprintf("TCP port %s is in use by %s, process %d: stop what listens there", port, filepath.Base(os.Args[0]), os.Getpid())
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("port %s: %v\n%s", port, err, out)
		}
	}
}

// Who is not root is told what to do.
func TestNotRoot(t *testing.T) {
	m := machine.New(t)
	program := filepath.Join(os.TempDir(), m.Name+"-kaji") // where everybody may go
	data, err := os.ReadFile(filepath.Join(m.Home, "bin", "kaji"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(program)
	for _, verb := range [][]string{{"up"}, {"down"}, {"server"}, {"agent"}, {"upgrade"}, {"backup", "/tmp/x"}, {"restore", "/tmp/x"}, {"install"}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := m.Command(ctx, program, verb...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), "root: try again with sudo") {
			t.Errorf("kaji %s: %v\n%s", verb[0], err, out)
		}
	}
}

// A second up changes nothing and says so; one with other settings says that they
// are not in force. Data of a later version is refused by an older program, and a
// node with a wrong token is told so.
func TestUpAgain(t *testing.T) {
	m := machine.New(t)
	m.Must(t, "kaji", "up")
	process := processOf(t, m)
	if out := m.Must(t, "kaji", "up"); !strings.Contains(out, "is running already") || strings.Contains(out, "other settings") {
		t.Errorf("a second up says\n%s", out)
	}
	if out := m.Must(t, "kaji", "up", "--cluster-domain=other.local"); !strings.Contains(out, "It runs with other settings than these") {
		t.Errorf("an up with other settings says\n%s", out)
	}
	if now := processOf(t, m); now != process {
		t.Errorf("the process went from %d to %d", process, now)
	}
	if out, err := m.Run(t, "kaji", "server"); err == nil || !strings.Contains(out, "is running already") {
		t.Errorf("a second server: %v\n%s", err, out)
	}
	join := []string{"agent", "--name=" + m.Name + "-x", "--server=https://10.9.0.1:6443", "--data-dir=" + t.TempDir(), "--port=10350"}
	hash := hashOf(t, m)
	for _, c := range []struct{ token, hash, want string }{
		{"abcdef.0123456789abcdef", hash, "the token"},
		{"abcdef.0123456789abcdef", "sha256:" + strings.Repeat("0", 64), "does not have the expected hash"},
	} {
		out, err := m.Run(t, "kaji", append(join, "--token="+c.token, "--ca-cert-hash="+c.hash)...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("joining with %s, %s: %v\n%s", c.token, c.hash, err, out)
		}
	}
	m.Must(t, "kaji", "down")
	if err := os.WriteFile(filepath.Join(m.DataDir(), "version"), []byte("v1.99.0+kaji\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := m.Run(t, "kaji", "up")
	if err == nil || !strings.Contains(out, "was written by kaji v1.99.0+kaji, and this is the older v1.37.2+kaji: use the newer program") {
		t.Errorf("data of a later version: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(m.DataDir(), "store")); err != nil {
		t.Errorf("the data is gone: %v", err)
	}
}

// hashOf reads the hash of the cluster's authority from what `kaji token create`
// says.
func hashOf(t *testing.T, m *machine.Machine) string {
	t.Helper()
	for _, word := range strings.Fields(m.Must(t, "kaji", "token", "create")) {
		if _, hash, ok := strings.Cut(word, "sha256:"); ok {
			return "sha256:" + strings.Trim(hash, "'\"")
		}
	}
	t.Fatal("no hash")
	return ""
}
