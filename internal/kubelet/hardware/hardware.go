// SPDX-License-Identifier: Apache-2.0

// Package hardware reads how the machine is laid out: its processors by core,
// socket, NUMA node and shared cache, and its NUMA nodes with their memory. The
// managers of processors, memory and devices decide by it. It reads sysfs once and
// remembers nothing.
package hardware

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

// CPU is a logical processor. Core is unique on the machine: the lowest number
// of the processors that share it; Cache likewise for the last-level cache.
type CPU struct{ ID, Core, Socket, Node, Cache int }

// Node is a NUMA node.
type Node struct {
	ID int
	// Distances are those to all nodes, in their order.
	Distances []uint64
	// Memory and HugePages are bytes, the latter by page size in bytes.
	Memory    uint64
	HugePages map[uint64]uint64
}

// Layout is what the machine is made of.
type Layout struct {
	CPUs  []CPU  // by ID
	Nodes []Node // by ID
}

// Read reads the layout of the machine; root is "/sys".
func Read(root string) (*Layout, error) {
	l := &Layout{}
	online, err := list(filepath.Join(root, "devices/system/cpu/online"))
	if err != nil {
		return nil, err
	}
	nodeOf := map[int]int{}
	if err := l.nodes(root, nodeOf); err != nil {
		return nil, err
	}
	for _, id := range online.List() {
		dir := filepath.Join(root, "devices/system/cpu", fmt.Sprintf("cpu%d", id))
		c := CPU{ID: id, Core: id, Cache: -1, Node: nodeOf[id]}
		if siblings, err := list(filepath.Join(dir, "topology/thread_siblings_list")); err == nil && siblings.Size() > 0 {
			c.Core = siblings.List()[0]
		}
		if n, err := number(filepath.Join(dir, "topology/physical_package_id")); err == nil && n > 0 {
			c.Socket = int(n)
		}
		if shared, err := list(filepath.Join(dir, "cache/index3/shared_cpu_list")); err == nil && shared.Size() > 0 {
			c.Cache = shared.List()[0]
		}
		l.CPUs = append(l.CPUs, c)
	}
	for i := range l.CPUs { // without a third level, a socket is one cache
		if l.CPUs[i].Cache < 0 {
			l.CPUs[i].Cache = l.CPUs[slices.IndexFunc(l.CPUs, func(c CPU) bool { return c.Socket == l.CPUs[i].Socket })].ID
		}
	}
	return l, nil
}

// All are the numbers of all processors.
func (l *Layout) All() cpuset.CPUSet {
	return l.Where(func(CPU) bool { return true })
}

// Where are the numbers of the processors that are asked for.
func (l *Layout) Where(which func(CPU) bool) cpuset.CPUSet {
	var ids []int
	for _, c := range l.CPUs {
		if which(c) {
			ids = append(ids, c.ID)
		}
	}
	return cpuset.New(ids...)
}

// NodeIDs are the numbers of the NUMA nodes.
func (l *Layout) NodeIDs() []int {
	ids := make([]int, 0, len(l.Nodes))
	for _, n := range l.Nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// nodes reads the NUMA nodes. A kernel without them has one.
func (l *Layout) nodes(root string, nodeOf map[int]int) error {
	dirs, err := filepath.Glob(filepath.Join(root, "devices/system/node/node[0-9]*"))
	if err != nil {
		return fmt.Errorf("find NUMA nodes: %w", err)
	}
	for _, dir := range dirs {
		id, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "node"))
		if err != nil {
			continue
		}
		n := Node{ID: id, HugePages: pages(dir)}
		if cpus, err := list(filepath.Join(dir, "cpulist")); err == nil {
			for _, c := range cpus.List() {
				nodeOf[c] = id
			}
		}
		if text, err := os.ReadFile(filepath.Join(dir, "distance")); err == nil {
			for _, f := range strings.Fields(string(text)) {
				d, _ := strconv.ParseUint(f, 10, 64) // zero is as good as none
				n.Distances = append(n.Distances, d)
			}
		}
		if n.Memory, err = memory(filepath.Join(dir, "meminfo")); err != nil {
			return err
		}
		l.Nodes = append(l.Nodes, n)
	}
	if len(l.Nodes) == 0 {
		total, err := memory("/proc/meminfo")
		if err != nil {
			return err
		}
		l.Nodes = []Node{{Distances: []uint64{10}, Memory: total, HugePages: pages(filepath.Join(root, "kernel/mm"))}}
	}
	slices.SortFunc(l.Nodes, func(a, b Node) int { return a.ID - b.ID })
	return nil
}

func memory(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the size of memory: %w", err)
	}
	found := regexp.MustCompile(`MemTotal:\s*(\d+) kB`).FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("%s tells no size of memory", path)
	}
	kilobytes, err := strconv.ParseUint(string(found[1]), 10, 54)
	return kilobytes << 10, err
}

// pages reads the pools of huge pages below a directory.
func pages(dir string) map[uint64]uint64 {
	out := map[uint64]uint64{}
	pools, err := filepath.Glob(filepath.Join(dir, "hugepages/hugepages-*kB"))
	if err != nil {
		return out
	}
	for _, pool := range pools {
		size, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(pool), "hugepages-"), "kB"), 10, 40)
		if err != nil {
			continue
		}
		count, err := number(filepath.Join(pool, "nr_hugepages"))
		if err == nil && count >= 0 {
			out[size<<10] = size << 10 * uint64(count)
		}
	}
	return out
}

func number(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

func list(path string) (cpuset.CPUSet, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return cpuset.New(), err
	}
	return cpuset.Parse(strings.TrimSpace(string(text)))
}
