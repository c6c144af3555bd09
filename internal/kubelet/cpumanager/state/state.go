// SPDX-License-Identifier: Apache-2.0

// Package state is the form of the file in which the CPU manager keeps which
// processors belong to which containers: upstream's fourth, which earlier versions
// of upstream's agent read as their second. Names of types are upstream's, since
// checksums cover them. Package cpumanager uses it.
package state

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"

	"k8s.io/utils/cpuset"
	"k8s.io/utils/dump"

	"kaji/internal/kubelet/checkpoint"
)

// State is what is kept.
type State struct {
	Policy string
	// Default are the processors that are shared, Entries those of containers, by
	// the pod's UID and the container's name.
	Default cpuset.CPUSet
	Entries map[string]map[string]cpuset.CPUSet
}

// CPUManagerCheckpoint is the part that all versions read.
type CPUManagerCheckpoint struct {
	PolicyName    string                       `json:"policyName"`
	DefaultCPUSet string                       `json:"defaultCpuSet"`
	Entries       map[string]map[string]string `json:"entries,omitempty"`
	Checksum      checksum                     `json:"checksum"`
}

type checksum uint64

// file is the whole.
type file struct {
	CPUManagerCheckpoint `json:",inline"`
	Data                 string `json:"data"`
	DataChecksum         uint64 `json:"dataChecksum"`
}

type content struct {
	PolicyName    string                       `json:"policyName"`
	DefaultCPUSet string                       `json:"defaultCpuSet"`
	Entries       map[string]map[string]string `json:"entries,omitempty"`
}

// sum is upstream's checksum of the common part.
func sum(c CPUManagerCheckpoint) checksum {
	c.Checksum = 0
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", strings.ReplaceAll(dump.ForHash(&c), "state.checksum", "checksum.Checksum"))
	return checksum(h.Sum32())
}

// Write replaces the file.
func Write(path string, s State) error {
	entries := map[string]map[string]string{}
	for pod, containers := range s.Entries {
		entries[pod] = map[string]string{}
		for name, cpus := range containers {
			entries[pod][name] = cpus.String()
		}
	}
	data, err := json.Marshal(content{s.Policy, s.Default.String(), entries})
	if err != nil {
		return fmt.Errorf("failed to serialize cpu manager checkpoint data: %w", err)
	}
	f := file{CPUManagerCheckpoint: CPUManagerCheckpoint{PolicyName: s.Policy, DefaultCPUSet: s.Default.String(), Entries: entries}, Data: string(data)}
	f.Checksum, f.DataChecksum = sum(f.CPUManagerCheckpoint), checkpoint.Sum(f.Data)
	return checkpoint.Write(path, f)
}

// Read reads the file; nil says that there is none.
func Read(path string) (*State, error) {
	var f file
	found, err := checkpoint.Read(path, &f)
	if err != nil || !found {
		return nil, err
	}
	c := content{f.PolicyName, f.DefaultCPUSet, f.Entries}
	if f.Data != "" {
		if checkpoint.Sum(f.Data) != f.DataChecksum {
			return nil, fmt.Errorf("%w: %s", checkpoint.ErrCorrupt, path)
		}
		if err := json.Unmarshal([]byte(f.Data), &c); err != nil {
			return nil, fmt.Errorf("failed to deserialize cpu manager checkpoint data: %w", err)
		}
	} else if want := sum(f.CPUManagerCheckpoint); want != f.Checksum {
		return nil, fmt.Errorf("%w: %s has checksum %d, want %d", checkpoint.ErrCorrupt, path, f.Checksum, want)
	}
	s := &State{Policy: c.PolicyName, Entries: map[string]map[string]cpuset.CPUSet{}}
	if s.Default, err = cpuset.Parse(c.DefaultCPUSet); err != nil {
		return nil, fmt.Errorf("could not parse default cpu set %q: %w", c.DefaultCPUSet, err)
	}
	for pod, containers := range c.Entries {
		s.Entries[pod] = map[string]cpuset.CPUSet{}
		for name, text := range containers {
			if s.Entries[pod][name], err = cpuset.Parse(text); err != nil {
				return nil, fmt.Errorf("could not parse cpuset %q for container %q in pod %q: %w", text, name, pod, err)
			}
		}
	}
	return s, nil
}
