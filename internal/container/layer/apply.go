// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Apply copies an unpacked layer over a plain directory, as overlayfs would show
// the two: what the layer hides goes. Nobody else may write either meanwhile.
func Apply(dir, layer string) error {
	a := applier{from: layer, to: dir, first: map[[2]uint64]string{}}
	return a.dir(".")
}

type applier struct {
	from, to string
	first    map[[2]uint64]string // where a file with several names is, by device and inode
}

func (a *applier) dir(name string) error {
	from, to := filepath.Join(a.from, name), filepath.Join(a.to, name)
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if isOpaque(from) {
		hidden, err := os.ReadDir(to)
		if err != nil {
			return err
		}
		for _, e := range hidden {
			if err := os.RemoveAll(filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	}
	for _, e := range entries {
		path := filepath.Join(name, e.Name())
		if err := a.entry(path, e); err != nil {
			return fmt.Errorf("copying %s: %w", path, err)
		}
	}
	// Last: making entries changes the time, and a mode may forbid it.
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	return copyAttributes(to, from, &st)
}

func (a *applier) entry(name string, e fs.DirEntry) error {
	from, to := filepath.Join(a.from, name), filepath.Join(a.to, name)
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	old, err := os.Lstat(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if e.IsDir() && err == nil && old.IsDir() {
		return a.dir(name)
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFCHR && st.Rdev == 0 { // a whiteout
		return nil
	}
	inode := [2]uint64{uint64(st.Dev), st.Ino}
	if first, ok := a.first[inode]; ok && kind != unix.S_IFDIR {
		return os.Link(first, to)
	}
	switch kind {
	case unix.S_IFDIR:
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		return a.dir(name)
	case unix.S_IFREG:
		err = copyContent(to, from)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	case unix.S_IFSOCK:
		return nil
	default:
		err = os.NewSyscallError("mknod", unix.Mknod(to, st.Mode, int(st.Rdev)))
	}
	if err != nil {
		return err
	}
	if st.Nlink > 1 {
		a.first[inode] = to
	}
	return copyAttributes(to, from, &st)
}

func copyContent(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in) // shares the blocks where the file system can
	return errors.Join(err, out.Close())
}

// copyAttributes gives a file owner, extended attributes, mode and time of another.
func copyAttributes(to, from string, st *unix.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(from, list)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return os.NewSyscallError("listxattr", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:max(n, 0)]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return os.NewSyscallError("setxattr "+name, err)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return os.NewSyscallError("chmod", err)
		}
	}
	return utimes(unix.AT_FDCWD, to, time.Unix(st.Mtim.Unix()))
}
