// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"kaji/internal/app/home"
)

// StockRoot is where manifests of CSI drivers, device plug-ins and others expect
// the node agent's directory.
const StockRoot = "/var/lib/kubelet"

// kubeletRoot makes the node agent's directory and returns the name that it goes
// by: StockRoot, as a link, where that belongs to nobody else on the machine.
// Drivers run with that directory and are told paths in it, so it is the name that
// counts, not where the files are.
func kubeletRoot(dir home.Dir, stock string, log *slog.Logger) (string, error) {
	own := dir.Kubelet()
	if err := os.MkdirAll(own, 0o750); err != nil {
		return "", fmt.Errorf("kubelet: %w", err)
	}
	if err := share(own); err != nil {
		log.Warn("what drivers mount in their containers will not reach pods", "err", err)
	}
	for range 3 {
		err := os.Symlink(own, stock)
		if err == nil {
			return stock, nil
		}
		target, err := os.Readlink(stock)
		switch {
		case err == nil && target == own:
			return stock, nil
		case err == nil: // another cluster's, unless that is gone
			if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
				_ = os.Remove(stock) // the next try tells
				continue
			}
		case errors.Is(err, fs.ErrNotExist): // it went just now, or what is above it is missing
			if err := os.MkdirAll(filepath.Dir(stock), 0o755); err != nil {
				return "", fmt.Errorf("kubelet: %w", err)
			}
			continue
		case os.Remove(stock) == nil: // an empty directory
			continue
		}
		break
	}
	log.Warn("another node agent has "+stock+": CSI drivers and device plug-ins need manifests with another directory", "directory", own)
	return own, nil
}

// share lets what is mounted below a directory in one place be seen in others.
func share(dir string) error {
	shared := false
	_, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		if i.Mountpoint == dir || i.Mountpoint == "/" || len(i.Mountpoint) < len(dir) && dir[:len(i.Mountpoint)] == i.Mountpoint && dir[len(i.Mountpoint)] == '/' {
			shared = i.Optional != "" && i.Optional[:min(7, len(i.Optional))] == "shared:" // the last in the list is the nearest
		}
		return true, false
	})
	if err != nil || shared {
		return err
	}
	mounted, err := mountinfo.Mounted(dir)
	if err != nil {
		return err
	}
	if !mounted {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s to itself: %w", dir, err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts below %s: %w", dir, err)
	}
	return nil
}

// dropRoot gives StockRoot free, if it is this node's.
func dropRoot(dir home.Dir, stock string) error {
	if target, err := os.Readlink(stock); err != nil || target != dir.Kubelet() {
		return nil
	}
	return os.Remove(stock)
}
