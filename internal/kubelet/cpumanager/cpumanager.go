// SPDX-License-Identifier: Apache-2.0

// Package cpumanager gives containers processors for themselves: under the policy
// static, containers of guaranteed pods that ask for whole processors get as many,
// near to one another (take.go), and all others share the rest. What was given is
// kept in a file. The agent's root wires it: the topology manager has it allocate at
// admission, containers start with their set, and the sets of running ones follow
// when the shared rest changes. It touches no control group itself.
package cpumanager

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/cpuset"

	"kaji/internal/kubelet/cpumanager/state"
	"kaji/internal/kubelet/hardware"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/topologymanager"
)

// Policies.
const (
	None   = "none"
	Static = "static"
)

// Config is what a Manager decides by.
type Config struct {
	// Policy is one of the constants; "" means none.
	Policy  string
	Options map[string]string
	Layout  *hardware.Layout
	// Reserved are processors that no container gets for itself; where it is
	// empty, as many as Count are chosen.
	Reserved cpuset.CPUSet
	Count    int
	Path     string // "<root>/cpu_manager_state"
	Changed  func() // called when the shared processors are others than before
	Logger   *slog.Logger
	// Pinned is told of each container that is to get some for itself, and why it did
	// not; nil tells nobody.
	Pinned func(error)
}

// Manager manages processors. It is safe for concurrent use.
type Manager struct {
	cfg      Config
	full     bool // only whole cores
	spread   bool // evenly over NUMA nodes
	strict   bool // reserved processors are not shared either
	caches   bool // whole caches are preferred
	perCore  int
	reserved cpuset.CPUSet
	cores    cpuset.CPUSet // all processors of cores with a reserved one

	mu    sync.Mutex
	state state.State
}

// New returns a Manager that knows what an earlier one gave; the error says what
// is wrong with the configuration or the file.
func New(cfg Config) (*Manager, error) {
	m := &Manager{cfg: cfg}
	if cfg.Policy != Static {
		if cfg.Policy != None && cfg.Policy != "" {
			return nil, fmt.Errorf("unknown policy: %q", cfg.Policy)
		}
		return m, nil
	}
	if err := m.options(); err != nil {
		return nil, err
	}
	if len(cfg.Layout.CPUs) == 0 {
		return nil, fmt.Errorf("[cpumanager] the processors of the machine are not known")
	}
	m.perCore = len(cfg.Layout.CPUs) / distinct(cfg.Layout, core)
	m.reserved = cfg.Reserved
	if m.reserved.IsEmpty() {
		if cfg.Count == 0 {
			return nil, fmt.Errorf("[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero")
		}
		var err error
		if m.reserved, err = take(cfg.Layout, cfg.Layout.All(), cfg.Count, false); err != nil {
			return nil, fmt.Errorf("[cpumanager] unable to reserve the required amount of CPUs (size of %s did not equal %d)", m.reserved, cfg.Count)
		}
	}
	reserved := map[int]bool{}
	for _, c := range cfg.Layout.CPUs {
		reserved[c.Core] = reserved[c.Core] || m.reserved.Contains(c.ID)
	}
	m.cores = cfg.Layout.Where(func(c hardware.CPU) bool { return reserved[c.Core] })
	return m, m.restore()
}

func (m *Manager) options() error {
	for name, text := range m.cfg.Options {
		var to *bool
		switch name {
		case "full-pcpus-only":
			to = &m.full
		case "distribute-cpus-across-numa":
			to = &m.spread
		case "strict-cpu-reservation":
			to = &m.strict
		case "prefer-align-cpus-by-uncorecache":
			to = &m.caches
		case "align-by-socket", "distribute-cpus-across-cores":
			return fmt.Errorf("CPU Manager Policy Alpha-level Options not enabled, but option %q provided", name)
		default:
			return fmt.Errorf("unknown CPU Manager Policy option: %q", name)
		}
		var err error
		if *to, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("bad value for option %q: %w", name, err)
		}
	}
	if m.caches && m.spread {
		return fmt.Errorf("static policy options %s and %s can not be used at the same time", "prefer-align-cpus-by-uncorecache", "distribute-cpus-across-numa")
	}
	return nil
}

// restore reads the file and compares it with the machine.
func (m *Manager) restore() error {
	all := m.cfg.Layout.All()
	if m.strict {
		all = all.Difference(m.reserved)
	}
	wrong := func(err error) error {
		return fmt.Errorf("could not restore state from checkpoint: %w, please drain this node and delete the CPU manager checkpoint file %q before restarting Kubelet", err, m.cfg.Path)
	}
	s, err := state.Read(m.cfg.Path)
	if err != nil {
		return wrong(err)
	}
	if s == nil {
		m.state = state.State{Policy: Static, Default: all, Entries: map[string]map[string]cpuset.CPUSet{}}
		return m.save()
	}
	if s.Policy != Static {
		return wrong(fmt.Errorf("configured policy %q differs from state checkpoint policy %q", Static, s.Policy))
	}
	known := s.Default
	for pod, containers := range s.Entries {
		for name, cpus := range containers {
			if both := s.Default.Intersection(cpus); !both.IsEmpty() {
				return wrong(fmt.Errorf("pod: %s, container: %s cpuset: %q overlaps with default cpuset %q", pod, name, cpus, s.Default))
			}
			known = known.Union(cpus)
		}
	}
	if shared := m.reserved.Intersection(s.Default); m.strict && !shared.IsEmpty() {
		return wrong(fmt.Errorf("some of strictly reserved cpus: %q are present in defaultCpuSet: %q", shared, s.Default))
	} else if !m.strict && !shared.Equals(m.reserved) {
		return wrong(fmt.Errorf("not all reserved cpus: %q are present in defaultCpuSet: %q", m.reserved, s.Default))
	}
	if !known.Equals(all) {
		return wrong(fmt.Errorf("current set of available CPUs %q doesn't match with CPUs in state %q", all, known))
	}
	m.state = *s
	return nil
}

func (m *Manager) save() error { return state.Write(m.cfg.Path, m.state) }

// wants is how many processors a container is to have for itself.
func wants(pod *corev1.Pod, c *corev1.Container) int {
	cpu := c.Resources.Requests[corev1.ResourceCPU]
	if podspec.QOS(pod) != corev1.PodQOSGuaranteed || cpu.Value()*1000 != cpu.MilliValue() || pod.Spec.Resources != nil {
		return 0
	}
	return int(cpu.Value())
}

// smt refuses what does not come in whole cores, where that is asked for.
func (m *Manager) smt(count int) error {
	if !m.full {
		return nil
	}
	refuse := func(why string) error {
		return &topologymanager.Refusal{Reason: "SMTAlignmentError", Message: "SMT Alignment Error: " + why}
	}
	if count%m.perCore != 0 {
		return refuse(fmt.Sprintf("requested %d cpus not multiple cpus per core = %d", count, m.perCore))
	}
	if have := m.state.Default.Difference(m.cores).Size(); count > have {
		return refuse(fmt.Sprintf("not enough free physical CPUs: available physical CPUs = %d, requested CPUs = %d, CPUs per core = %d", have, count, m.perCore))
	}
	return nil
}

var _ topologymanager.Provider = (*Manager)(nil)

// Allocate implements topologymanager.Provider.
func (m *Manager) Allocate(_ context.Context, pod *corev1.Pod, c *corev1.Container, from topologymanager.Hint) (failed error) {
	if m.cfg.Policy != Static {
		return nil
	}
	count := wants(pod, c)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, has := m.state.Entries[string(pod.UID)][c.Name]; has || count == 0 {
		return nil
	}
	if m.cfg.Pinned != nil {
		defer func() { m.cfg.Pinned(failed) }()
	}
	if err := m.smt(count); err != nil {
		return err
	}
	free := m.free().Union(m.reusable(pod, c))
	got := cpuset.New()
	if from.Affinity != 0 {
		near := free.Intersection(m.within(from.Affinity))
		var err error
		if got, err = m.take(near, min(count, near.Size())); err != nil {
			return err
		}
	}
	rest, err := m.take(free.Difference(got), count-got.Size())
	if err != nil {
		return err
	}
	got = got.Union(rest)
	if m.state.Entries[string(pod.UID)] == nil {
		m.state.Entries[string(pod.UID)] = map[string]cpuset.CPUSet{}
	}
	m.state.Entries[string(pod.UID)][c.Name] = got
	m.state.Default = m.state.Default.Difference(got)
	m.cfg.Logger.Info("processors were given", "pod", pod.Namespace+"/"+pod.Name, "container", c.Name, "cpus", got.String())
	defer m.cfg.Changed()
	return m.save()
}

// free are the processors that may be given.
func (m *Manager) free() cpuset.CPUSet { return m.state.Default.Difference(m.reserved) }

func (m *Manager) within(nodes topologymanager.Mask) cpuset.CPUSet {
	return m.cfg.Layout.Where(func(c hardware.CPU) bool { return nodes.Has(c.Node) })
}

func (m *Manager) take(from cpuset.CPUSet, count int) (cpuset.CPUSet, error) {
	if !m.spread {
		return take(m.cfg.Layout, from, count, m.caches)
	}
	group := 1
	if m.full {
		group = m.perCore
	}
	return spread(m.cfg.Layout, from, count, group, m.caches)
}

// reusable are the processors of init containers that end before a container
// starts, and that no other container of the pod has.
func (m *Manager) reusable(pod *corev1.Pod, c *corev1.Container) cpuset.CPUSet {
	given := m.state.Entries[string(pod.UID)]
	out, held := cpuset.New(), cpuset.New()
	for i := range pod.Spec.InitContainers {
		init := &pod.Spec.InitContainers[i]
		if init.Name == c.Name {
			break
		}
		out = out.Union(given[init.Name])
		if podspec.Sidecar(init) {
			held = held.Union(given[init.Name])
		}
	}
	for i := range pod.Spec.Containers {
		held = held.Union(given[pod.Spec.Containers[i].Name])
	}
	return out.Difference(held)
}

// Hints implements topologymanager.Provider.
func (m *Manager) Hints(pod *corev1.Pod, c *corev1.Container) map[string][]topologymanager.Hint {
	if m.cfg.Policy != Static {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	given := m.state.Entries[string(pod.UID)]
	count, had, reusable := 0, cpuset.New(), cpuset.New()
	if c != nil {
		count, had, reusable = wants(pod, c), given[c.Name], m.reusable(pod, c)
	} else {
		count = total(pod)
		for _, cpus := range given {
			had = had.Union(cpus)
		}
	}
	switch {
	case count == 0:
		return nil
	case had.Size() == count:
		return map[string][]topologymanager.Hint{"cpu": m.hints(had, cpuset.New(), count)}
	case c != nil && !had.IsEmpty():
		return map[string][]topologymanager.Hint{"cpu": {}}
	}
	return map[string][]topologymanager.Hint{"cpu": m.hints(m.free(), reusable.Union(had), count)}
}

// total is how many processors a pod has for itself at most at a time.
func total(pod *corev1.Pod) int {
	beside, most, sum := 0, 0, 0
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if podspec.Sidecar(c) {
			beside += wants(pod, c)
		} else {
			most = max(most, beside+wants(pod, c))
		}
	}
	for i := range pod.Spec.Containers {
		sum += wants(pod, &pod.Spec.Containers[i])
	}
	return max(most, beside+sum)
}

// hints are the sets of NUMA nodes with enough processors; those as small as any
// could be are preferred.
func (m *Manager) hints(free, reusable cpuset.CPUSet, count int) []topologymanager.Hint {
	nodes := m.cfg.Layout.NodeIDs()
	least, hints := len(nodes), []topologymanager.Hint{}
	topologymanager.EachMask(nodes, func(set topologymanager.Mask) {
		all := m.within(set)
		if all.Size() >= count {
			least = min(least, set.Count())
		}
		if reusable.IsSubsetOf(all) && free.Union(reusable).Intersection(all).Size() >= count {
			hints = append(hints, topologymanager.Hint{Affinity: set})
		}
	})
	for i := range hints {
		hints[i].Preferred = hints[i].Affinity.Count() == least
	}
	return hints
}

// Release takes back what a pod was given.
func (m *Manager) Release(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.Entries[string(uid)] == nil {
		return
	}
	for _, cpus := range m.state.Entries[string(uid)] {
		m.state.Default = m.state.Default.Union(cpus)
	}
	delete(m.state.Entries, string(uid))
	if err := m.save(); err != nil {
		m.cfg.Logger.Error("what processors containers have was not written down", "err", err)
	}
	m.cfg.Changed()
}

// Keep takes back what all pods but some were given.
func (m *Manager) Keep(known func(types.UID) bool) {
	m.mu.Lock()
	entries := maps.Clone(m.state.Entries)
	m.mu.Unlock()
	for uid := range entries {
		if !known(types.UID(uid)) {
			m.Release(types.UID(uid))
		}
	}
}

// Set is what a container runs on, "" for whatever it likes.
func (m *Manager) Set(uid types.UID, container string) string {
	if m.cfg.Policy != Static {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if cpus, ok := m.state.Entries[string(uid)][container]; ok {
		return cpus.String()
	}
	return m.state.Default.String()
}

// Exclusive are the processors that a container has for itself.
func (m *Manager) Exclusive(uid types.UID, container string) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Entries[string(uid)][container].List()
}

// Allocatable are the processors that containers could have for themselves.
func (m *Manager) Allocatable() []int {
	if m.cfg.Policy != Static {
		return nil
	}
	return m.cfg.Layout.All().Difference(m.reserved).List()
}

// Shares are how many processors containers share, and how many single ones have.
func (m *Manager) Shares() (shared, exclusive int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, containers := range m.state.Entries {
		for _, set := range containers {
			exclusive += set.Size()
		}
	}
	return m.free().Size(), exclusive
}

// Near is how many processors single containers have of each NUMA node.
func (m *Manager) Near() map[int]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[int]int{}
	for _, id := range m.cfg.Layout.NodeIDs() {
		out[id] = 0
	}
	given := cpuset.New()
	for _, containers := range m.state.Entries {
		for _, set := range containers {
			given = given.Union(set)
		}
	}
	for _, c := range m.cfg.Layout.CPUs {
		if given.Contains(c.ID) {
			out[c.Node]++
		}
	}
	return out
}

// Active says whether containers are bound to processors at all.
func (m *Manager) Active() bool { return m.cfg.Policy == Static }
