// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Rotate puts a log that has grown to most bytes aside and keeps at most count
// files of it, the current one included. reopen makes the runtime write to a
// new file. Older files are compressed; the newest is left as it is, because
// the runtime may still write to it for a moment.
func Rotate(path string, most int64, count int, reopen func() error) (rotated bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at log %s: %w", path, err)
	}
	if info.Size() < most {
		return false, nil
	}
	old, err := former(path)
	if err != nil {
		return false, err
	}
	for len(old) > max(count-2, 0) {
		if err := os.Remove(old[0]); err != nil {
			return false, fmt.Errorf("remove the oldest log: %w", err)
		}
		old = old[1:]
	}
	for _, one := range old {
		if !strings.HasSuffix(one, ".gz") {
			if err := compress(one); err != nil {
				return false, err
			}
		}
	}
	aside := path + "." + time.Now().Format("20060102-150405")
	if err := os.Rename(path, aside); err != nil {
		return false, fmt.Errorf("put log %s aside: %w", path, err)
	}
	if err := reopen(); err != nil {
		// Without a new file nothing would be written: put it back.
		return false, errors.Join(fmt.Errorf("reopen log %s: %w", path, err), os.Rename(aside, path))
	}
	return true, nil
}

// former are the files that a log was put aside to, oldest first.
func former(path string) ([]string, error) {
	all, err := filepath.Glob(path + ".*")
	if err != nil {
		return nil, fmt.Errorf("find former logs: %w", err)
	}
	all = slices.DeleteFunc(all, func(p string) bool {
		if strings.HasSuffix(p, ".tmp") {
			_ = os.Remove(p) // of a compression that was cut short
			return true
		}
		return false
	})
	slices.Sort(all)
	return all, nil
}

func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	defer in.Close()
	temporary := path + ".tmp"
	out, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("compress log %s: %w", path, err), os.Remove(temporary))
	}
	if err := os.Rename(temporary, path+".gz"); err != nil {
		return fmt.Errorf("compress log %s: %w", path, err)
	}
	return os.Remove(path)
}
