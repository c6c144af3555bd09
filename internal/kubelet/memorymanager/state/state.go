// SPDX-License-Identifier: Apache-2.0

// Package state is the form of the file in which the memory manager keeps which
// memory belongs to which containers: upstream's third, whose outer part earlier
// versions of upstream's agent read as their first. Names of types and fields are
// upstream's, since checksums cover them. Package memorymanager uses it.
package state

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/dump"

	"kaji/internal/kubelet/checkpoint"
)

// MemoryTable is what a NUMA node has of one kind of memory, in bytes.
type MemoryTable struct {
	TotalMemSize   uint64 `json:"total"`
	SystemReserved uint64 `json:"systemReserved"`
	Allocatable    uint64 `json:"allocatable"`
	Reserved       uint64 `json:"reserved"` // by containers
	Free           uint64 `json:"free"`
}

// NUMANodeState is a NUMA node with what was taken from it.
type NUMANodeState struct {
	// NumberOfAssignments counts a container once for each kind of memory.
	NumberOfAssignments int                                  `json:"numberOfAssignments"`
	MemoryMap           map[corev1.ResourceName]*MemoryTable `json:"memoryMap"`
	// Cells are the nodes that give memory together with this one, itself included.
	Cells []int `json:"cells"`
}

// NUMANodeMap holds all nodes by number.
type NUMANodeMap map[int]*NUMANodeState

// Block is memory of one kind that a container has from some nodes.
type Block struct {
	NUMAAffinity []int               `json:"numaAffinity"`
	Type         corev1.ResourceName `json:"type"`
	Size         uint64              `json:"size"`
}

// ContainerMemoryAssignments are the blocks of containers, by the pod's UID and
// the container's name.
type ContainerMemoryAssignments map[string]map[string][]Block

// State is what is kept.
type State struct {
	Policy  string
	Machine NUMANodeMap
	Entries ContainerMemoryAssignments
}

// MemoryManagerCheckpoint is the part that all versions read.
type MemoryManagerCheckpoint struct {
	PolicyName   string                     `json:"policyName"`
	MachineState NUMANodeMap                `json:"machineState"`
	Entries      ContainerMemoryAssignments `json:"entries,omitempty"`
	Checksum     checksum                   `json:"checksum"`
}

type checksum uint64

// file is the whole.
type file struct {
	MemoryManagerCheckpoint `json:",inline"`
	Data                    string `json:"data"`
	DataChecksum            uint64 `json:"dataChecksum"`
}

type content struct {
	PolicyName   string                     `json:"policyName"`
	MachineState NUMANodeMap                `json:"machineState"`
	Entries      ContainerMemoryAssignments `json:"entries,omitempty"`
}

// sum is upstream's checksum of the common part.
func sum(c MemoryManagerCheckpoint) checksum {
	c.Checksum = 0
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", strings.ReplaceAll(dump.ForHash(&c), "state.checksum", "checksum.Checksum"))
	return checksum(h.Sum32())
}

// Write replaces the file.
func Write(path string, s State) error {
	c := content{s.Policy, s.Machine, s.Entries}
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("failed to serialize memory manager checkpoint data: %w", err)
	}
	f := file{MemoryManagerCheckpoint: MemoryManagerCheckpoint{PolicyName: s.Policy, MachineState: s.Machine, Entries: s.Entries}, Data: string(data)}
	f.Checksum, f.DataChecksum = sum(f.MemoryManagerCheckpoint), checkpoint.Sum(f.Data)
	return checkpoint.Write(path, f)
}

// Read reads the file; nil says that there is none.
func Read(path string) (*State, error) {
	var f file
	found, err := checkpoint.Read(path, &f)
	if err != nil || !found {
		return nil, err
	}
	c := content{f.PolicyName, f.MachineState, f.Entries}
	switch {
	case f.Data != "":
		if checkpoint.Sum(f.Data) != f.DataChecksum {
			return nil, fmt.Errorf("%w: %s", checkpoint.ErrCorrupt, path)
		}
		c = content{}
		if err := json.Unmarshal([]byte(f.Data), &c); err != nil {
			return nil, fmt.Errorf("failed to deserialize memory manager checkpoint data: %w", err)
		}
	case f.Checksum != 0 && sum(f.MemoryManagerCheckpoint) != f.Checksum:
		return nil, fmt.Errorf("%w: %s has checksum %d, want %d", checkpoint.ErrCorrupt, path, f.Checksum, sum(f.MemoryManagerCheckpoint))
	}
	if c.Entries == nil {
		c.Entries = ContainerMemoryAssignments{}
	}
	return &State{Policy: c.PolicyName, Machine: c.MachineState, Entries: c.Entries}, nil
}
