// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"kaji/internal/container/cgroup"
)

// groupMount is where control groups are mounted.
const groupMount = "/sys/fs/cgroup"

// The drivers of control groups.
const (
	Cgroupfs      = "cgroupfs"
	CgroupSystemd = "systemd"
)

// checkDriver says whether this machine has a driver; empty is the first.
func checkDriver(driver string) error {
	switch driver {
	case "", Cgroupfs:
		return nil
	case CgroupSystemd:
		if _, err := os.Stat("/run/systemd/system"); err != nil {
			return errors.New("the cgroup driver systemd needs systemd, which does not run here: use cgroupfs")
		}
		return nil
	}
	return fmt.Errorf("unknown cgroup driver %q: want %s or %s", driver, Cgroupfs, CgroupSystemd)
}

// cgroupRoot is the control group that all of a node's pods are below.
func cgroupRoot(name string) string { return "/kaji-" + name }

// removeGroups ends what is left in the node's control groups and removes them, of
// every hierarchy.
func removeGroups(name string) error {
	root := cgroupRoot(name)
	errs := []error{cgroup.Driver{Root: root}.Remove(root)}
	if slice := cgroup.Slice(root); cgroup.Exists(slice) {
		errs = append(errs, cgroup.Driver{Systemd: true}.Remove(filepath.Base(slice)))
	}
	tops, err := filepath.Glob(filepath.Join(groupMount, "*", root)) // version 1, a hierarchy each
	errs = append(errs, err)
	for _, top := range append(tops, filepath.Join(groupMount, root)) {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
