// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Own gives everything below dir to the request's group, readable and writable for
// it, new files inheriting the group. With policy OnRootMismatch a directory that
// is right already is taken to be right below. Where that takes long, events tell it.
func (r Request) Own(dir string, policy *corev1.PodFSGroupChangePolicy) error {
	group := r.FSGroup
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
	var files atomic.Int64
	if r.Warn != nil && r.Pod != nil {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go progress(ctx, dir[max(strings.Index(dir, string(r.Pod.UID)), 0):], &files, r.Warn)
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
		files.Add(1)
		if d.IsDir() {
			directories = append(directories, path)
			return nil
		}
		return own(path, *group)
	})
	for i := len(directories) - 1; i >= 0 && err == nil; i-- {
		err = own(directories[i], *group)
	}
	if err != nil {
		return fmt.Errorf("applyFSGroup failed for vol %s: %w", dir, err)
	}
	return nil
}

// When it is told first that files are still being given away, and again.
const (
	firstProgress = 30 * time.Second
	nextProgress  = time.Minute
)

// progress tells until ctx ends that files of a volume are still being given away.
func progress(ctx context.Context, volume string, files *atomic.Int64, warn func(reason, message string)) {
	const reason = "VolumePermissionChangeInProgress"
	wait := time.NewTimer(firstProgress)
	defer wait.Stop()
	message := func() string {
		return "Setting volume ownership for " + volume + " is taking longer than expected, consider using OnRootMismatch - https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#configure-volume-permission-and-ownership-change-policy-for-pods"
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		warn(reason, message())
		message = func() string {
			return fmt.Sprintf("Setting volume ownership for %s, processed %d files.", volume, files.Load())
		}
		wait.Reset(nextProgress)
	}
}

func own(path string, group int64) error {
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
	if info.IsDir() {
		mode |= 0o110 | os.ModeSetgid
	}
	return os.Chmod(path, mode|info.Mode()&(os.ModeSetuid|os.ModeSticky))
}
