// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Container says how to make a container.
type Container struct {
	ID string
	// Root is the directory of libcontainer's state, one below it a container.
	Root string
	// Bundle holds config.json.
	Bundle string
	// Terminal must equal the one of the process in config.json.
	Terminal bool
	// Stdin keeps an input open for attached clients.
	Stdin bool
	// LogPath is where output goes in the format of the CRI, or empty.
	LogPath string
	// ExitPath is where the exit is recorded, see ReadExit.
	ExitPath string
}

// report is what the helper answers.
type report struct {
	Pid   int
	Error string
}

// Create makes a container whose init waits for Start, and returns its pid.
func (m *Monitor) Create(ctx context.Context, c Container) (pid int, err error) {
	return m.make(ctx, c, helperTimeout, "create", c.Root, c.ID, c.Bundle)
}

// make lets a helper make a container with the verb and arguments given, and
// watches it from then on. One that restores stays its parent until then.
func (m *Monitor) make(ctx context.Context, c Container, timeout time.Duration, call ...string) (pid int, err error) {
	var own, theirs files // descriptors of the monitor and of the container
	defer func() { err = errors.Join(err, own.close(), theirs.close()) }()
	kinds := ""
	if c.Terminal {
		kinds = "t"
	}
	for fd := range 3 {
		switch {
		case c.Terminal || fd == 0 && !c.Stdin:
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return 0, err
			}
			theirs = append(theirs, null)
		default:
			r, w, err := os.Pipe()
			if err != nil {
				return 0, err
			}
			if fd == 0 {
				r, w = w, r
			}
			own, theirs = append(own, r), append(theirs, w)
			kinds += string("ioe"[fd])
		}
	}
	status, statusW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer status.Close()
	theirs = append(theirs, statusW)
	restoring := call[0] == "restore"
	var console *os.File
	if c.Terminal || restoring {
		var socket *os.File
		console, socket, err = socketPair()
		if err != nil {
			return 0, err
		}
		defer console.Close()
		theirs = append(theirs, socket)
	}
	if restoring {
		hold, release, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer release.Close()
		theirs = append(theirs, hold)
	}
	if _, err := m.call(theirs, append([]string{"spawn", m.helper.path}, call...)...); err != nil {
		return 0, err
	}
	if err := theirs.close(); err != nil {
		return 0, err
	}
	theirs = nil
	pid, err = readReport(ctx, status, timeout)
	if err != nil {
		return 0, err
	}
	if c.Terminal {
		master, err := receiveFile(console)
		if err != nil {
			return 0, fmt.Errorf("receiving the container's terminal: %w", err)
		}
		own = append(own, master)
	}
	_, err = m.call(own, "watch", c.ID, strconv.Itoa(pid), c.ExitPath, c.LogPath, kinds)
	return pid, err
}

// gate opens the fifo that the init of a created container waits on. The monitor
// holds it too until opened: an init that has begun to write would die with the
// last reader.
func (m *Monitor) gate(path, id string) (*os.File, error) {
	fifo, err := m.call(nil, "gate", id, path)
	if err != nil && strings.HasSuffix(err.Error(), "unknown command") { // a monitor from before an upgrade
		return os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	}
	if err == nil && fifo == nil {
		err = errors.New("no descriptor came")
	}
	return fifo, err
}

// Start lets the init of a created container, process pid, run its program. It
// may be repeated by who does not know whether it was done.
func (m *Monitor) Start(root, id string, pid int) error {
	path := filepath.Join(root, id, "exec.fifo")
	// The init writes one byte once the fifo has a reader. Being a writer too
	// keeps the reader from seeing an end before the init came that far.
	fifo, err := m.gate(path, id)
	if err != nil {
		return fmt.Errorf("starting the container: %w", err)
	}
	defer fifo.Close()
	defer func() { _, _ = m.call(nil, "opened", id) }() // the container may have ended
	var b [1]byte
	for begun := time.Now(); ; {
		if err := fifo.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		_, err := fifo.Read(b[:])
		if err == nil {
			// The program may have ended already, and with it all of this.
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("starting the container: %w", err)
		}
		if err := unix.Kill(pid, 0); err != nil {
			return errors.New("container process is already dead")
		}
		if time.Since(begun) > silence {
			// A waiting init writes at once. One that lives and is silent was
			// started before, by somebody who died before he removed the fifo.
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
	}
}

// silence is how long a living init may take to write its byte.
const silence = 5 * time.Second

// Delete runs the hooks that follow a container and forgets it. What the
// monitor holds of it is released too.
func (h *Helper) Delete(ctx context.Context, root, id string) error {
	if _, err := os.Stat(filepath.Join(root, id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := h.run(ctx, helperTimeout, "delete", root, id); err != nil {
		return fmt.Errorf("deleting container %s: %w", id, err)
	}
	return nil
}

// run calls a verb of the helper that answers with success or an error only.
func (h *Helper) run(ctx context.Context, timeout time.Duration, call ...string) error {
	status, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer status.Close()
	cmd := exec.CommandContext(ctx, h.path, call...)
	cmd.Env, cmd.ExtraFiles = environment(), []*os.File{w}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, w.Close())
	}
	err = w.Close()
	text, readErr := readAll(ctx, status, 64<<10, timeout)
	if err := errors.Join(err, readErr); err != nil {
		_ = cmd.Process.Kill()
		return errors.Join(err, ignoreExit(cmd.Wait()))
	}
	if err := cmd.Wait(); err != nil {
		return &HelperError{parseReport(text).Error}
	}
	return nil
}

// Attachment are the streams of an attached client.
type Attachment struct {
	// Input is the container's standard input or its terminal; nil without one.
	Input *os.File
	// Stdout and Stderr end when the container's streams do.
	Stdout, Stderr *os.File
}

// Close ends the attachment; the container notices nothing.
func (a *Attachment) Close() error { return files{a.Input, a.Stdout, a.Stderr}.close() }

// Attach joins the streams of a running container from now on.
func (m *Monitor) Attach(id string) (*Attachment, error) {
	var a Attachment
	var theirs files
	for _, f := range []**os.File{&a.Stdout, &a.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, errors.Join(err, a.Close(), theirs.close())
		}
		*f, theirs = r, append(theirs, w)
	}
	input, err := m.call(theirs, "attach", id, "oe")
	a.Input = input
	if err = errors.Join(err, theirs.close()); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &a, nil
}

// CloseInput ends the standard input of a container.
func (m *Monitor) CloseInput(id string) error {
	_, err := m.call(nil, "closein", id)
	return err
}

// ReopenLog opens the log anew at its path, after a rotation.
func (m *Monitor) ReopenLog(id string) error {
	_, err := m.call(nil, "reopen", id)
	return err
}

// Forget releases what the monitor holds of an ended container.
func (m *Monitor) Forget(id string) error {
	_, err := m.call(nil, "forget", id)
	return err
}

// Exit tells how a process ended.
type Exit struct {
	// Code is the exit code, or 128 and the signal.
	Code   int
	Signal int
	Time   time.Time
}

// ReadExit returns the record of a container's end; ok is false while there is none.
func ReadExit(path string) (exit Exit, ok bool, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Exit{}, false, nil
	}
	if err != nil {
		return Exit{}, false, err
	}
	var seconds, nanoseconds int64
	if _, err := fmt.Sscanf(string(raw), "%d %d %d.%d\n", &exit.Code, &exit.Signal, &seconds, &nanoseconds); err != nil {
		return Exit{}, false, fmt.Errorf("%s: %w", path, err)
	}
	exit.Time = time.Unix(seconds, nanoseconds)
	return exit, true, nil
}

// Exec says what to run in a container, and with which streams.
type Exec struct {
	Root, ID string
	Process  *specs.Process
	// Stdin, Stdout and Stderr become the process's; nil is /dev/null. With
	// Process.Terminal they are left out.
	Stdin, Stdout, Stderr *os.File
}

// Execution is a process running in a container.
type Execution struct {
	// Pid is the process's on the host.
	Pid int
	// Terminal is the master side, if the process has a terminal.
	Terminal *os.File

	cmd *exec.Cmd
}

// Exec runs one more process in a container. The caller must call Wait, and
// closes Terminal.
func (h *Helper) Exec(ctx context.Context, e Exec) (_ *Execution, err error) {
	raw, err := json.Marshal(e.Process)
	if err != nil {
		return nil, err
	}
	var theirs files
	defer func() { err = errors.Join(err, theirs.close()) }()
	status, statusW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer status.Close()
	theirs = append(theirs, statusW)
	spec, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, spec)
	defer specW.Close()
	cmd := &exec.Cmd{Path: h.path, Args: []string{"kaji-init", "exec", e.Root, e.ID}, Dir: "/", Env: environment()}
	var console *os.File
	if e.Process.Terminal {
		var socket *os.File
		console, socket, err = socketPair()
		if err != nil {
			return nil, err
		}
		defer console.Close()
		theirs = append(theirs, socket)
	} else {
		if e.Stdin != nil {
			cmd.Stdin = e.Stdin
		}
		if e.Stdout != nil {
			cmd.Stdout = e.Stdout
		}
		if e.Stderr != nil {
			cmd.Stderr = e.Stderr
		}
	}
	cmd.ExtraFiles = theirs
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the container helper: %w", err)
	}
	abandon := func(err error) (*Execution, error) {
		return nil, errors.Join(err, cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	closeErr := theirs.close()
	theirs = nil
	if closeErr != nil {
		return abandon(closeErr)
	}
	if _, err := specW.Write(raw); err != nil {
		return abandon(err)
	}
	if err := specW.Close(); err != nil {
		return abandon(err)
	}
	pid, err := readReport(ctx, status, helperTimeout)
	if err != nil {
		return abandon(err)
	}
	run := &Execution{Pid: pid, cmd: cmd}
	if e.Process.Terminal {
		if run.Terminal, err = receiveFile(console); err != nil {
			return abandon(fmt.Errorf("receiving the terminal: %w", err))
		}
	}
	return run, nil
}

// Wait returns the exit code, with 128 and the signal for a killed process.
func (x *Execution) Wait() (int, error) {
	if err := ignoreExit(x.cmd.Wait()); err != nil {
		return 0, err
	}
	return x.cmd.ProcessState.ExitCode(), nil
}

// Kill ends the process; Wait returns soon after.
func (x *Execution) Kill() error {
	if err := unix.Kill(x.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

// HelperError is the failure of a container helper: libcontainer's own words.
type HelperError struct{ Message string }

func (e *HelperError) Error() string { return e.Message }

func readReport(ctx context.Context, status *os.File, timeout time.Duration) (int, error) {
	text, err := readAll(ctx, status, 64<<10, timeout)
	if err != nil {
		return 0, err
	}
	r := parseReport(text)
	if r.Error != "" {
		return 0, &HelperError{r.Error}
	}
	return r.Pid, nil
}

func parseReport(text string) (r report) {
	if strings.TrimSpace(text) == "" {
		return report{Error: "the container helper died"}
	}
	if err := json.NewDecoder(bytes.NewBufferString(text)).Decode(&r); err != nil {
		return report{Error: fmt.Sprintf("the container helper answered %q", text)}
	}
	return r
}

func socketPair() (own, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console"), nil
}

// receiveFile takes the descriptor that a process sends over a socket.
func receiveFile(socket *os.File) (*os.File, error) {
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), name, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	file, err := received(oob[:n])
	if err == nil && file == nil {
		err = errors.New("no descriptor came")
	}
	return file, err
}

type files []*os.File

func (fs files) close() error {
	var errs []error
	for _, f := range fs {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
