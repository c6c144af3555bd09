// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// Own gives everything below dir to a group, readable (and writable) for it,
// new files inheriting the group. With policy OnRootMismatch a directory that
// is right already is taken to be right below.
func Own(dir string, group *int64, readOnly bool, policy *corev1.PodFSGroupChangePolicy) error {
	if group == nil {
		return nil
	}
	if policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look at the volume's root: %w", err)
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if ok && int64(stat.Gid) == *group && info.Mode()&os.ModeSetgid != 0 && info.Mode().Perm()&0o070 == 0o070 {
			return nil
		}
	}
	// The root comes last: its state tells later that all below is done.
	var directories []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.IsDir() {
			directories = append(directories, path)
			return nil
		}
		return own(path, *group, readOnly)
	})
	for i := len(directories) - 1; i >= 0 && err == nil; i-- {
		err = own(directories[i], *group, readOnly)
	}
	if err != nil {
		return fmt.Errorf("applyFSGroup failed for vol %s: %w", dir, err)
	}
	return nil
}

func own(path string, group int64, readOnly bool) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(path, -1, int(group)); err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		return nil
	}
	mode := info.Mode().Perm() | 0o660
	if readOnly {
		mode = info.Mode().Perm() | 0o440
	}
	if info.IsDir() {
		mode |= 0o110 | os.ModeSetgid
	}
	return os.Chmod(path, mode|info.Mode()&(os.ModeSetuid|os.ModeSticky))
}
