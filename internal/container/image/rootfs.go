// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Hold keeps layers, by their DiffIDs, from being removed with their image
// until release is called.
func (s *Store) Hold(diffIDs []string) (release func()) { return s.hold(diffIDs...) }

// Sweep removes what no image and no holder needs. The owner calls it once at
// its start, when everything in use is held.
func (s *Store) Sweep() error { return s.sweep() }

// Mount mounts the stacked layers, given by their DiffIDs, at target. With an
// upper directory (and a work directory beside it) the file system can be
// written to; without, it is read-only.
func (s *Store) Mount(diffIDs []string, upper, work, target string) error {
	lower := make([]string, 0, len(diffIDs)+1)
	for _, id := range slices.Backward(diffIDs) {
		lower = append(lower, filepath.Join(s.layerDir(id), "fs"))
	}
	return mountOverlay(lower, upper, work, target, filepath.Join(s.cfg.Root, "tmp"))
}

// mountOverlay stacks lower directories, the topmost first. empty is a
// directory without use below lower ones, for the kernel's demand of two where
// nothing can be written.
func mountOverlay(lower []string, upper, work, target, empty string) error {
	if upper == "" || len(lower) == 0 {
		none := filepath.Join(empty, "none")
		if err := os.MkdirAll(none, 0o755); err != nil {
			return err
		}
		lower = append(lower, none)
	}
	for _, dir := range []string{upper, work, target} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if upper == "" && len(lower) == 1 {
		return bindReadOnly(lower[0], target)
	}
	err := mountOverlayFD(lower, upper, work, target)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = mountOverlayOptions(lower, upper, work, target) // before Linux 6.8
	}
	if err != nil {
		return fmt.Errorf("mounting the root file system: %w", err)
	}
	return nil
}

func bindReadOnly(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return os.NewSyscallError("mount", unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

// mountOverlayFD takes any number of layers, one parameter each.
func mountOverlayFD(lower []string, upper, work, target string) error {
	ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(ctx)
	set := func(key, value string) error {
		return os.NewSyscallError("fsconfig "+key, unix.FsconfigSetString(ctx, key, value))
	}
	for _, dir := range lower {
		if err := set("lowerdir+", dir); err != nil {
			return err
		}
	}
	if upper != "" {
		if err := set("upperdir", upper); err != nil {
			return err
		}
		if err := set("workdir", work); err != nil {
			return err
		}
		// What containers write need not survive the machine's crash.
		_ = unix.FsconfigSetFlag(ctx, "volatile")
	}
	_ = unix.FsconfigSetString(ctx, "xino", "off")
	if err := unix.FsconfigCreate(ctx); err != nil {
		return os.NewSyscallError("fsconfig create", err)
	}
	mount, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mount)
	return os.NewSyscallError("move_mount", unix.MoveMount(mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

func mountOverlayOptions(lower []string, upper, work, target string) error {
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
	for i, dir := range lower {
		lower[i] = escape.Replace(dir)
	}
	options := "lowerdir=" + strings.Join(lower, ":")
	if upper != "" {
		options += ",upperdir=" + escape.Replace(upper) + ",workdir=" + escape.Replace(work)
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("%d layers are too many for this kernel", len(lower))
	}
	return os.NewSyscallError("mount", unix.Mount("overlay", target, "overlay", 0, options))
}

// Unmount detaches a mount made by Mount; it succeeds when there is none.
func Unmount(target string) error {
	err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return os.NewSyscallError("umount", err)
}
