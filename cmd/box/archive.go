// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tarOptions are those that kubectl cp, and people by hand, use.
type tarOptions struct {
	create, extract, list, verbose, now bool
	file, dir                           string
}

// parseTar reads options as tar does: the first word needs no dash, and letters
// that take a value take the next word.
func parseTar(args []string) (o tarOptions, paths []string, err error) {
	o.file = "-"
	for first := true; len(args) > 0; first = false {
		word := args[0]
		args = args[1:]
		switch {
		case strings.HasPrefix(word, "--"):
			continue // owners and permissions are kept or not as the kernel lets us
		case !strings.HasPrefix(word, "-") && !first, word == "-":
			paths = append(paths, word)
			continue
		}
		for _, letter := range strings.TrimPrefix(word, "-") {
			switch letter {
			case 'c':
				o.create = true
			case 'x':
				o.extract = true
			case 't':
				o.list = true
			case 'v':
				o.verbose = true
			case 'm':
				o.now = true
			case 'f', 'C':
				if len(args) == 0 {
					return o, nil, fmt.Errorf("option -%c needs a value", letter)
				}
				if letter == 'f' {
					o.file = args[0]
				} else {
					o.dir = args[0]
				}
				args = args[1:]
			case 'p', 'o', 'h':
			default:
				return o, nil, fmt.Errorf("unknown option -%c", letter)
			}
		}
	}
	return o, paths, nil
}

// tarTool is tar: tar cf FILE PATH…, tar xf FILE, tar tf FILE, with -C DIR, -m and
// -v; FILE - is stdin or stdout.
func tarTool(_ context.Context, s *stdio, args []string) int {
	o, paths, err := parseTar(args)
	if err == nil {
		base := s.path(o.dir)
		switch {
		case o.create:
			err = s.pack(o, base, paths)
		case o.extract, o.list:
			err = s.unpack(o, base)
		default:
			err = errors.New("say what to do: c, x or t")
		}
	}
	if err != nil {
		return s.fail("tar", err)
	}
	return 0
}

func (s *stdio) pack(o tarOptions, base string, paths []string) (err error) {
	to := s.out
	if o.file != "-" {
		file, err := os.Create(s.path(o.file))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		to = file
	}
	out := tar.NewWriter(to)
	for _, p := range paths {
		from := p
		if !filepath.IsAbs(p) {
			from = filepath.Join(base, p)
		}
		if err := filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(p+strings.TrimPrefix(path, from), "/")
			if o.verbose {
				fmt.Fprintln(s.err, name)
			}
			return packOne(out, path, name)
		}); err != nil {
			return err
		}
	}
	return out.Close()
}

func packOne(out *tar.Writer, path, name string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	if header.Name = name; info.IsDir() {
		header.Name += "/"
	}
	if !info.Mode().IsRegular() {
		return out.WriteHeader(header)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.CopyN(out, file, header.Size)
	return err
}

func (s *stdio) unpack(o tarOptions, base string) error {
	from := s.in
	if o.file != "-" {
		file, err := os.Open(s.path(o.file))
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	in := tar.NewReader(from)
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if o.list || o.verbose {
			fmt.Fprintln(s.out, header.Name)
		}
		if o.list {
			continue
		}
		if !filepath.IsLocal(strings.TrimPrefix(header.Name, "/")) {
			return fmt.Errorf("%s leads outside", header.Name)
		}
		if err := unpackOne(in, header, filepath.Join(base, header.Name), o.now); err != nil {
			return err
		}
	}
}

func unpackOne(in io.Reader, header *tar.Header, path string, now bool) error {
	mode := header.FileInfo().Mode()
	if header.Typeflag == tar.TypeDir {
		return os.MkdirAll(path, mode.Perm()|0o700)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		return os.Symlink(header.Linkname, path)
	case tar.TypeReg:
	default:
		return fmt.Errorf("%s: neither file nor directory nor link", header.Name)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(file, in)
	if err = errors.Join(err, file.Close()); err != nil || now {
		return err
	}
	return os.Chtimes(path, time.Time{}, header.ModTime)
}
