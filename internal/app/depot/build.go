// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

// Build says what an image is made of.
type Build struct {
	// Path is the root file system, a directory, or one program, linked
	// statically, which becomes the entrypoint.
	Path string
	// Tag names the image.
	Tag string
	// Entrypoint, Cmd, Env, WorkingDir and User say how it is run; an entrypoint
	// is needed by a directory's image unless pods give a command.
	Entrypoint, Cmd, Env []string
	WorkingDir, User     string
	// Temp is the directory for the unfinished layer.
	Temp string
}

// Write writes the image as an archive that Import reads. The same content
// gives the same image: times are left out.
func (b Build) Write(w io.Writer) error {
	tag, err := name.NewTag(b.Tag)
	if err != nil {
		return fmt.Errorf("--tag: %w", err)
	}
	st, err := os.Stat(b.Path)
	if err != nil {
		return err
	}
	if !st.IsDir() && st.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is neither a directory nor a program", b.Path)
	}
	file, err := os.CreateTemp(b.Temp, "kaji-image-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	out := tar.NewWriter(file)
	if st.IsDir() {
		err = writeTree(out, b.Path)
	} else {
		if len(b.Entrypoint) == 0 {
			b.Entrypoint = []string{"/" + filepath.Base(b.Path)}
		}
		err = writeProgram(out, b.Path)
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(file.Name())
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: b.Entrypoint, Cmd: b.Cmd, Env: b.Env, WorkingDir: b.WorkingDir, User: b.User}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	return tarball.Write(tag, img, w)
}

func writeProgram(out *tar.Writer, path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: filepath.Base(path), Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(raw)), ModTime: time.Unix(0, 0)}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err = out.Write(raw)
	return err
}

// writeTree writes a directory; links are kept as links, and nothing outside is
// read.
func writeTree(out *tar.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	first := map[[2]uint64]string{} // the name under which a file with several has been written, by device and inode
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var target string
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if target, err = root.Readlink(path); err != nil {
				return err
			}
		case info.Mode()&fs.ModeSocket != 0:
			return nil
		}
		h, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		h.Name, h.ModTime, h.Uname, h.Gname = path, time.Unix(0, 0), "", ""
		h.AccessTime, h.ChangeTime, h.Format = time.Time{}, time.Time{}, tar.FormatPAX
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			h.Uid, h.Gid = int(st.Uid), int(st.Gid)
			if st.Nlink > 1 && info.Mode().IsRegular() {
				inode := [2]uint64{uint64(st.Dev), st.Ino}
				if name, ok := first[inode]; ok {
					h.Typeflag, h.Linkname, h.Size = tar.TypeLink, name, 0
				} else {
					first[inode] = path
				}
			}
		}
		if h.PAXRecords, err = attributes(filepath.Join(dir, path), h); err != nil {
			return err
		}
		if d.IsDir() {
			h.Name += "/"
		}
		if err := out.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
			return err
		}
		f, err := root.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(out, f)
		return err
	})
}

// fileCapabilities is the extended attribute that makes a program more than its
// user; others are the machine's own affair.
const fileCapabilities = "security.capability"

// attributes are the extended attributes that an image keeps of a file.
func attributes(path string, h *tar.Header) (map[string]string, error) {
	if h.Typeflag != tar.TypeReg {
		return nil, nil
	}
	value := make([]byte, 64)
	n, err := unix.Lgetxattr(path, fileCapabilities, value)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: reading its capabilities: %w", path, err)
	}
	return map[string]string{"SCHILY.xattr." + fileCapabilities: string(value[:n])}, nil
}
