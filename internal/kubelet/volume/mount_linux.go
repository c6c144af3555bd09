// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"errors"
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mounter is the edge to the kernel's mounts. Tests of drivers replace it.
type Mounter interface {
	// Tmpfs mounts memory at an existing directory; size 0 is the kernel's own.
	Tmpfs(dir string, size int64) error
	// Bind shows src at dst, which exists.
	Bind(src, dst string, readOnly bool) error
	// Mount mounts a device or an export.
	Mount(source, dir, fsType string, flags uintptr, data string) error
	// Unmount takes away what is mounted at path; nothing there is no error.
	Unmount(path string) error
	Mounted(path string) (bool, error)
}

// Kernel is the Mounter that works.
type Kernel struct{}

var _ Mounter = Kernel{}

// Tmpfs implements Mounter.
func (Kernel) Tmpfs(dir string, size int64) error {
	data := "mode=1777"
	if size > 0 {
		data += fmt.Sprintf(",size=%d", size)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, data); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", dir, err)
	}
	return nil
}

// Bind implements Mounter.
func (Kernel) Bind(src, dst string, readOnly bool) error {
	if err := unix.Mount(src, dst, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", src, dst, err)
	}
	if readOnly {
		if err := unix.Mount("", dst, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", dst, err)
		}
	}
	return nil
}

// Mount implements Mounter.
func (Kernel) Mount(source, dir, fsType string, flags uintptr, data string) error {
	if err := unix.Mount(source, dir, fsType, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, dir, err)
	}
	return nil
}

// Unmount implements Mounter.
func (k Kernel) Unmount(path string) error {
	for {
		mounted, err := k.Mounted(path)
		if err != nil || !mounted {
			return err
		}
		if err := unix.Unmount(path, 0); err != nil {
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				return nil
			}
			if !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("unmount %s: %w", path, err)
			}
			// Something on the host still looks at it; it goes when that ends.
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", path, err)
			}
		}
	}
}

// Mounted implements Mounter.
func (Kernel) Mounted(path string) (bool, error) {
	mounted, err := mountinfo.Mounted(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a mount at %s: %w", path, err)
	}
	return mounted, nil
}
