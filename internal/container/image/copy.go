// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"kaji/internal/container/layer"
)

// isMissing says whether an error of mounting an overlay means that this kernel, or
// the file system of the store, has none.
func isMissing(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

// mountWithout mounts a root file system where there is no overlayfs: by
// fuse-overlayfs, or of a copy.
func (s *Store) mountWithout(m Rootfs, lower []string, cause error) error {
	err := mountFuse(m, lower)
	if err == nil {
		return nil
	}
	s.copying.Do(func() {
		s.cfg.Logger.Warn("root file systems are copied: there is neither overlayfs nor fuse-overlayfs", "overlayfs", cause, "fuse-overlayfs", err)
	})
	return s.mountCopy(m)
}

// mountFuse lets fuse-overlayfs serve a root file system. Its process lives as long
// as the mount, not as this one.
func mountFuse(m Rootfs, lower []string) error {
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		return errors.New("fuse-overlayfs is not installed")
	}
	if m.UserNS != "" {
		return errors.New("fuse-overlayfs cannot map owners")
	}
	options := "lowerdir=" + joinLayers(lower)
	if m.Upper != "" {
		options += ",upperdir=" + escapeLayer(m.Upper) + ",workdir=" + escapeLayer(m.Work)
	} else {
		options += ",ro"
	}
	cmd := exec.Command(program, "-o", options, m.Target)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// mountCopy mounts a copy of all layers with what is in Upper already, which takes
// the place of Upper. A file system that is only read has its copy beside the
// mount.
func (s *Store) mountCopy(m Rootfs) error {
	if m.Upper == "" && len(m.Layers) == 1 && m.UserNS == "" {
		return bindReadOnly(s.LayerPath(m.Layers[0]), m.Target)
	}
	upper := m.Upper
	if upper == "" {
		upper = m.Target + ".copy"
		if err := os.RemoveAll(upper); err != nil { // of a mount that is gone
			return err
		}
		if err := os.Mkdir(upper, 0o755); err != nil {
			return err
		}
	}
	fresh := upper + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	for _, from := range append(s.layerPaths(m.Layers), upper) {
		if err := layer.Apply(fresh, from); err != nil {
			return errors.Join(err, os.RemoveAll(fresh))
		}
	}
	if m.UserNS != "" { // the mount maps owners, nothing else may
		if err := os.Chown(fresh, 0, 0); err != nil {
			return err
		}
	}
	// What is gone from the copy is gone, whatever the layers have.
	if err := layer.SetOpaque(fresh); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	if err := os.RemoveAll(upper); err != nil {
		return err
	}
	if err := os.Rename(fresh, upper); err != nil {
		return err
	}
	if m.UserNS == "" {
		if m.Upper == "" {
			return bindReadOnly(upper, m.Target)
		}
		return os.NewSyscallError("mount", unix.Mount(upper, m.Target, "", unix.MS_BIND, ""))
	}
	ns, err := os.Open(m.UserNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := mountMapped(upper, m.Target, int(ns.Fd())); err != nil || m.Upper != "" {
		return err
	}
	return os.NewSyscallError("mount", unix.Mount("", m.Target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

// layerPaths are the directories of layers, in their order.
func (s *Store) layerPaths(diffIDs []string) []string {
	paths := make([]string, 0, len(diffIDs)+1)
	for _, id := range diffIDs {
		paths = append(paths, s.LayerPath(id))
	}
	return paths
}

// top is the order that overlayfs has: the topmost first.
func top(paths []string) []string {
	slices.Reverse(paths)
	return paths
}

// removeCopy removes the copy behind a mount that was only read.
func removeCopy(target string) error {
	return os.RemoveAll(filepath.Clean(target) + ".copy")
}
