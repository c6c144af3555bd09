// SPDX-License-Identifier: Apache-2.0

package pebble

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"kaji/internal/vfs"
)

// CorruptError says which file of the store is damaged.
type CorruptError struct {
	// File is its path; the directory, when it cannot be told which file.
	File string
	Err  error
}

// Error tells what to do as well.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("store: %s is damaged: %v: keep a copy of the directory, "+
		"then restore the newest snapshot into an empty one (kaji store restore)", e.File, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// openError explains why a directory could not be opened.
func openError(dir string, err error) error {
	var corrupt *CorruptError
	switch {
	case err == nil || errors.As(err, &corrupt):
		return err
	case strings.Contains(err.Error(), "lock"), errors.Is(err, pebble.ErrClosed):
		return fmt.Errorf("store: %s is in use by another process: %w", dir, err)
	case pebble.IsCorruptionError(err), errors.Is(err, errRecord), strings.Contains(err.Error(), "no such file"),
		strings.Contains(err.Error(), "does not exist"):
		return &CorruptError{File: suspect(dir, err), Err: err}
	}
	return fmt.Errorf("store: open %s: %w", dir, err)
}

// suspect finds the file an error speaks of.
func suspect(dir string, err error) string {
	for _, word := range strings.FieldsFunc(err.Error(), func(r rune) bool { return strings.ContainsRune(" \"'`:,;()", r) }) {
		base := filepath.Base(word)
		if len(base) == 6 && strings.Trim(base, "0123456789") == "" {
			base += ".sst" // Pebble speaks of tables by number
		}
		if strings.HasPrefix(base, "MANIFEST-") || strings.HasSuffix(base, ".sst") || strings.HasSuffix(base, ".log") {
			return filepath.Join(dir, base)
		}
	}
	return dir
}

// tables lists the table files, newest levels first.
func (s *Store) tables() ([]pebble.SSTableInfo, error) {
	levels, err := s.db.SSTables()
	if err != nil {
		return nil, err
	}
	var all []pebble.SSTableInfo
	for _, level := range levels {
		all = append(all, level...)
	}
	return all, nil
}

// verifyFirst verifies tables until the budget for a start is spent, and
// returns the rest.
func (s *Store) verifyFirst() ([]pebble.SSTableInfo, error) {
	tables, err := s.tables()
	if err != nil {
		return nil, err
	}
	budget := s.cfg.VerifyBytes
	for i := range tables {
		if budget -= int64(tables[i].Size); budget < 0 {
			return tables[i:], nil
		}
		if err := s.verifyTable(&tables[i]); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// verifyRest verifies the other tables while the store is in use.
func (s *Store) verifyRest(tables []pebble.SSTableInfo) {
	for i := range tables {
		select {
		case <-s.ctx.Done():
			return
		default:
		}
		if err := s.verifyTable(&tables[i]); err != nil {
			s.fail(err)
			return
		}
	}
}

// Check reads everything and returns the first damage it finds.
func (s *Store) Check(ctx context.Context) error {
	done, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	tables, err := s.tables()
	if err != nil {
		return openError(s.cfg.Dir, err)
	}
	for i := range tables {
		if err := errors.Join(ctx.Err(), s.verifyTable(&tables[i])); err != nil {
			return err
		}
	}
	if err := s.db.CheckLevels(nil); err != nil {
		return openError(s.cfg.Dir, err)
	}
	return nil
}

// verifyTable checks a table's checksums. A table that is gone has been
// replaced by a compaction since it was listed.
func (s *Store) verifyTable(info *pebble.SSTableInfo) error {
	name := filepath.Join(s.cfg.Dir, fmt.Sprintf("%s.sst", info.BackingSSTNum))
	err := verifyFile(s.cfg.FS, name)
	if err == nil || s.cfg.FS.PathBase(name) == "" {
		return nil
	}
	if _, serr := s.cfg.FS.Stat(name); serr != nil {
		return nil
	}
	return &CorruptError{File: name, Err: err}
}

func verifyFile(fs vfs.FS, name string) (err error) {
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{})
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return r.ValidateBlockChecksums()
}
