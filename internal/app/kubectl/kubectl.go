// SPDX-License-Identifier: Apache-2.0

// Package kubectl runs the embedded kubectl executable. It unpacks it once per
// build into the user's cache directory and replaces the process with it.
package kubectl

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

//go:embed all:assets
var assets embed.FS

// Exec replaces the process with kubectl, called with args (without the
// program's name). It returns only on failure.
func Exec(args []string) error {
	path, err := Path()
	if err != nil {
		return err
	}
	return syscall.Exec(path, append([]string{"kubectl"}, args...), os.Environ())
}

// Path returns where the embedded kubectl is unpacked, unpacking it if needed.
func Path() (string, error) {
	packed, err := assets.ReadFile("assets/kubectl.zst")
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("this build of kaji has no kubectl inside; build it with `make build`")
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(packed)
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kubectl-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := unpack(assets, path); err != nil {
		return "", fmt.Errorf("unpacking kubectl: %w", err)
	}
	return path, nil
}

// cacheDir is the user's, or a private temporary one where there is none.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("kaji-%d", os.Getuid()))
		if err := private(dir); err != nil {
			return "", err
		}
	}
	dir = filepath.Join(dir, "kaji")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making a place for kubectl: %w (%s)", err, advice)
	}
	return dir, nil
}

const advice = "set XDG_CACHE_HOME to a directory of your own"

// private makes a directory, or refuses one in which somebody else could have put
// a program for this user to run: in a temporary directory anybody may be first.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a place for kubectl: %w (%s)", err, advice)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("making a place for kubectl: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory that only you can write to, so kubectl is not run from it (%s)", dir, advice)
	}
	return nil
}

func unpack(assets fs.FS, path string) error {
	in, err := assets.Open("assets/kubectl.zst")
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer r.Close()
	out, err := os.CreateTemp(filepath.Dir(path), ".kubectl-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, r)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}
