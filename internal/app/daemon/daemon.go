// SPDX-License-Identifier: Apache-2.0

// Package daemon keeps a cluster's background process: it starts it, knows
// whether it lives, and ends it. The process itself holds a lock on its PID file
// for life, so that a stale file never names a stranger.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	this "kaji/internal/app/program"
)

// ErrRunning says that another process holds the PID file.
var ErrRunning = errors.New("already running")

// Hold takes the PID file for this process; release lets it go. It returns
// ErrRunning when another process has it.
func Hold(path string) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrRunning
		}
		return nil, err
	}
	if err := errors.Join(f.Truncate(0), write(f, os.Getpid())); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func write(w io.Writer, pid int) error {
	_, err := fmt.Fprintln(w, pid)
	return err
}

// Running returns the id of the process that holds the PID file, or zero.
func Running(path string) (int, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return 0, nil // nobody holds it: the process is gone
	}
	data, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// Gone returns a channel that receives nil when nobody holds the PID file any more,
// unless ctx ends first.
func Gone(ctx context.Context, path string) <-chan error {
	gone := make(chan error, 1)
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if pid, err := Running(path); err == nil && pid == 0 {
				gone <- nil
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return gone
}

// Start runs a program, this one when the path is empty, with args as a session of
// its own, its output appended to the file log. The channel receives the
// process's end.
func Start(program string, args []string, log string) (pid int, ended <-chan error, err error) {
	if program == "" {
		if program, err = this.Path(); err != nil {
			return 0, nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		return 0, nil, err
	}
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return cmd.Process.Pid, done, nil
}

// ErrKilled tells that a process did not end by itself and does not run any more.
var ErrKilled = errors.New("did not end in time and was killed; its log says what it was at")

// Stop asks the holder of the PID file to end and waits until it has, or ctx
// does; then it is killed, and the error is ErrKilled.
func Stop(ctx context.Context, path string) error {
	pid, err := Running(path)
	if err != nil || pid == 0 {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping process %d: %w", pid, err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, err := Running(path); err != nil || now != pid {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("process %d %w", pid, ErrKilled), kill(pid))
		}
	}
}

// kill ends a process that does not end by itself. It writes down first where each
// of its goroutines stands, if it still can.
func kill(pid int) error {
	_ = syscall.Kill(pid, syscall.SIGQUIT)
	for range 100 {
		if syscall.Kill(pid, 0) != nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
