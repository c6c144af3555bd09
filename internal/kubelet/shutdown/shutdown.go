// SPDX-License-Identifier: Apache-2.0

// Package shutdown notices that the machine is going down: it holds a lock of
// systemd's logind that delays that, and gives it back when pods have ended
// (KEP-2000). The agent's root runs it and says what there is to do. Without logind
// it does nothing but try again.
package shutdown

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	login1    = "org.freedesktop.login1"
	loginPath = dbus.ObjectPath("/org/freedesktop/login1")
	manager   = "org.freedesktop.login1.Manager"
	systemd1  = "org.freedesktop.systemd1"
	// again is how long a connection that failed is not tried.
	again = 5 * time.Second
	// patience bounds an answer on the bus.
	patience = 30 * time.Second
)

// Group is what pods of a priority, and of those up to the next group, get.
type Group struct {
	Priority int32
	Grace    time.Duration
}

// Watcher waits for the end of the machine.
type Watcher struct {
	// Groups are those of the configuration; together their times are how long
	// the shutdown is to be delayed.
	Groups []Group
	// Begin ends what runs; Cancel is called when the shutdown does not come
	// after all.
	Begin  func(context.Context)
	Cancel func()
	// Connect opens the bus; nil is the system's.
	Connect func(ctx context.Context) (*dbus.Conn, error)
	// ConfDir is where logind reads drop-ins; "" is "/etc/systemd/logind.conf.d".
	ConfDir string
	Logger  *slog.Logger
}

// Run waits until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	told := ""
	for {
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if why := fmt.Sprint(err); why != told {
			w.Logger.Warn("the end of the machine is not watched for, it is tried again", "err", err)
			told = why
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
	}
}

func (w *Watcher) connect(ctx context.Context) (*dbus.Conn, error) {
	if w.Connect != nil {
		return w.Connect(ctx)
	}
	return dbus.ConnectSystemBus(dbus.WithContext(ctx))
}

// watch is one connection's life.
func (w *Watcher) watch(ctx context.Context) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := w.ensureDelay(ctx, conn); err != nil {
		return err
	}
	events := make(chan *dbus.Signal, 8)
	conn.Signal(events)
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(manager), dbus.WithMatchMember("PrepareForShutdown"), dbus.WithMatchObjectPath(loginPath)); err != nil {
		return fmt.Errorf("ask for shutdown events: %w", err)
	}
	lock, err := inhibit(ctx, conn)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // it may be given back already
	for {
		var event *dbus.Signal
		var ok bool
		select {
		case <-ctx.Done():
			return nil
		case event, ok = <-events:
		}
		if !ok {
			return errors.New("the connection to logind ended")
		}
		var begins bool
		if event.Name != manager+".PrepareForShutdown" || dbus.Store(event.Body, &begins) != nil {
			continue
		}
		if begins {
			w.Begin(ctx)
			_ = lock.Close() // all has ended that was to: the machine may go
			continue
		}
		w.Cancel()
		_ = lock.Close() // that of before
		if lock, err = inhibit(ctx, conn); err != nil {
			return err
		}
	}
}

// inhibit takes the lock that delays a shutdown.
func inhibit(ctx context.Context, conn *dbus.Conn) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var fd dbus.UnixFD
	err := conn.Object(login1, loginPath).CallWithContext(ctx, manager+".Inhibit", 0, "shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("failed creating systemd inhibitor: %w", err)
	}
	return os.NewFile(uintptr(fd), "inhibitor"), nil
}

// delay asks how long logind lets itself be delayed.
func delay(ctx context.Context, conn *dbus.Conn) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var value dbus.Variant
	err := conn.Object(login1, loginPath).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, manager, "InhibitDelayMaxUSec").Store(&value)
	if err != nil {
		return 0, fmt.Errorf("failed reading InhibitDelayMaxUSec property from logind: %w", err)
	}
	micros, ok := value.Value().(uint64)
	if !ok {
		return 0, errors.New("InhibitDelayMaxUSec from logind is not a uint64 as expected")
	}
	return time.Duration(micros) * time.Microsecond, nil //nolint:gosec // no delay is that long
}

// ensureDelay has logind wait as long as the pods are to get.
func (w *Watcher) ensureDelay(ctx context.Context, conn *dbus.Conn) error {
	wanted := time.Duration(0)
	for _, g := range w.Groups {
		wanted += g.Grace
	}
	now, err := delay(ctx, conn)
	if err != nil || now >= wanted {
		return err
	}
	dir := w.ConfDir
	if dir == "" {
		dir = "/etc/systemd/logind.conf.d"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of logind's drop-ins: %w", err)
	}
	text := fmt.Sprintf("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=%.0f\n", wanted.Seconds())
	if err := os.WriteFile(filepath.Join(dir, "99-kubelet.conf"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("failed writing logind shutdown inhibit override file: %w", err)
	}
	call, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := conn.Object(systemd1, "/org/freedesktop/systemd1").CallWithContext(call, systemd1+".Manager.KillUnit", 0, "systemd-logind.service", "all", int32(1)).Err; err != nil {
		return fmt.Errorf("unable to reload logind conf: %w", err)
	}
	for range 50 { // logind reads its configuration when it comes to it
		if now, err = delay(ctx, conn); err != nil || now >= wanted {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("node shutdown manager was unable to update logind InhibitDelayMaxSec to %v (ShutdownGracePeriod), current value of InhibitDelayMaxSec (%v) is less than requested ShutdownGracePeriod", wanted, now)
}
