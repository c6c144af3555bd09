// SPDX-License-Identifier: Apache-2.0

// Package userns gives each pod that wants a user namespace of its own a range
// of the host's user and group ids that no other pod has (KEP-127). A range is
// remembered in the pod's directory, in a file as upstream's kubelet writes it,
// so that an agent that restarts knows what its pods have. The agent's root
// calls it; it starts nothing.
package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Length is how many ids a pod has. Ranges start at its multiples, the first
// being the host's own.
const Length = 65536

// file is where a pod's range is written.
const file = "userns"

// Ranges are those of a node's pods. It is safe for concurrent use.
type Ranges struct {
	dir         string
	max, length uint32

	mu     sync.Mutex
	read   bool                 // guarded by mu
	first  map[types.UID]uint32 // guarded by mu
	holder map[uint32]types.UID // guarded by mu; by the number of the range
}

// New returns the ranges of pods whose directories are in dir, at most max at a
// time, and of so many ids, a multiple of Length; zero means that.
func New(dir string, max int, length uint32) *Ranges {
	if length == 0 {
		length = Length
	}
	return &Ranges{dir: dir, max: uint32(max), length: length, first: map[types.UID]uint32{}, holder: map[uint32]types.UID{}} //nolint:gosec // some hundred
}

// mapping is one line of the file.
type mapping struct {
	HostID      uint32 `json:"hostId"`
	ContainerID uint32 `json:"containerId"`
	Length      uint32 `json:"length"`
}

type mappings struct {
	UIDs []mapping `json:"uidMappings"`
	GIDs []mapping `json:"gidMappings"`
}

// Get returns the first id of a pod's range, which it is given now if it has
// none yet.
func (r *Ranges) Get(pod types.UID) (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return 0, err
	}
	if first, ok := r.first[pod]; ok {
		return first, nil
	}
	// Any free one: what pods of other nodes write to shared storage should
	// rarely be a namesake's.
	for _, i := range rand.Perm(int(r.max)) {
		n := uint32(i) + 1 //nolint:gosec // some hundred
		if _, taken := r.holder[n]; taken {
			continue
		}
		if err := r.write(pod, n*r.length); err != nil {
			return 0, err
		}
		r.first[pod], r.holder[n] = n*r.length, pod
		return n * r.length, nil
	}
	return 0, errors.New("could not find an empty slot to allocate a user namespace")
}

// Release gives a pod's range back.
func (r *Ranges) Release(pod types.UID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return err
	}
	first, ok := r.first[pod]
	if !ok {
		return nil
	}
	if err := os.Remove(filepath.Join(r.dir, string(pod), file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(r.first, pod)
	delete(r.holder, first/r.length)
	return nil
}

func (r *Ranges) write(pod types.UID, first uint32) error {
	one := []mapping{{HostID: first, Length: r.length}}
	data, err := json.Marshal(mappings{one, one})
	if err != nil {
		return err
	}
	dir := filepath.Join(r.dir, string(pod))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	fresh := filepath.Join(dir, "."+file)
	if err := os.WriteFile(fresh, data, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, filepath.Join(dir, file))
}

// load reads once what an earlier agent gave.
func (r *Ranges) load() error {
	if r.read {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "*", file))
	if err != nil {
		return err
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pod := types.UID(filepath.Base(filepath.Dir(path)))
		first, err := parse(data, r.length)
		if err != nil {
			return fmt.Errorf("record pod mappings for existing pod %q: %w", pod, err)
		}
		if other, taken := r.holder[first/r.length]; taken {
			return fmt.Errorf("pods %q and %q have the same user namespace range", pod, other)
		}
		r.first[pod], r.holder[first/r.length] = first, pod
	}
	r.read = true
	return nil
}

func parse(data []byte, length uint32) (uint32, error) {
	var m mappings
	if err := json.Unmarshal(data, &m); err != nil {
		return 0, fmt.Errorf("invalid user namespace mappings file: %w", err)
	}
	if len(m.UIDs) != 1 || len(m.GIDs) != 1 || m.UIDs[0] != m.GIDs[0] {
		return 0, errors.New("invalid user namespace configuration: GID and UID mapping should be identical")
	}
	if one := m.UIDs[0]; one.ContainerID != 0 || one.Length != length || one.HostID%length != 0 || one.HostID == 0 {
		return 0, fmt.Errorf("invalid user namespace configuration: %d ids from %d", one.Length, one.HostID)
	}
	return m.UIDs[0].HostID, nil
}
