// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bundle makes a container's directory whose root file system has only box.
func bundle(t testing.TB, dir string, tty bool, args ...string) {
	t.Helper()
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(rootfs, "box"), "kaji/internal/cri/critest/box")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building box: %v\n%s", err, out)
	}
	spec := specs.Spec{
		Version: specs.Version, Hostname: "box",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Terminal: tty, Args: args, Cwd: "/", Env: []string{"PATH=/"}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}}},
		Linux: &specs.Linux{
			CgroupsPath: parent + "/" + strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"),
			Resources:   &specs.LinuxResources{},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace},
			},
		},
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func helper(t testing.TB) *Helper {
	t.Helper()
	h, err := Install(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func monitor(t testing.TB, h *Helper, dir string) *Monitor {
	t.Helper()
	m, err := h.StartMonitor(t.Context(), dir, Pod{
		Namespaces: unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
		Hostname:   "pod", Sysctls: map[string]string{"net.core.somaxconn": "1234"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
		_ = m.Close()
	})
	return m
}

// wait follows a container to its end.
func wait(t testing.TB, m *Monitor, exitPath string) Exit {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{}, 8)
	go func() {
		_ = m.Events(ctx, func() { done <- struct{}{} }, func(Event) { done <- struct{}{} })
	}()
	for range 2 {
		<-done
		if exit, ok, err := ReadExit(exitPath); err != nil {
			t.Fatal(err)
		} else if ok {
			return exit
		}
	}
	t.Fatal("no exit recorded")
	return Exit{}
}

// TestLifeOfAContainer runs a container from creation to its exit code and log.
func TestLifeOfAContainer(t *testing.T) {
	h, dir, root := helper(t), t.TempDir(), t.TempDir()
	m := monitor(t, h, dir)
	bundle(t, dir, false, "/box", "then", "echo", "hello", ";", "err", "oops", ";", "exit", "7")
	c := Container{ID: "c1", Root: root, Bundle: dir, LogPath: filepath.Join(dir, "log"), ExitPath: filepath.Join(dir, "exit")}
	pid, err := m.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := ReadExit(c.ExitPath); ok {
		t.Fatal("ended before its start")
	}
	if err := m.Start(root, "c1", pid); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, m, c.ExitPath); exit.Code != 7 {
		t.Fatalf("exit %+v, want code 7", exit)
	}
	if err := m.Forget("c1"); err != nil {
		t.Fatal(err)
	}
	if err := h.Delete(t.Context(), root, "c1"); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(c.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), " stdout F hello\n") || !strings.Contains(string(log), " stderr F oops\n") {
		t.Fatalf("log:\n%s", log)
	}
}

// TestStarterDies opens a container's gate and goes away, as one does that is
// killed; another must be able to start it.
func TestStarterDies(t *testing.T) {
	h, root := helper(t), t.TempDir()
	m := monitor(t, h, t.TempDir())
	for i := range 5 {
		dir, id := t.TempDir(), fmt.Sprintf("gate-%d", i)
		bundle(t, dir, false, "/box", "exit", "7")
		pid, err := m.Create(t.Context(), Container{ID: id, Root: root, Bundle: dir, ExitPath: filepath.Join(dir, "exit")})
		if err != nil {
			t.Fatal(err)
		}
		fifo, err := m.gate(filepath.Join(root, id, "exec.fifo"), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := fifo.Close(); err != nil {
			t.Fatal(err)
		}
		if err := m.Start(root, id, pid); err != nil {
			t.Fatal(err)
		}
		if exit := wait(t, m, filepath.Join(dir, "exit")); exit.Code != 7 {
			t.Fatalf("container %d: exit %+v, want code 7", i, exit)
		}
		if err := h.Delete(t.Context(), root, id); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAttachAndExec talks to a running container by both ways.
func TestAttachAndExec(t *testing.T) {
	h, dir, root := helper(t), t.TempDir(), t.TempDir()
	m := monitor(t, h, dir)
	bundle(t, dir, false, "/box", "cat")
	c := Container{ID: "c2", Root: root, Bundle: dir, Stdin: true, ExitPath: filepath.Join(dir, "exit")}
	pid, err := m.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	if err := m.Start(root, "c2", pid); err != nil {
		t.Fatal(err)
	}
	a, err := m.Attach("c2")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Input.WriteString("ping\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(a.Stdout).ReadString('\n'); err != nil || line != "ping\n" {
		t.Fatalf("attached: %q, %v", line, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	x, err := h.Exec(t.Context(), Exec{Root: root, ID: "c2", Stdout: w,
		Process: &specs.Process{Args: []string{"/box", "then", "hostname", ";", "exit", "3"}, Cwd: "/"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "box\n" {
		t.Fatalf("exec: %q, %v", line, err)
	}
	if code, err := x.Wait(); err != nil || code != 3 {
		t.Fatalf("exec ended with %d, %v", code, err)
	}
	tty, err := h.Exec(t.Context(), Exec{Root: root, ID: "c2",
		Process: &specs.Process{Args: []string{"/box", "tty"}, Cwd: "/", Terminal: true, ConsoleSize: &specs.Box{Height: 30, Width: 99}}})
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(tty.Terminal).ReadString('\n'); err != nil || line != "30 99\r\n" {
		t.Fatalf("terminal: %q, %v", line, err)
	}
	// Closed earlier, the terminal would hang up on the program as it ends.
	if code, err := tty.Wait(); err != nil || code != 0 {
		t.Fatalf("exec ended with %d, %v", code, err)
	}
	_ = tty.Terminal.Close()
	if err := a.Input.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.CloseInput("c2"); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, m, c.ExitPath); exit.Code != 0 {
		t.Fatalf("exit %+v, want code 0", exit)
	}
	if err := h.Delete(t.Context(), root, "c2"); err != nil {
		t.Fatal(err)
	}
}

// TestTimerSlack finds the kernel's usual timer precision in what runs inside a
// container; the helpers that bring it there have a coarse one.
func TestTimerSlack(t *testing.T) {
	h, dir, root := helper(t), t.TempDir(), t.TempDir()
	m := monitor(t, h, dir)
	bundle(t, dir, false, "/box", "cat")
	c := Container{ID: "c4", Root: root, Bundle: dir, Stdin: true, ExitPath: filepath.Join(dir, "exit")}
	pid, err := m.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	if err := m.Start(root, "c4", pid); err != nil {
		t.Fatal(err)
	}
	a, err := m.Attach("c4")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	usualSlack(t, pid, a.Input, a.Stdout)

	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	x, err := h.Exec(t.Context(), Exec{Root: root, ID: "c4", Stdin: theirIn, Stdout: theirOut,
		Process: &specs.Process{Args: []string{"/box", "cat"}, Cwd: "/"}})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = theirIn.Close(), theirOut.Close()
	usualSlack(t, x.Pid, in, out)
	_ = in.Close()
	if code, err := x.Wait(); err != nil || code != 0 {
		t.Fatalf("exec ended with %d, %v", code, err)
	}
}

// usualSlack reads the timer slack of a program that repeats its input.
func usualSlack(t *testing.T, pid int, in io.Writer, out io.Reader) {
	t.Helper()
	if _, err := io.WriteString(in, "there\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", pid))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(raw)); got != "50000" {
		t.Errorf("timer slack %s ns, want 50000", got)
	}
}

// TestHelperError tells why a container cannot be made.
func TestHelperError(t *testing.T) {
	h, dir, root := helper(t), t.TempDir(), t.TempDir()
	m := monitor(t, h, dir)
	bundle(t, dir, false, "/missing")
	_, err := m.Create(t.Context(), Container{ID: "c3", Root: root, Bundle: dir, ExitPath: filepath.Join(dir, "exit")})
	if err == nil || !strings.Contains(err.Error(), `exec: "/missing": stat /missing: no such file or directory`) {
		t.Fatalf("got %v", err)
	}
}

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.core.somaxconn":           "net/core/somaxconn",
		"net/ipv4/conf/eth0.1/forward": "net/ipv4/conf/eth0.1/forward",
		"net.ipv4.conf.eth0/1.forward": "net/ipv4/conf/eth0.1/forward",
	} {
		if got := SysctlPath(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// BenchmarkCreateStart is the cost of a container in a pod that exists.
func BenchmarkCreateStart(b *testing.B) {
	h, dir, root := helper(b), b.TempDir(), b.TempDir()
	m := monitor(b, h, b.TempDir())
	bundle(b, dir, false, "/box", "exit", "0")
	for b.Loop() {
		exit := filepath.Join(dir, "exit")
		_ = os.Remove(exit)
		pid, err := m.Create(b.Context(), Container{ID: "b", Root: root, Bundle: dir, ExitPath: exit})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Start(root, "b", pid); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		wait(b, m, exit)
		if err := m.Forget("b"); err != nil {
			b.Fatal(err)
		}
		if err := h.Delete(b.Context(), root, "b"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
