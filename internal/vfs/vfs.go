// SPDX-License-Identifier: Apache-2.0

// Package vfs is the one door through which the store's bytes reach a disk, so
// that tests can put a failing, full or crashing disk behind it. The store
// engines and the snapshot format open their files here; the package knows
// nothing of what is in them.
//
// The interfaces are those of Pebble, the library that writes most of the
// files: there is no second one to translate to.
package vfs

import (
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

type (
	// FS is a tree of files.
	FS = vfs.FS
	// File is an open file.
	File = vfs.File
	// Mem is a tree in memory; its CrashClone is what a power cut leaves.
	Mem = vfs.MemFS
	// Crash tells CrashClone how much of the unsynced data survives.
	Crash = vfs.CrashCloneCfg
	// Op describes one operation to a fault injector.
	Op = errorfs.Op
)

// OS returns the files of the operating system.
func OS() FS { return vfs.Default }

// NewMem returns an empty tree in memory that can be crashed.
func NewMem() *Mem { return vfs.NewCrashableMem() }

// Inject returns fs with fault asked before every operation: an error it
// returns is given to the caller instead of doing the operation. fault must be
// safe for concurrent use.
func Inject(fs FS, fault func(Op) error) FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(fault))
}

// Writes says whether an operation changes the disk.
func Writes(op Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite }

// WriteFile creates name with what write produces: readers see the whole new
// file or none, also after a crash. The directory must exist.
func WriteFile(fs FS, name string, write func(io.Writer) error) (err error) {
	tmp := name + ".tmp"
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = fs.Remove(tmp) // the first error is the one to report
		}
	}()
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = fs.Rename(tmp, name); err != nil {
		return err
	}
	return syncDir(fs, filepath.Dir(name))
}

func syncDir(fs FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// Private makes dir, readable by its owner alone, and its parents.
func Private(fs FS, dir string) error { return fs.MkdirAll(dir, os.FileMode(0o700)) }
