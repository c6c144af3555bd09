// SPDX-License-Identifier: Apache-2.0

package memorymanager

import (
	"context"
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/memorymanager/state"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/topologymanager"
)

var _ topologymanager.Provider = (*Manager)(nil)

// sizes are bytes by the kind of memory.
type sizes map[corev1.ResourceName]uint64

// wants is what a container is to have for itself.
func wants(pod *corev1.Pod, c *corev1.Container) sizes {
	if podspec.QOS(pod) != corev1.PodQOSGuaranteed || pod.Spec.Resources != nil {
		return nil
	}
	out := sizes{}
	for name, quantity := range c.Resources.Requests {
		if isMemory(name) {
			out[name] = uint64(max(quantity.Value(), 0))
		}
	}
	return out
}

// total is what a pod has for itself at most at a time.
func total(pod *corev1.Pod) sizes {
	most, beside, sum := sizes{}, sizes{}, sizes{}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		for name, size := range wants(pod, c) {
			if podspec.Sidecar(c) {
				beside[name] += size
			} else {
				most[name] = max(most[name], beside[name]+size)
			}
		}
	}
	for i := range pod.Spec.Containers {
		for name, size := range wants(pod, &pod.Spec.Containers[i]) {
			sum[name] += size
		}
	}
	for name := range sum {
		sum[name] = max(sum[name]+beside[name], most[name])
	}
	return sum
}

// Hints implements topologymanager.Provider.
func (m *Manager) Hints(pod *corev1.Pod, c *corev1.Container) map[string][]topologymanager.Hint {
	if m.cfg.Policy != Static {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	want := sizes{}
	given := m.state.Entries[string(pod.UID)]
	var had []state.Block
	if c != nil {
		want, had = wants(pod, c), given[c.Name]
	} else {
		want = total(pod)
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if had == nil {
					had = given[list[i].Name]
				}
			}
		}
	}
	switch {
	case len(want) == 0:
		return nil
	case had != nil:
		return again(had, want)
	}
	out := map[string][]topologymanager.Hint{}
	hints := m.hints(pod, want)
	for name := range want {
		if len(hints) > 0 {
			out[string(name)] = hints
		}
	}
	return out
}

// again are the hints for what was given already.
func again(had []state.Block, want sizes) map[string][]topologymanager.Hint {
	out := map[string][]topologymanager.Hint{}
	if len(had) != len(want) {
		return nil
	}
	for _, b := range had {
		if size, ok := want[b.Type]; !ok || size != b.Size {
			return nil
		}
		out[string(b.Type)] = append(out[string(b.Type)], topologymanager.Hint{Affinity: topologymanager.MaskOf(b.NUMAAffinity...), Preferred: true})
	}
	return out
}

// hints are the sets of nodes with enough memory of all kinds; those as small as
// any could be are preferred. A node that gives memory together with others gives
// none alone, and the other way round. The caller holds mu.
func (m *Manager) hints(pod *corev1.Pod, want sizes) (hints []topologymanager.Hint) {
	nodes := slices.Sorted(maps.Keys(m.state.Machine))
	least := len(nodes)
	topologymanager.EachMask(nodes, func(set topologymanager.Mask) {
		free, allocatable := sizes{}, sizes{}
		for _, id := range set.Nodes() {
			for name := range want {
				if t := m.state.Machine[id].MemoryMap[name]; t != nil {
					free[name], allocatable[name] = free[name]+t.Free, allocatable[name]+t.Allocatable
				}
			}
		}
		for name, size := range want {
			if allocatable[name] < size {
				return
			}
		}
		least = min(least, set.Count())
		if set.Count() == 1 && len(m.state.Machine[set.Nodes()[0]].Cells) > 1 || m.violates(set) {
			return
		}
		for name, size := range want {
			if free[name]+m.reuse(pod, set, name) < size {
				return
			}
		}
		hints = append(hints, topologymanager.Hint{Affinity: set})
	})
	for i := range hints {
		hints[i].Preferred = hints[i].Affinity.Count() == least
	}
	return hints
}

// violates says whether nodes cannot give memory together because some did so
// alone, or with others.
func (m *Manager) violates(set topologymanager.Mask) bool {
	if set.Count() == 1 {
		return false
	}
	return slices.ContainsFunc(set.Nodes(), func(id int) bool {
		n := m.state.Machine[id]
		return n.NumberOfAssignments > 0 && (len(n.Cells) == 1 || !sameGroup(n.Cells, set.Nodes()))
	})
}

func (m *Manager) reuse(pod *corev1.Pod, set topologymanager.Mask, name corev1.ResourceName) uint64 {
	if m.reusableFor != pod.UID {
		return 0
	}
	return m.reusable[place{set, name}]
}

// Allocate implements topologymanager.Provider.
func (m *Manager) Allocate(_ context.Context, pod *corev1.Pod, c *corev1.Container, from topologymanager.Hint) (failed error) {
	if m.cfg.Policy != Static {
		return nil
	}
	want := wants(pod, c)
	if len(want) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if had := m.state.Entries[string(pod.UID)][c.Name]; had != nil {
		m.keepReusable(pod, c, had)
		return nil
	}
	if m.cfg.Pinned != nil {
		defer func() { m.cfg.Pinned(failed) }()
	}
	from, err := m.place(pod, want, from)
	if err != nil {
		return err
	}
	nodes := from.Affinity.Nodes()
	var blocks []state.Block
	for _, name := range slices.Sorted(maps.Keys(want)) {
		blocks = append(blocks, state.Block{NUMAAffinity: nodes, Type: name, Size: want[name]})
		give(m.state.Machine, nodes, name, want[name]-min(want[name], m.reuse(pod, from.Affinity, name)))
	}
	m.keepReusable(pod, c, blocks)
	if m.state.Entries[string(pod.UID)] == nil {
		m.state.Entries[string(pod.UID)] = map[string][]state.Block{}
	}
	m.state.Entries[string(pod.UID)][c.Name] = blocks
	m.shrinkInit(pod, c, blocks)
	m.cfg.Logger.Info("memory was given", "pod", pod.Namespace+"/"+pod.Name, "container", c.Name, "nodes", nodes)
	return m.save()
}

// place chooses the nodes, near those that the topology manager wants.
func (m *Manager) place(pod *corev1.Pod, want sizes, from topologymanager.Hint) (topologymanager.Hint, error) {
	if from.Affinity == 0 {
		hints := m.hints(pod, want)
		if len(hints) == 0 {
			return from, errors.New("[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available")
		}
		usual := best(hints)
		if !usual.Preferred && from.Preferred {
			return from, errors.New("[memorymanager] failed to find the default preferred hint")
		}
		from = usual
	}
	if !m.enough(from.Affinity, want) {
		wider := slices.DeleteFunc(m.hints(pod, want), func(h topologymanager.Hint) bool { return h.Affinity&from.Affinity != from.Affinity })
		if len(wider) == 0 {
			return from, errors.New("[memorymanager] failed to find NUMA nodes to extend the current topology hint")
		}
		extended := best(wider)
		if !extended.Preferred && from.Preferred {
			return from, errors.New("[memorymanager] failed to find the extended preferred hint")
		}
		from = extended
	}
	if m.violates(from.Affinity) {
		return from, errors.New("[memorymanager] preferred hint violates NUMA node allocation")
	}
	return from, nil
}

func (m *Manager) enough(set topologymanager.Mask, want sizes) bool {
	for name, size := range want {
		free := uint64(0)
		for _, id := range set.Nodes() {
			if n := m.state.Machine[id]; n != nil && n.MemoryMap[name] != nil {
				free += n.MemoryMap[name].Free
			}
		}
		if free < size {
			return false
		}
	}
	return true
}

// best prefers preferred hints, then smaller sets, then lower nodes.
func best(hints []topologymanager.Hint) topologymanager.Hint {
	out := hints[0]
	for _, h := range hints[1:] {
		if h.Preferred && !out.Preferred || h.Preferred == out.Preferred && h.Affinity.Narrower(out.Affinity) {
			out = h
		}
	}
	return out
}

// give takes memory from nodes, the first ones first.
func give(machine state.NUMANodeMap, nodes []int, name corev1.ResourceName, size uint64) {
	for _, id := range nodes {
		n := machine[id]
		n.NumberOfAssignments++
		n.Cells = slices.Clone(nodes)
		t := n.MemoryMap[name]
		if t == nil {
			continue // nothing of a kind that the machine has not
		}
		got := min(t.Free, size)
		t.Free, t.Reserved, size = t.Free-got, t.Reserved+got, size-got
	}
}

// takeBack undoes give.
func takeBack(machine state.NUMANodeMap, b state.Block) {
	size := b.Size
	for _, id := range b.NUMAAffinity {
		n := machine[id]
		if n.NumberOfAssignments--; n.NumberOfAssignments == 0 {
			n.Cells = []int{id}
		}
		t := n.MemoryMap[b.Type]
		if t == nil {
			continue
		}
		back := min(t.Reserved, size)
		t.Free, t.Reserved, size = t.Free+back, t.Reserved-back, size-back
	}
}

// keepReusable remembers what an init container leaves to later ones, or that one
// of these has it.
func (m *Manager) keepReusable(pod *corev1.Pod, c *corev1.Container, blocks []state.Block) {
	if m.reusableFor != pod.UID {
		m.reusable, m.reusableFor = map[place]uint64{}, pod.UID
	}
	init := slices.IndexFunc(pod.Spec.InitContainers, func(i corev1.Container) bool { return i.Name == c.Name && !podspec.Sidecar(&i) }) >= 0
	for _, b := range blocks {
		at := place{topologymanager.MaskOf(b.NUMAAffinity...), b.Type}
		if init {
			m.reusable[at] = max(m.reusable[at], b.Size)
		} else {
			m.reusable[at] -= min(m.reusable[at], b.Size)
		}
	}
}

// shrinkInit takes what a container has from init containers from their blocks,
// so that the sum is what was given to the pod.
func (m *Manager) shrinkInit(pod *corev1.Pod, c *corev1.Container, blocks []state.Block) {
	for _, b := range blocks {
		left := b.Size
		for i := range pod.Spec.InitContainers {
			init := &pod.Spec.InitContainers[i]
			if init.Name == c.Name {
				break
			}
			if podspec.Sidecar(init) {
				continue
			}
			theirs := m.state.Entries[string(pod.UID)][init.Name]
			for j := range theirs {
				if theirs[j].Type == b.Type && sameGroup(theirs[j].NUMAAffinity, b.NUMAAffinity) {
					had := min(theirs[j].Size, left)
					theirs[j].Size, left = theirs[j].Size-had, left-had
				}
			}
		}
	}
}
