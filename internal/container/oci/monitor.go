// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pod describes the namespaces of a pod.
type Pod struct {
	// Namespaces are the CLONE_NEW* flags of the namespaces the pod has of its
	// own; those of the host are left out.
	Namespaces           uintptr
	Hostname, Domainname string
	// UIDMap and GIDMap are lines as /proc/<pid>/uid_map takes them, for a pod
	// with a user namespace.
	UIDMap, GIDMap string
	// Sysctls are set in the pod's namespaces, by names such as "net.core.somaxconn".
	Sysctls map[string]string
	// JoinCgroup puts the monitor, and so the pod's first process, into the
	// pod's cgroup.
	JoinCgroup func(pid int) error
}

// Monitor is a connection to the monitor process of one pod. It is safe for
// concurrent use.
type Monitor struct {
	// Pid is the monitor's, PausePid the one of the process that holds the
	// pod's namespaces.
	Pid, PausePid int

	helper *Helper
	dir    string
	mu     sync.Mutex // one command at a time on conn
	conn   *net.UnixConn
}

// socketName is the monitor's socket below its directory.
const socketName = "monitor.sock"

// helperTimeout bounds the wait for a helper that hangs.
const helperTimeout = 60 * time.Second

// StartMonitor starts the monitor of a pod, with its socket in dir (which must
// exist and be private), and waits until the pod's namespaces are there.
func (h *Helper) StartMonitor(ctx context.Context, dir string, pod Pod) (*Monitor, error) {
	listener, err := listen(dir)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	configR, configW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer configW.Close()
	defer configR.Close()
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer answerR.Close()
	defer answerW.Close()
	empty := filepath.Join(dir, "root")
	if err := os.MkdirAll(empty, 0o555); err != nil {
		return nil, err
	}
	cmd := exec.Cmd{
		Path: fdPath(h.sealed), Args: []string{"kaji-init", "monitor"}, Dir: "/", Env: environment(),
		ExtraFiles: []*os.File{listener, configR, answerW},
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the pod's monitor: %w", err)
	}
	// The child is collected whenever it ends while this process lives.
	go func() { _ = cmd.Wait() }()
	fail := func(err error) (*Monitor, error) {
		_ = cmd.Process.Kill() // it may have ended by itself
		return nil, err
	}
	if err := errors.Join(configR.Close(), answerW.Close()); err != nil {
		return fail(err)
	}
	if pod.JoinCgroup != nil {
		if err := pod.JoinCgroup(cmd.Process.Pid); err != nil {
			return fail(fmt.Errorf("putting the pod's monitor into its cgroup: %w", err))
		}
	}
	if _, err := configW.Write(pod.encode(empty)); err != nil {
		return fail(err)
	}
	if err := configW.Close(); err != nil {
		return fail(err)
	}
	answer, err := readAll(ctx, answerR, 4096, helperTimeout)
	if err != nil {
		return fail(err)
	}
	pid, ok := strings.CutPrefix(answer, "ok ")
	if !ok {
		return fail(fmt.Errorf("creating the pod's namespaces: %s", strings.TrimPrefix(answer, "error ")))
	}
	pause, err := strconv.Atoi(pid)
	if err != nil {
		return fail(fmt.Errorf("the pod's monitor answered %q", answer))
	}
	m, err := h.DialMonitor(dir)
	if err != nil {
		return fail(err)
	}
	m.Pid, m.PausePid = cmd.Process.Pid, pause
	return m, nil
}

// environment is that of helpers: they are short, and one thread does.
func environment() []string { return []string{"GOMAXPROCS=1"} }

// DialMonitor connects to the monitor whose socket is in dir. Pid and PausePid
// are the caller's to fill.
func (h *Helper) DialMonitor(dir string) (*Monitor, error) {
	conn, err := dial(dir)
	if err != nil {
		return nil, err
	}
	return &Monitor{helper: h, dir: dir, conn: conn}, nil
}

// Close ends the connection; the monitor and its containers go on.
func (m *Monitor) Close() error { return m.conn.Close() }

func (p *Pod) encode(root string) []byte {
	var b bytes.Buffer
	item := func(key, value string) { fmt.Fprintf(&b, "%s=%s\x00", key, value) }
	flags := p.Namespaces
	if flags&(unix.CLONE_NEWPID|unix.CLONE_NEWUSER) != 0 {
		flags |= unix.CLONE_NEWNS // containers see the process: it must not show the host's files
	}
	item("namespaces", strconv.FormatUint(uint64(flags), 10))
	item("hostname", p.Hostname)
	item("domainname", p.Domainname)
	if p.Namespaces&unix.CLONE_NEWUSER != 0 {
		item("uidmap", p.UIDMap)
		item("gidmap", p.GIDMap)
	}
	item("root", root)
	for name, value := range p.Sysctls {
		item("sysctl", SysctlPath(name)+"="+value)
	}
	item("complete", "")
	return b.Bytes()
}

// SysctlPath turns the name of a kernel parameter into its path below
// /proc/sys. Dots separate unless a slash comes first; then slashes do.
func SysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

// socketPath names a socket by the descriptor of its directory: the path of a
// socket must be short, that of a directory need not.
func socketPath(dir string) (path string, release func() error, err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + socketName, func() error { return unix.Close(fd) }, nil
}

func listen(dir string) (*os.File, error) {
	path, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), filepath.Join(dir, socketName))
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), file.Close())
	}
	if err := unix.Listen(fd, 16); err != nil {
		return nil, errors.Join(os.NewSyscallError("listen", err), file.Close())
	}
	return file, nil
}

func dial(dir string) (*net.UnixConn, error) {
	path, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("reaching the pod's monitor: %w", err)
	}
	return conn, nil
}

// call sends one command and returns the descriptor that came with the answer,
// or nil.
func (m *Monitor) call(files []*os.File, fields ...string) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return call(m.conn, files, fields...)
}

func call(conn *net.UnixConn, files []*os.File, fields ...string) (*os.File, error) {
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	if err := conn.SetDeadline(time.Now().Add(helperTimeout)); err != nil {
		return nil, err
	}
	if _, _, err := conn.WriteMsgUnix([]byte(strings.Join(fields, "\x00")), rights, nil); err != nil {
		return nil, fmt.Errorf("asking the pod's monitor to %s: %w", fields[0], err)
	}
	text, oob := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		return nil, fmt.Errorf("hearing from the pod's monitor: %w", err)
	}
	got, err := received(oob[:oobn])
	if err != nil {
		return nil, err
	}
	switch answer := string(text[:n]); {
	case answer == "ok":
		return got, nil
	case n == 0:
		return nil, fmt.Errorf("hearing from the pod's monitor: %w", io.ErrUnexpectedEOF)
	default:
		return nil, fmt.Errorf("the pod's monitor: %s", strings.TrimPrefix(answer, "error "))
	}
}

// received returns the first descriptor in a control message, or nil.
func received(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil || len(fds) == 0 {
			continue
		}
		for _, extra := range fds[1:] {
			_ = unix.Close(extra)
		}
		unix.CloseOnExec(fds[0])
		return os.NewFile(uintptr(fds[0]), "received"), nil
	}
	return nil, nil
}

// Event tells that a container's first process ended, or, with an empty
// Container, that the pod's namespaces lost their holder.
type Event struct{ Container string }

// Events calls handle for each event until ctx ends or the monitor dies; then it
// returns, with nil or the reason. ready is called once events cannot be missed
// any more: what ended earlier is found by ReadExit.
func (m *Monitor) Events(ctx context.Context, ready func(), handle func(Event)) error {
	conn, err := dial(m.dir)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := call(conn, nil, "subscribe"); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	ready()
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			return fmt.Errorf("the pod's monitor is gone: %w", err)
		}
		_, id, _ := strings.Cut(string(buf[:n]), "\x00")
		handle(Event{Container: id})
	}
}

// Stop ends the monitor, and with it the pod's namespaces unless others hold
// them. Containers must have ended.
func (m *Monitor) Stop() error {
	_, err := m.call(nil, "stop")
	if err == nil || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return nil // gone is gone
	}
	return err
}

// readAll reads a short text until its writers close it, ctx ends or time is out.
func readAll(ctx context.Context, f *os.File, limit int64, timeout time.Duration) (string, error) {
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	if err := f.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit))
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return string(raw), err
}
