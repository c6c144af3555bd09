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
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("kaji-%d", os.Getuid()))
	}
	dir := filepath.Join(base, "kaji")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making a place for kubectl: %w (set XDG_CACHE_HOME to a writable directory)", err)
	}
	return dir, nil
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
