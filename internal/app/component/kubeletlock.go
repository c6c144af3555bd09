// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"kaji/internal/kubelet/flags"
)

// lockFile waits until no other agent holds the lock file, and holds it until
// unlock. With --exit-on-lock-contention the context ends when another opens it.
func lockFile(ctx context.Context, o *flags.Options, log *slog.Logger) (_ context.Context, unlock func(), err error) {
	if o.ExitOnLockContention && o.LockFile == "" {
		return nil, nil, errors.New("cannot exit on lock file contention: no lock file specified")
	}
	if o.LockFile == "" {
		return ctx, func() {}, nil
	}
	log.Info("Acquiring file lock", "path", o.LockFile)
	f, err := os.OpenFile(o.LockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("unable to acquire file lock on %q: %w", o.LockFile, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("unable to acquire file lock on %q: %w", o.LockFile, err)
	}
	unlock = func() { f.Close() } // which gives the lock back
	if !o.ExitOnLockContention {
		return ctx, unlock, nil
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		_, err = unix.InotifyAddWatch(watch, o.LockFile, unix.IN_OPEN|unix.IN_DELETE_SELF)
	}
	if err != nil {
		unlock()
		return nil, nil, fmt.Errorf("unable to create watcher for lockfile: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	events := os.NewFile(uintptr(watch), "inotify")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := events.Read(make([]byte, 4096)); err == nil {
			log.Info("Lockfile contention, the agent ends", "path", o.LockFile)
			cancel()
		}
	}()
	return ctx, func() {
		events.Close()
		<-done
		cancel()
		unlock()
	}, nil
}
