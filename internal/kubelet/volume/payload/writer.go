// SPDX-License-Identifier: Apache-2.0

package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A volume with the files "a" and "d/b" looks like this:
//
//	a          -> ..data/a
//	d          -> ..data/d
//	..data     -> ..2026_01_02_15_04_05.123456789
//	..2026_01_02_15_04_05.123456789/a
//	..2026_01_02_15_04_05.123456789/d/b
//
// An update makes a new directory beside the old one and replaces ..data by
// renaming: there is no moment at which a reader sees a mixture.
const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
)

// write brings a volume to the given content.
func write(dir string, files map[string]file, group *int64) error {
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the link to the data: %w", err)
	}
	if old != "" && same(filepath.Join(dir, old), files, group) {
		return links(dir, files)
	}
	fresh := time.Now().UTC().Format("..2006_01_02_15_04_05.000000000")
	if err := fill(filepath.Join(dir, fresh), files, group); err != nil {
		return err
	}
	temporary := filepath.Join(dir, newDataLink)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the link of a former attempt: %w", err)
	}
	if err := os.Symlink(fresh, temporary); err != nil {
		return fmt.Errorf("link the new data: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, dataLink)); err != nil {
		return fmt.Errorf("switch to the new data: %w", err)
	}
	if err := links(dir, files); err != nil {
		return err
	}
	return sweep(dir, fresh)
}

// same says whether a directory has exactly the files.
func same(dir string, files map[string]file, group *int64) bool {
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		want, ok := files[name]
		if !ok {
			return fs.ErrExist
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		have, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		stat, _ := info.Sys().(*syscall.Stat_t)
		if !bytes.Equal(have, want.data) || info.Mode().Perm() != mode(want, group) ||
			stat != nil && want.uid != nil && int64(stat.Uid) != *want.uid {
			return fs.ErrExist
		}
		seen++
		return nil
	})
	return err == nil && seen == len(files)
}

// mode is a file's mode on disk: a volume with a group is readable for it.
func mode(f file, group *int64) os.FileMode {
	m := os.FileMode(f.mode) & os.ModePerm
	if group != nil {
		m |= 0o440
	}
	return m
}

func fill(dir string, files map[string]file, group *int64) error {
	if err := makeDir(dir, group); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if parent := filepath.Dir(name); parent != "." {
			at := dir
			for _, part := range strings.Split(parent, "/") {
				at = filepath.Join(at, part)
				if err := makeDir(at, group); err != nil {
					return err
				}
			}
		}
		if err := os.WriteFile(path, f.data, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		uid, gid := -1, -1
		if f.uid != nil {
			uid = int(*f.uid)
		}
		if group != nil {
			gid = int(*group)
		}
		if uid != -1 || gid != -1 {
			if err := os.Chown(path, uid, gid); err != nil {
				return fmt.Errorf("give %s to its owner: %w", name, err)
			}
		}
		if err := os.Chmod(path, mode(f, group)); err != nil {
			return fmt.Errorf("set the mode of %s: %w", name, err)
		}
	}
	return nil
}

func makeDir(dir string, group *int64) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the directory of the data: %w", err)
	}
	m := os.FileMode(0o755)
	if group != nil {
		if err := os.Chown(dir, -1, int(*group)); err != nil {
			return fmt.Errorf("give the directory to the group: %w", err)
		}
		m |= os.ModeSetgid | 0o070
	}
	return os.Chmod(dir, m)
}

// links makes the links that users see and removes those of files that are gone.
func links(dir string, files map[string]file) error {
	wanted := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		wanted[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the volume: %w", err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case wanted[name]:
			delete(wanted, name)
		case !strings.HasPrefix(name, ".."):
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("remove the link to %s: %w", name, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	return nil
}

// sweep removes former data, also that of attempts that were cut short.
func sweep(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the volume: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && strings.HasPrefix(name, "..") && name != keep {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("remove former data: %w", err)
			}
		}
	}
	return nil
}
