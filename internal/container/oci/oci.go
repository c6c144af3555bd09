// SPDX-License-Identifier: Apache-2.0

// Package oci runs OCI containers through kaji-init, the small executable
// embedded here: one monitor process a pod is the parent of its containers and
// outlives this process; short-lived helpers create containers and run
// processes in them with libcontainer. Package container calls it; it knows
// nothing of the Container Runtime Interface.
package oci

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

//go:embed all:assets
var assets embed.FS

// Helper is the installed kaji-init executable.
type Helper struct {
	path string
	// sealed is the executable as containers may see it: they cannot write it
	// back to the host's file (CVE-2019-5736).
	sealed *os.File
}

// Install unpacks the embedded executable below dir, once a build, and makes it
// ready for use. Those of other builds go: what runs from them goes on. The file
// system must be one that programs can be run from.
func Install(dir string) (*Helper, error) {
	packed, err := assets.ReadFile("assets/kaji-init.zst")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("this build of kaji has no container helper inside; build it with `make build`")
	}
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(packed)
	top := dir
	dir = filepath.Join(top, "kaji-init-"+hex.EncodeToString(sum[:8]))
	for _, sub := range []string{"bin", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir, "bin", "kaji-init")
	if _, err := os.Stat(path); err != nil {
		if err := unpack(packed, path); err != nil {
			return nil, fmt.Errorf("unpacking the container helper: %w", err)
		}
		if err := sweep(top, dir); err != nil {
			return nil, err
		}
	}
	sealed, err := seal(path)
	if err != nil {
		return nil, fmt.Errorf("sealing the container helper: %w", err)
	}
	return &Helper{path: path, sealed: sealed}, nil
}

// Close releases the executable; what runs from it goes on.
func (h *Helper) Close() error { return h.sealed.Close() }

// sweep removes other builds' executables.
func sweep(top, keep string) error {
	found, err := filepath.Glob(filepath.Join(top, "kaji-init-*"))
	for _, dir := range found {
		if dir != keep {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

func unpack(packed []byte, path string) error {
	r, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer r.Close()
	out, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, r)
	// Synced, so that a crash of the machine leaves no name without the data.
	if err = errors.Join(err, out.Chmod(0o500), out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}

// seal opens path through a detached overlay without an upper layer, which
// nobody can write through and which costs no memory; where the kernel refuses,
// it copies the file into a sealed memory file.
func seal(path string) (*os.File, error) {
	if f, err := sealOverlay(path); err == nil {
		return f, nil
	}
	fd, err := unix.MemfdCreate("kaji-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	out := os.NewFile(uintptr(fd), "kaji-init")
	in, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	defer in.Close()
	if _, err := io.Copy(out, in); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(out.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(os.NewSyscallError("sealing", err), out.Close())
	}
	return out, nil
}

func sealOverlay(path string) (*os.File, error) {
	ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(ctx)
	dir := filepath.Dir(path)
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
	// An overlay without an upper layer needs two lower ones.
	lower := escape.Replace(dir) + ":" + escape.Replace(filepath.Join(dir, "..", "empty"))
	if err := unix.FsconfigSetString(ctx, "lowerdir", lower); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	mount, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, filepath.Base(path), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("openat", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// fdPath names a descriptor of this process as a path.
func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
