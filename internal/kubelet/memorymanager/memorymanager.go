// SPDX-License-Identifier: Apache-2.0

// Package memorymanager binds containers to the memory of NUMA nodes: under the
// policy Static, containers of guaranteed pods have the memory and the huge pages
// that they ask for from as few nodes as will do. What was given is kept in a
// file. The agent's root wires it: the topology manager has it allocate at
// admission, and containers start with their nodes. It touches no control group
// itself. Rules and messages are upstream's (KEP-1769).
package memorymanager

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"

	"kaji/internal/kubelet/hardware"
	"kaji/internal/kubelet/memorymanager/state"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/topologymanager"
)

// Policies.
const (
	None   = configv1beta1.NoneMemoryManagerPolicy
	Static = configv1beta1.StaticMemoryManagerPolicy
)

// Config is what a Manager decides by.
type Config struct {
	// Policy is one of the constants; "" means None.
	Policy string
	Layout *hardware.Layout
	// Reserved is what no container gets, node by node. In all it must be what
	// NodeReserved, which counts the hard eviction threshold, keeps from pods.
	Reserved     []configv1beta1.MemoryReservation
	NodeReserved corev1.ResourceList
	Path         string // "<root>/memory_manager_state"
	Logger       *slog.Logger
	// Pinned is told of each container that is to get some for itself, and why it did
	// not; nil tells nobody.
	Pinned func(error)
}

// Manager manages memory. It is safe for concurrent use.
type Manager struct {
	cfg Config

	mu    sync.Mutex
	state state.State
	// reusable is the memory of init containers of the pod that is being
	// admitted, which its later containers have after them.
	reusable    map[place]uint64
	reusableFor types.UID
}

// place is a kind of memory from some nodes.
type place struct {
	nodes topologymanager.Mask
	kind  corev1.ResourceName
}

// New returns a Manager that knows what an earlier one gave; the error says what
// is wrong with the configuration or the file.
func New(cfg Config) (*Manager, error) {
	m := &Manager{cfg: cfg}
	switch cfg.Policy {
	case None, "":
		return m, nil
	case Static:
	case "BestEffort":
		return nil, fmt.Errorf("policy %q is not available for platform %q", cfg.Policy, "linux")
	default:
		return nil, fmt.Errorf("unknown policy: %q", cfg.Policy)
	}
	reserved, err := m.reserved()
	if err != nil {
		return nil, err
	}
	return m, m.restore(machine(cfg.Layout, reserved))
}

// isMemory says whether a resource is memory of some kind.
func isMemory(name corev1.ResourceName) bool {
	return name == corev1.ResourceMemory || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// reserved sorts the reservations by node and checks their sums.
func (m *Manager) reserved() (map[int]map[corev1.ResourceName]uint64, error) {
	sums, byNode := map[corev1.ResourceName]resource.Quantity{}, map[int]map[corev1.ResourceName]uint64{}
	for _, n := range m.cfg.Layout.Nodes {
		byNode[n.ID] = map[corev1.ResourceName]uint64{}
	}
	for _, r := range m.cfg.Reserved {
		at, ok := byNode[int(r.NumaNode)]
		if !ok {
			return nil, fmt.Errorf("the reserved memory configuration references a NUMA node %d that does not exist on this machine", r.NumaNode)
		}
		for name, quantity := range r.Limits {
			at[name] = uint64(max(quantity.Value(), 0))
			sum := sums[name]
			sum.Add(quantity)
			sums[name] = sum
		}
	}
	names := maps.Clone(sums)
	for name, quantity := range m.cfg.NodeReserved {
		if isMemory(name) {
			names[name] = quantity
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		want, have := m.cfg.NodeReserved[name], sums[name]
		if want.Cmp(have) != 0 {
			return nil, fmt.Errorf("the total amount %q of type %q is not equal to the value %q determined by Node Allocatable feature", have.String(), name, want.String())
		}
	}
	if memory := sums[corev1.ResourceMemory]; memory.IsZero() {
		return nil, errors.New("[memorymanager] you should specify the system reserved memory")
	}
	return byNode, nil
}

// machine is the state of a machine of which nothing was given.
func machine(layout *hardware.Layout, reserved map[int]map[corev1.ResourceName]uint64) state.NUMANodeMap {
	nodes := state.NUMANodeMap{}
	for _, n := range layout.Nodes {
		s := &state.NUMANodeState{MemoryMap: map[corev1.ResourceName]*state.MemoryTable{}, Cells: []int{n.ID}}
		table := func(name corev1.ResourceName, total, used uint64) {
			kept := reserved[n.ID][name]
			allocatable := total - min(total, kept+used)
			s.MemoryMap[name] = &state.MemoryTable{TotalMemSize: total, SystemReserved: kept, Allocatable: allocatable, Free: allocatable}
		}
		pages := uint64(0)
		for size, bytes := range n.HugePages {
			quantity := resource.NewQuantity(int64(size), resource.BinarySI) //nolint:gosec // a page's
			table(corev1.ResourceName(corev1.ResourceHugePagesPrefix+quantity.String()), bytes, 0)
			pages += bytes
		}
		table(corev1.ResourceMemory, n.Memory, pages)
		nodes[n.ID] = s
	}
	return nodes
}

// restore reads the file and compares it with the machine.
func (m *Manager) restore(fresh state.NUMANodeMap) error {
	s, err := state.Read(m.cfg.Path)
	if err == nil && s != nil && s.Policy != Static {
		err = fmt.Errorf("[memorymanager] configured policy %q differs from state checkpoint policy %q", Static, s.Policy)
	}
	if err != nil {
		return fmt.Errorf("could not restore state from checkpoint: %w, please drain this node and delete the memory manager checkpoint file %q before restarting Kubelet", err, m.cfg.Path)
	}
	if s == nil || len(s.Machine) == 0 {
		if s != nil && len(s.Entries) > 0 {
			return errors.New("[memorymanager] machine state can not be empty when it has memory assignments")
		}
		m.state = state.State{Policy: Static, Machine: fresh, Entries: state.ContainerMemoryAssignments{}}
		return m.save()
	}
	for pod, containers := range s.Entries {
		for name, blocks := range containers {
			for _, b := range blocks {
				for _, id := range b.NUMAAffinity {
					node, ok := fresh[id]
					if !ok {
						return fmt.Errorf("[memorymanager] (pod: %s, container: %s) the memory assignment uses the NUMA that does not exist", pod, name)
					}
					if node.MemoryMap[b.Type] == nil {
						return fmt.Errorf("[memorymanager] (pod: %s, container: %s) the memory assignment uses memory resource that does not exist", pod, name)
					}
				}
				give(fresh, b.NUMAAffinity, b.Type, b.Size)
			}
		}
	}
	if !alike(s.Machine, fresh) {
		return errors.New("[memorymanager] the expected machine state is different from the real one")
	}
	m.state = *s
	return nil
}

// alike compares two states of a machine. What nodes of one group gave is compared
// as a sum: it depends on the order in which it was given.
func alike(a, b state.NUMANodeMap) bool {
	return maps.EqualFunc(a, b, func(x, y *state.NUMANodeState) bool {
		if x == nil || x.NumberOfAssignments != y.NumberOfAssignments || !sameGroup(x.Cells, y.Cells) || len(x.MemoryMap) != len(y.MemoryMap) {
			return false
		}
		for name, t := range x.MemoryMap {
			u := y.MemoryMap[name]
			if t == nil || u == nil || t.TotalMemSize != u.TotalMemSize || t.SystemReserved != u.SystemReserved || t.Allocatable != u.Allocatable {
				return false
			}
			sum := func(nodes state.NUMANodeMap) (free, reserved uint64) {
				for _, id := range x.Cells {
					if n := nodes[id]; n != nil && n.MemoryMap[name] != nil {
						free, reserved = free+n.MemoryMap[name].Free, reserved+n.MemoryMap[name].Reserved
					}
				}
				return free, reserved
			}
			freeA, reservedA := sum(a)
			if freeB, reservedB := sum(b); freeA != freeB || reservedA != reservedB {
				return false
			}
		}
		return true
	})
}

func sameGroup(a, b []int) bool { return topologymanager.MaskOf(a...) == topologymanager.MaskOf(b...) }

func (m *Manager) save() error { return state.Write(m.cfg.Path, m.state) }

// Release takes back what a pod was given.
func (m *Manager) Release(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	containers, ok := m.state.Entries[string(uid)]
	if !ok {
		return
	}
	for name := range containers {
		m.release(uid, name)
	}
	m.written()
}

// written saves where there is nobody to tell of an error.
func (m *Manager) written() {
	if err := m.save(); err != nil {
		m.cfg.Logger.Error("what memory containers have was not written down", "err", err)
	}
}

// release takes back what one container was given. The caller holds mu.
func (m *Manager) release(uid types.UID, name string) {
	pod := m.state.Entries[string(uid)]
	for _, b := range pod[name] {
		takeBack(m.state.Machine, b)
	}
	delete(pod, name)
	if len(pod) == 0 {
		delete(m.state.Entries, string(uid))
	}
}

// Keep takes back what all pods but some were given.
func (m *Manager) Keep(known func(types.UID) bool) {
	m.mu.Lock()
	pods := slices.Collect(maps.Keys(m.state.Entries))
	m.mu.Unlock()
	for _, uid := range pods {
		if !known(types.UID(uid)) {
			m.Release(types.UID(uid))
		}
	}
}

// Starts takes back what init containers of a pod have that end before a
// container starts, and returns the nodes that this one has its memory from, ""
// for whichever.
func (m *Manager) Starts(pod *corev1.Pod, c *corev1.Container) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := false
	for i := range pod.Spec.InitContainers {
		init := &pod.Spec.InitContainers[i]
		if init.Name == c.Name {
			break
		}
		if _, has := m.state.Entries[string(pod.UID)][init.Name]; has && !podspec.Sidecar(init) {
			m.release(pod.UID, init.Name)
			changed = true
		}
	}
	if changed {
		m.written()
	}
	nodes := topologymanager.Mask(0)
	for _, b := range m.state.Entries[string(pod.UID)][c.Name] {
		nodes |= topologymanager.MaskOf(b.NUMAAffinity...)
	}
	var text []string
	for _, id := range nodes.Nodes() {
		text = append(text, strconv.Itoa(id))
	}
	return strings.Join(text, ",")
}

// Blocks are what a container has.
func (m *Manager) Blocks(uid types.UID, container string) []state.Block {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.state.Entries[string(uid)][container])
}

// Allocatable is what containers could have, node by node.
func (m *Manager) Allocatable() (blocks []state.Block) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(m.state.Machine)) {
		tables := m.state.Machine[id].MemoryMap
		for _, name := range slices.Sorted(maps.Keys(tables)) {
			if size := tables[name].Allocatable; size > 0 {
				blocks = append(blocks, state.Block{NUMAAffinity: []int{id}, Type: name, Size: size})
			}
		}
	}
	return blocks
}
