// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pack writes what overlayfs keeps in upper, the changes to what is below it, as
// a tar stream, and returns the paths that are gone. lower are the directories
// below it, the topmost first; they are looked at where a directory of upper hides
// all of them. merged is the mounted overlay: a directory that was renamed is
// written as it shows there.
func Pack(w io.Writer, upper string, lower []string, merged string) (deleted []string, err error) {
	p := packer{root: upper, merged: merged, lower: lower, out: tar.NewWriter(w), first: map[[2]uint64]string{}}
	if err := p.dir(".", false); err != nil {
		return nil, err
	}
	return p.deleted, p.out.Close()
}

// redirectXattr marks a directory whose lower ones have another name.
const redirectXattr = "trusted.overlay.redirect"

type packer struct {
	root    string // where files are read: upper, or merged below a renamed directory
	merged  string
	lower   []string
	out     *tar.Writer
	first   map[[2]uint64]string // the name under which a file with several has been written, by device and inode
	deleted []string
}

// dir writes the entries of a directory; opaque says that it hides those below.
func (p *packer) dir(name string, opaque bool) error {
	if p.root != p.merged && has(filepath.Join(p.root, name), redirectXattr) {
		defer func(root string) { p.root = root }(p.root)
		p.root, opaque = p.merged, true
	}
	entries, err := os.ReadDir(filepath.Join(p.root, name))
	if err != nil {
		return err
	}
	opaque = opaque || isOpaque(filepath.Join(p.root, name))
	if opaque {
		for _, below := range p.hidden(name) {
			if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == below }) {
				p.deleted = append(p.deleted, filepath.Join(name, below))
			}
		}
	}
	for _, e := range entries {
		path := filepath.Join(name, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 { // a whiteout
			if !opaque {
				p.deleted = append(p.deleted, path)
			}
			continue
		}
		if err := p.entry(path, info, st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if e.IsDir() {
			if err := p.dir(path, opaque); err != nil {
				return err
			}
		}
	}
	return nil
}

// hidden lists what the lower directories show at a path.
func (p *packer) hidden(name string) (list []string) {
	gone := map[string]bool{} // hidden or shown by a higher one
	for _, lower := range p.lower {
		dir := filepath.Join(lower, name)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // there is no such directory in this one
		}
		for _, e := range entries {
			if gone[e.Name()] {
				continue
			}
			gone[e.Name()] = true
			var st unix.Stat_t
			if unix.Lstat(filepath.Join(dir, e.Name()), &st) == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0) {
				list = append(list, e.Name())
			}
		}
		if isOpaque(dir) {
			break
		}
	}
	return list
}

// has says whether a file has an extended attribute.
func has(path, attribute string) bool {
	_, err := unix.Lgetxattr(path, attribute, nil)
	return err == nil
}

// SetOpaque marks a directory of overlayfs as one that hides all that is below it.
func SetOpaque(dir string) error {
	return os.NewSyscallError("setxattr", unix.Setxattr(dir, opaqueXattr, []byte("y"), 0))
}

func isOpaque(dir string) bool {
	var value [1]byte
	n, err := unix.Lgetxattr(dir, opaqueXattr, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

func (p *packer) entry(name string, info fs.FileInfo, st *syscall.Stat_t) error {
	var target string
	var err error
	switch {
	case info.Mode()&fs.ModeSocket != 0:
		return nil // of a process; an archive has none
	case info.Mode()&fs.ModeSymlink != 0:
		if target, err = os.Readlink(filepath.Join(p.root, name)); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname, h.Format = name, "", "", tar.FormatPAX
	h.AccessTime, h.ChangeTime = h.ModTime, h.ModTime
	if info.IsDir() {
		h.Name += "/"
	}
	if st.Nlink > 1 && info.Mode().IsRegular() {
		inode := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := p.first[inode]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.out.WriteHeader(h)
		}
		p.first[inode] = name
	}
	if h.PAXRecords, err = p.attributes(name); err != nil {
		return err
	}
	if err := p.out.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(filepath.Join(p.root, name))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(p.out, io.LimitReader(f, h.Size))
	return err
}

// attributes are the extended attributes of a file, without those of overlayfs.
func (p *packer) attributes(name string) (map[string]string, error) {
	path := filepath.Join(p.root, name)
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("listxattr", err)
	}
	records := map[string]string{}
	for attribute := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if attribute == "" || strings.HasPrefix(attribute, "trusted.overlay.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, attribute, value)
		if err != nil {
			return nil, os.NewSyscallError("getxattr "+attribute, err)
		}
		records[paxXattr+attribute] = string(value[:n])
	}
	return records, nil
}
