// SPDX-License-Identifier: Apache-2.0

// Package checkpoint keeps what managers of resources have given away in files, in
// the form that upstream's agent keeps it: JSON with a checksum over the printed Go
// value. The names of types and packages are part of the checksum, so those of
// callers that want to read upstream's files are upstream's. It knows no content.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"

	"k8s.io/utils/dump"
)

// ErrCorrupt says that a file does not match its checksum.
var ErrCorrupt = errors.New("checkpoint is corrupted")

// Sum is the checksum of a value.
func Sum(value any) uint64 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(value))
	return uint64(h.Sum32())
}

// Write replaces a file by a value in JSON, at once and lastingly.
func Write(path string, value any) (err error) {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write checkpoint %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // it is not what was wanted anyway
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write checkpoint %s: %w", path, err)
	}
	return nil
}

// Read reads a file into a value; false says that there is none.
func Read(path string, into any) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read checkpoint: %w", err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	return true, nil
}
