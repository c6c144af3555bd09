// SPDX-License-Identifier: Apache-2.0

package evict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal is what a threshold looks at.
type Signal string

// The signals, as upstream's configuration names them.
const (
	MemoryAvailable  Signal = "memory.available"
	NodeFsAvailable  Signal = "nodefs.available"
	NodeFsInodes     Signal = "nodefs.inodesFree"
	ImageFsAvailable Signal = "imagefs.available"
	ImageFsInodes    Signal = "imagefs.inodesFree"
	PIDAvailable     Signal = "pid.available"
	// Those of what containers write are looked at where it lies on another file system
	// than images, with the thresholds of the node's own: see Layers.
	ContainerFsAvailable Signal = "containerfs.available"
	ContainerFsInodes    Signal = "containerfs.inodesFree"
	// AllocatableMemory is what all pods together still may have. No configuration
	// names it: see Allocatable.
	AllocatableMemory Signal = "allocatableMemory.available"
)

// Memory says whether the signal is one of memory.
func (s Signal) Memory() bool { return s == MemoryAvailable || s == AllocatableMemory }

// Condition is that of the node while a threshold of the signal is met.
func (s Signal) Condition() corev1.NodeConditionType {
	switch s {
	case MemoryAvailable, AllocatableMemory:
		return corev1.NodeMemoryPressure
	case PIDAvailable:
		return corev1.NodePIDPressure
	}
	return corev1.NodeDiskPressure
}

// Resource is what is short when a threshold of the signal is met.
func (s Signal) Resource() corev1.ResourceName {
	switch s {
	case MemoryAvailable, AllocatableMemory:
		return corev1.ResourceMemory
	case PIDAvailable:
		return "pids"
	case NodeFsInodes, ImageFsInodes, ContainerFsInodes:
		return "inodes"
	}
	return corev1.ResourceEphemeralStorage
}

func (s Signal) order() int {
	if s.Memory() {
		return 0
	}
	return 1
}

// Amount is what a signal says: what is left of how much.
type Amount struct{ Available, Capacity uint64 }

// Observation is what the node has left.
type Observation map[Signal]Amount

// Threshold is when the node has too little.
type Threshold struct {
	Signal Signal
	// Quantity is an amount, or Percent a share of the capacity.
	Quantity uint64
	Percent  float64
	// Grace is how long it must hold before pods are evicted; zero is a hard
	// threshold.
	Grace time.Duration
	// Minimum, or MinimumPercent of the capacity, is how much more than the threshold
	// must be left again once it was met (evictionMinimumReclaim). Reclaimed asks for it.
	Minimum        uint64
	MinimumPercent float64
	Reclaimed      bool
}

// Value is the threshold for a capacity.
func (t Threshold) Value(capacity uint64) uint64 {
	if t.Percent > 0 {
		return uint64(float64(float32(t.Percent)) * float64(capacity)) // the field's precision: sums must agree
	}
	return t.Quantity
}

// Met says whether there is too little. A signal that was not observed is not met.
func (t Threshold) Met(o Observation) bool {
	a, ok := o[t.Signal]
	if !ok || a.Capacity == 0 {
		return false
	}
	least := t.Value(a.Capacity)
	if t.Reclaimed {
		least += max(t.Minimum, uint64(t.MinimumPercent*float64(a.Capacity)))
	}
	return a.Available < least
}

// Allocatable adds thresholds of what pods together may have to the hard ones of
// memory: where the kernel holds pods to that they are evicted before it ends
// their processes.
func Allocatable(all []Threshold) []Threshold {
	out := slices.Clone(all)
	for _, t := range all {
		if t.Signal == MemoryAvailable && t.Grace == 0 {
			t.Signal = AllocatableMemory
			out = append(out, t)
		}
	}
	return out
}

// Layers adds thresholds of what containers write, equal to those of the node's own
// file system. Others were not for the configuration to give: conflict says that it did.
func Layers(all []Threshold) (out []Threshold, conflict bool) {
	for _, t := range all {
		switch t.Signal {
		case ContainerFsAvailable, ContainerFsInodes:
			conflict = true
		default:
			out = append(out, t)
		}
	}
	for _, t := range out {
		switch t.Signal {
		case NodeFsAvailable:
			t.Signal = ContainerFsAvailable
		case NodeFsInodes:
			t.Signal = ContainerFsInodes
		default:
			continue
		}
		out = append(out, t)
	}
	return out, conflict
}

// Defaults are the hard thresholds of Linux nodes.
func Defaults() []Threshold {
	return []Threshold{
		{Signal: MemoryAvailable, Quantity: 100 << 20},
		{Signal: NodeFsAvailable, Percent: 0.10},
		{Signal: NodeFsInodes, Percent: 0.05},
		{Signal: ImageFsAvailable, Percent: 0.15},
		{Signal: ImageFsInodes, Percent: 0.05},
	}
}

// Parse reads thresholds as configuration files write them: hard ones, and
// soft ones with their grace periods.
func Parse(hard, soft, grace map[string]string) ([]Threshold, error) {
	var out []Threshold
	for name, text := range hard {
		t, err := parse(name, text)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	for name, text := range soft {
		t, err := parse(name, text)
		if err != nil {
			return nil, err
		}
		if t.Grace, err = time.ParseDuration(grace[name]); err != nil || t.Grace <= 0 {
			return nil, fmt.Errorf("grace period must be specified for the soft eviction threshold %v", name)
		}
		out = append(out, t)
	}
	return out, nil
}

// WithMinimum lays evictionMinimumReclaim over thresholds.
func WithMinimum(all []Threshold, minimum map[string]string) ([]Threshold, error) {
	for name, text := range minimum {
		m, err := parse(name, text)
		if err != nil {
			return nil, err
		}
		for i := range all {
			if all[i].Signal == m.Signal {
				all[i].Minimum, all[i].MinimumPercent = m.Quantity, m.Percent
			}
		}
	}
	return all, nil
}

func parse(name, text string) (Threshold, error) {
	t := Threshold{Signal: Signal(name)}
	switch t.Signal {
	case MemoryAvailable, NodeFsAvailable, NodeFsInodes, ImageFsAvailable, ImageFsInodes, PIDAvailable, ContainerFsAvailable, ContainerFsInodes:
	default:
		return t, fmt.Errorf("unsupported eviction signal %v", name)
	}
	if share, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseFloat(share, 64)
		if err != nil || n < 0 || n > 100 {
			return t, fmt.Errorf("eviction percentage threshold %v must be between 0%% and 100%%: %q", name, text)
		}
		t.Percent = n / 100
		return t, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return t, fmt.Errorf("eviction threshold %v must be positive: %q", name, text)
	}
	t.Quantity = uint64(q.Value())
	return t, nil
}
