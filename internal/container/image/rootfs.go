// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Hold keeps layers, by their DiffIDs, from being removed with their image
// until release is called.
func (s *Store) Hold(diffIDs []string) (release func()) { return s.hold(diffIDs...) }

// Sweep removes what no image and no holder needs. The owner calls it once at
// its start, when everything in use is held.
func (s *Store) Sweep() error { return s.sweep() }

// LayerPath is the unpacked directory of a layer, by its DiffID.
func (s *Store) LayerPath(diffID string) string { return filepath.Join(s.layerDir(diffID), "fs") }

// Rootfs says how to mount the stacked layers of an image.
type Rootfs struct {
	// Layers are DiffIDs, the lowest first.
	Layers []string
	// Upper receives what is written, with Work beside it; both are empty for a
	// read-only file system.
	Upper, Work string
	// Target is where to mount.
	Target string
	// UserNS is the path of the user namespace whose ids the files' owners are;
	// empty for the host's. Root is what its root is on the host.
	UserNS           string
	RootUID, RootGID int
}

// Mount mounts a root file system: an overlay, or where there is none what
// fuse-overlayfs serves, or a copy.
func (s *Store) Mount(m Rootfs) error {
	lower := top(s.layerPaths(m.Layers))
	for _, dir := range []string{m.Upper, m.Work, m.Target} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if m.UserNS != "" {
		mapped, release, err := mapLayers(lower, m.UserNS, filepath.Dir(m.Target))
		if err != nil {
			return err
		}
		defer release()
		lower = mapped
		if m.Upper != "" {
			if err := os.Chown(m.Upper, m.RootUID, m.RootGID); err != nil {
				return err
			}
		}
	}
	err := s.overlay(lower, m.Upper, m.Work, m.Target, filepath.Join(s.cfg.Root, "tmp"))
	if isMissing(err) {
		return s.mountWithout(m, lower, err)
	}
	return err
}

// mapLayers mounts layers once more, below dir, with their owners mapped into a
// user namespace. The overlay keeps what it needs of them; release unmounts the
// rest.
func mapLayers(lower []string, userns, dir string) (mapped []string, release func(), err error) {
	release = func() {
		for _, at := range mapped {
			_ = unix.Unmount(at, unix.MNT_DETACH)
			_ = os.Remove(at)
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	ns, err := os.Open(userns)
	if err != nil {
		return nil, nil, err
	}
	defer ns.Close()
	for i, layer := range lower {
		at := filepath.Join(dir, fmt.Sprintf("layer-%d", i))
		if err := os.MkdirAll(at, 0o700); err != nil {
			return nil, nil, err
		}
		if err := mountMapped(layer, at, int(ns.Fd())); err != nil {
			return nil, nil, fmt.Errorf("mapping the owners of an image's files: %w", err)
		}
		mapped = append(mapped, at)
	}
	return mapped, release, nil
}

func mountMapped(source, target string, userns int) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns), Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	return os.NewSyscallError("move_mount", unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
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
	options := "lowerdir=" + joinLayers(lower)
	if upper != "" {
		options += ",upperdir=" + escapeLayer(upper) + ",workdir=" + escapeLayer(work)
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("%d layers are too many for this kernel", len(lower))
	}
	return os.NewSyscallError("mount", unix.Mount("overlay", target, "overlay", 0, options))
}

var escapeLayer = strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace

// joinLayers writes directories as the option lowerdir takes them.
func joinLayers(dirs []string) string {
	escaped := make([]string, len(dirs))
	for i, dir := range dirs {
		escaped[i] = escapeLayer(dir)
	}
	return strings.Join(escaped, ":")
}

// Unmount detaches a mount made by Mount; it succeeds when there is none.
func Unmount(target string) error {
	err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return os.NewSyscallError("umount", err)
	}
	return removeCopy(target)
}
