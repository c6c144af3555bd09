// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Patient is an FS on which a full disk is a pause and not a failure: an
// operation that finds no space is tried again until there is some. What stands
// above it never sees a half-written log, and goes on by itself once somebody
// has made room. Errors of Sync are passed on at once: after one the kernel may
// have dropped the data, so that trying again would be a lie.
type Patient struct {
	FS
	retry time.Duration
	quit  chan struct{}
	once  sync.Once

	waiting atomic.Int64

	mu      sync.Mutex
	stalled chan struct{} // closed while an operation waits
}

// NewPatient wraps fs; retry is the time between two attempts.
func NewPatient(fs FS, retry time.Duration) *Patient {
	return &Patient{FS: fs, retry: retry, quit: make(chan struct{}), stalled: make(chan struct{})}
}

// Stalled returns a channel that is closed while operations wait for space.
func (p *Patient) Stalled() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stalled
}

// GiveUp ends all waiting, now and later, with the disk's error.
func (p *Patient) GiveUp() { p.once.Do(func() { close(p.quit) }) }

// do tries op until it returns something else than lack of space.
func (p *Patient) do(op func() error) error {
	err := op()
	if !vfs.IsNoSpaceError(err) {
		return err
	}
	p.enter()
	defer p.leave()
	tick := time.NewTicker(p.retry)
	defer tick.Stop()
	for vfs.IsNoSpaceError(err) {
		select {
		case <-p.quit:
			return err
		case <-tick.C:
		}
		err = op()
	}
	return err
}

func (p *Patient) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting.Add(1) == 1 {
		close(p.stalled)
	}
}

func (p *Patient) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting.Add(-1) == 0 {
		p.stalled = make(chan struct{})
	}
}

func (p *Patient) open(op func() (File, error)) (File, error) {
	var f File
	err := p.do(func() (err error) {
		f, err = op()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &patientFile{File: f, fs: p}, nil
}

// Create implements FS.
func (p *Patient) Create(name string, c vfs.DiskWriteCategory) (File, error) {
	return p.open(func() (File, error) { return p.FS.Create(name, c) })
}

// OpenReadWrite implements FS.
func (p *Patient) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (File, error) {
	return p.open(func() (File, error) { return p.FS.OpenReadWrite(name, c, opts...) })
}

// ReuseForWrite implements FS.
func (p *Patient) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (File, error) {
	return p.open(func() (File, error) { return p.FS.ReuseForWrite(from, to, c) })
}

// Link implements FS.
func (p *Patient) Link(from, to string) error {
	return p.do(func() error { return p.FS.Link(from, to) })
}

// Rename implements FS.
func (p *Patient) Rename(from, to string) error {
	return p.do(func() error { return p.FS.Rename(from, to) })
}

// MkdirAll implements FS.
func (p *Patient) MkdirAll(dir string, perm os.FileMode) error {
	return p.do(func() error { return p.FS.MkdirAll(dir, perm) })
}

// Unwrap implements FS.
func (p *Patient) Unwrap() FS { return p.FS }

type patientFile struct {
	File
	fs *Patient
}

// Write writes all of b; what a full disk cut off follows once there is room.
func (f *patientFile) Write(b []byte) (int, error) {
	written := 0
	err := f.fs.do(func() error {
		n, err := f.File.Write(b[written:])
		written += n
		return err
	})
	return written, err
}

func (f *patientFile) WriteAt(b []byte, off int64) (int, error) {
	written := 0
	err := f.fs.do(func() error {
		n, err := f.File.WriteAt(b[written:], off+int64(written))
		written += n
		return err
	})
	return written, err
}

func (f *patientFile) Preallocate(off, length int64) error {
	return f.fs.do(func() error { return f.File.Preallocate(off, length) })
}
