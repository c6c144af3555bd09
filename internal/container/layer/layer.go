// SPDX-License-Identifier: Apache-2.0

// Package layer turns image layers, which are tar streams from anywhere, into
// directories that overlayfs can stack. Package image calls it. Whatever a
// stream says, nothing is touched outside the directory: every path is resolved
// by the kernel below it, and sizes and counts are bounded.
package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what one layer may hold.
type Limits struct {
	Bytes  int64 // of file contents
	Inodes int64
}

// DefaultLimits admit every layer met in practice.
var DefaultLimits = Limits{Bytes: 128 << 30, Inodes: 20 << 20}

// Usage is what a layer takes on disk.
type Usage struct{ Bytes, Inodes int64 }

const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
	paxXattr       = "SCHILY.xattr."
)

// Unpack writes the entries of the tar stream r into dir, an empty directory,
// with their owners, modes, times and extended attributes; whiteouts become
// those of overlayfs. After an error dir holds a part and must be removed.
func Unpack(dir string, r io.Reader, limits Limits) (Usage, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Usage{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	u := unpacker{root: root, parent: -1, limits: limits}
	defer unix.Close(root)
	defer u.leave()
	// Times of directories come last: making entries in them changes them.
	type dirTime struct {
		name string
		when time.Time
	}
	var dirs []dirTime
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return u.used, fmt.Errorf("reading the layer: %w", err)
		}
		if err := u.entry(h, in); err != nil {
			return u.used, fmt.Errorf("layer entry %q: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, dirTime{h.Name, h.ModTime})
		}
	}
	for _, d := range dirs {
		if err := u.setTime(d.name, d.when); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return u.used, fmt.Errorf("layer entry %q: %w", d.name, err)
		}
	}
	return u.used, nil
}

type unpacker struct {
	root   int
	limits Limits
	used   Usage

	parentName string // the directory that parent is open on
	parent     int    // or -1
}

func (u *unpacker) leave() {
	if u.parent >= 0 {
		_ = unix.Close(u.parent)
	}
	u.parent, u.parentName = -1, ""
}

// enter opens the directory of an entry, resolved inside the root, and makes it
// where an archive leaves it out.
func (u *unpacker) enter(dir string) (int, error) {
	if u.parent >= 0 && u.parentName == dir {
		return u.parent, nil
	}
	u.leave()
	fd, err := u.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		if err := u.makeDirs(dir); err != nil {
			return -1, err
		}
		fd, err = u.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	}
	if err != nil {
		return -1, err
	}
	u.parent, u.parentName = fd, dir
	return fd, nil
}

func (u *unpacker) open(name string, flags uint64) (int, error) {
	if name == "" {
		name = "."
	}
	return unix.Openat2(u.root, name, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

func (u *unpacker) makeDirs(dir string) error {
	at := ""
	for part := range strings.SplitSeq(dir, "/") {
		parent, err := u.open(at, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(parent, part, 0o755)
		_ = unix.Close(parent)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err == nil {
			u.used.Inodes++
		}
		at = path.Join(at, part)
	}
	return nil
}

// clean makes a name relative to the root, without any "..".
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name := clean(h.Name)
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root is not a directory")
		}
		return u.attributes(u.root, ".", h)
	}
	if u.used.Inodes++; u.used.Inodes > u.limits.Inodes {
		return fmt.Errorf("more than %d files", u.limits.Inodes)
	}
	dir, base := path.Split(name)
	parent, err := u.enter(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	switch {
	case base == whiteoutOpaque:
		return os.NewSyscallError("setxattr", unix.Setxattr(fdName(parent, ""), opaqueXattr, []byte("y"), 0))
	case strings.HasPrefix(base, whiteout):
		hidden := strings.TrimPrefix(base, whiteout)
		if hidden == "" || hidden == "." || hidden == ".." {
			return errors.New("whiteout without a name")
		}
		return os.NewSyscallError("mknod", unix.Mknodat(parent, hidden, unix.S_IFCHR, 0))
	}
	if err := u.make(parent, base, h, content); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil // the attributes are those of the target
	}
	return u.attributes(parent, base, h)
}

// make creates one file. A later entry of the same name replaces an earlier
// one, except that a directory stays.
func (u *unpacker) make(parent int, base string, h *tar.Header, content io.Reader) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isDir && h.Typeflag == tar.TypeDir {
			return nil
		}
		if err := u.removeAll(parent, base, isDir); err != nil {
			return err
		}
	}
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeDir:
		return os.NewSyscallError("mkdir", unix.Mkdirat(parent, base, 0o700))
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.makeFile(parent, base, content)
	case tar.TypeSymlink:
		return os.NewSyscallError("symlink", unix.Symlinkat(h.Linkname, parent, base))
	case tar.TypeLink:
		return u.link(parent, base, clean(h.Linkname))
	case tar.TypeFifo:
		return os.NewSyscallError("mknod", unix.Mknodat(parent, base, unix.S_IFIFO|mode, 0))
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		device := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		return os.NewSyscallError("mknod", unix.Mknodat(parent, base, kind|mode, int(device)))
	}
	return fmt.Errorf("unknown type %q", h.Typeflag)
}

func (u *unpacker) makeFile(parent int, base string, content io.Reader) error {
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	f := os.NewFile(uintptr(fd), base)
	room := u.limits.Bytes - u.used.Bytes
	n, err := io.Copy(f, io.LimitReader(content, room+1))
	u.used.Bytes += n
	if err == nil && n > room {
		err = fmt.Errorf("more than %d bytes", u.limits.Bytes)
	}
	return errors.Join(err, f.Close())
}

func (u *unpacker) link(parent int, base, target string) error {
	dir, name := path.Split(target)
	if name == "" {
		return errors.New("hard link to nothing")
	}
	from, err := u.open(strings.TrimSuffix(dir, "/"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	defer unix.Close(from)
	if err := unix.Linkat(from, name, parent, base, 0); err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	return nil
}

func (u *unpacker) removeAll(parent int, base string, isDir bool) error {
	if !isDir {
		return os.NewSyscallError("unlink", unix.Unlinkat(parent, base, 0))
	}
	root, err := os.OpenRoot(fdName(parent, ""))
	if err != nil {
		return err
	}
	defer root.Close()
	u.leave()
	return root.RemoveAll(base)
}

func (u *unpacker) attributes(parent int, base string, h *tar.Header) error {
	if err := unix.Fchownat(parent, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("chown", err)
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		err := unix.Lsetxattr(fdName(parent, base), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(parent, base, uint32(h.Mode&0o7777), 0); err != nil {
			return os.NewSyscallError("chmod", err)
		}
	}
	return utimes(parent, base, h.ModTime)
}

func (u *unpacker) setTime(name string, when time.Time) error {
	dir, base := path.Split(clean(name))
	if base == "" {
		base = "."
	}
	parent, err := u.open(strings.TrimSuffix(dir, "/"), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return utimes(parent, base, when)
}

func utimes(parent int, base string, when time.Time) error {
	if when.Before(time.Unix(0, 0)) {
		when = time.Unix(0, 0)
	}
	t := unix.NsecToTimespec(when.UnixNano())
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(parent, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW))
}

// fdName is a path to an open directory, or to base in it, for the calls that
// only take paths.
func fdName(fd int, base string) string {
	return path.Join("/proc/self/fd", strconv.Itoa(fd), base)
}
