// SPDX-License-Identifier: Apache-2.0

package container

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"

	"kaji/internal/container/layer"
)

// archive writes the files below a directory to a new archive, which is there
// whole or not at all.
func archive(path, dir string) (err error) {
	out, err := os.CreateTemp(filepath.Dir(path), ".checkpoint-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeFile(out.Name()))
		}
	}()
	w := tar.NewWriter(out)
	err = w.AddFS(os.DirFS(dir))
	if err := errors.Join(err, w.Close(), out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}

// unarchive unpacks an archive of a checkpoint, compressed or not, into a new
// directory. Nothing outside is touched, whatever the archive says.
func unarchive(dir, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return unpack(dir, in)
}

// unpack unpacks an archive, compressed or not, into a directory.
func unpack(dir string, in io.Reader) error {
	content, err := layer.Decompress(in)
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = layer.Unpack(dir, content, layer.DefaultLimits)
	return err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
