// SPDX-License-Identifier: Apache-2.0

// Package cgroup keeps the tree of control groups that pods live in:
//
//	<root>/kubepods                    what the node gives to pods
//	<root>/kubepods/pod<uid>           guaranteed pods
//	<root>/kubepods/burstable/pod<uid>
//	<root>/kubepods/besteffort/pod<uid>
//
// It writes the limits of the levels above containers; those of containers are
// the runtime's. Both versions of the kernel's interface are served, a hybrid
// of both as version 1. Names are upstream's, for the cgroupfs and the systemd
// driver.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"kaji/internal/kubelet/podspec"
)

// Config is what a Tree is made of.
type Config struct {
	// Mount is where control groups are mounted; "" is /sys/fs/cgroup.
	Mount string
	// Root is the group below which the tree stands, "/" for the top.
	Root string
	// Systemd says that names are systemd's slices.
	Systemd bool
	// PodPids bounds the processes of a pod; zero is no bound.
	PodPids int64
	// Quota says whether CPU limits of pods are enforced.
	Quota bool
	// QuotaPeriod is the period of CPU limits; zero means 100 ms.
	QuotaPeriod time.Duration
	// Allocatable bounds all pods together, in CPU, memory, huge pages and PIDs; nil
	// for no bound.
	Allocatable corev1.ResourceList
	// HugePages are the sizes of huge pages that the machine has, as the kernel
	// writes them: "2MB".
	HugePages []string
	// Exclusive says whether a pod has CPUs for itself, which knows no quota; nil
	// says of none.
	Exclusive func(pod *corev1.Pod) bool
	// Memory protects and throttles (KEP-2570). It takes version 2.
	Memory MemoryQoS
}

// PIDs is how many processes there may be, where resources are reserved.
const PIDs = corev1.ResourceName("pid")

// Tree keeps the groups. It is safe for concurrent use for different pods.
type Tree struct {
	cfg Config
	// mounts are the places of the hierarchies: one with version 2, one a
	// controller with version 1.
	unified     bool
	controllers map[string]string
	// units says that systemd is to be asked for groups: it takes away what it
	// did not make itself.
	units bool
}

const defaultMount = "/sys/fs/cgroup"

// Open looks at the machine's control groups; the error says that there are none.
func Open(cfg Config) (*Tree, error) {
	if cfg.Mount == "" {
		cfg.Mount = defaultMount
	}
	if cfg.QuotaPeriod == 0 {
		cfg.QuotaPeriod = 100 * time.Millisecond
	}
	t := &Tree{cfg: cfg, controllers: map[string]string{}, units: cfg.Systemd && cfg.Mount == defaultMount}
	if _, err := os.Stat(filepath.Join(cfg.Mount, "cgroup.controllers")); err == nil {
		t.unified = true
		return t, t.countedPages()
	}
	for _, c := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "hugetlb", "blkio", "devices", "freezer", "systemd"} {
		dir := filepath.Join(cfg.Mount, c)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			real, err := filepath.EvalSymlinks(dir)
			if err != nil {
				return nil, fmt.Errorf("find the control group hierarchy %s: %w", c, err)
			}
			t.controllers[c] = real
		}
	}
	if t.controllers["memory"] == "" || t.controllers["cpu"] == "" {
		return nil, errors.New("the control group hierarchies of cpu and memory are not mounted")
	}
	return t, t.countedPages()
}

// countedPages forgets huge pages that the kernel does not bound.
func (t *Tree) countedPages() error {
	counted := t.controllers["hugetlb"] != ""
	if t.unified {
		b, err := os.ReadFile(filepath.Join(t.cfg.Mount, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read the controllers of control groups: %w", err)
		}
		counted = slices.Contains(strings.Fields(string(b)), "hugetlb")
	}
	if !counted {
		t.cfg.HugePages = nil
	}
	return nil
}

// Swap says whether the kernel can limit swap.
func (t *Tree) Swap() bool {
	at := filepath.Join(t.controllers["memory"], "memory.memsw.limit_in_bytes")
	if t.unified { // the topmost group has no such file
		own, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			return false
		}
		_, group, _ := strings.Cut(strings.TrimSpace(string(own)), "::")
		at = filepath.Join(t.cfg.Mount, group, "memory.swap.max")
	}
	_, err := os.Stat(at)
	return err == nil
}

// Unified says whether the machine has version 2.
func (t *Tree) Unified() bool { return t.unified }

// names are the path elements of a pod's group below the root.
func names(pod *corev1.Pod) []string {
	leaf := "pod" + string(pod.UID)
	switch podspec.QOS(pod) {
	case corev1.PodQOSBurstable:
		return []string{"kubepods", "burstable", leaf}
	case corev1.PodQOSBestEffort:
		return []string{"kubepods", "besteffort", leaf}
	}
	return []string{"kubepods", leaf}
}

// Parent is the group of a pod as the runtime is told it.
func (t *Tree) Parent(pod *corev1.Pod) string {
	if t.cfg.Systemd {
		return slice(t.slices(names(pod)))
	}
	return path.Join("/", t.cfg.Root, path.Join(names(pod)...))
}

// Path is where a container's group stands below a hierarchy, by the names that
// runtimes give: with the systemd driver a scope with their own prefix.
func (t *Tree) Path(pod *corev1.Pod, runtime, id string) string {
	if !t.cfg.Systemd {
		return path.Join(t.relative(names(pod)), id)
	}
	prefix := map[string]string{"containerd": "cri-containerd", "cri-o": "crio"}[runtime]
	if prefix == "" {
		prefix = runtime
	}
	return path.Join(t.relative(names(pod)), prefix+"-"+id+".scope")
}

// slice is systemd's name of a nested group: dashes nest, so those of names
// are underscores.
func slice(elements []string) string {
	escaped := make([]string, len(elements))
	for i, e := range elements {
		escaped[i] = strings.ReplaceAll(e, "-", "_")
	}
	return strings.Join(escaped, "-") + ".slice"
}

// relative is where a group stands below a hierarchy.
func (t *Tree) relative(elements []string) string {
	if !t.cfg.Systemd {
		return path.Join("/", t.cfg.Root, path.Join(elements...))
	}
	p, elements := "/", t.slices(elements)
	for i := range elements {
		p = path.Join(p, slice(elements[:i+1]))
	}
	return p
}

// slices are the parts of a slice's name: those of the root come first.
func (t *Tree) slices(elements []string) []string {
	root := strings.FieldsFunc(t.cfg.Root, func(r rune) bool { return r == '/' })
	return append(root, elements...)
}

// number reads one field of a group's file: -1 for "max", 0 where there is none.
func (t *Tree) number(elements []string, controller, file string, field int) int64 {
	return t.at(t.relative(elements), controller, file, field)
}

func (t *Tree) at(relative, controller, file string, field int) int64 {
	b, err := os.ReadFile(filepath.Join(t.dir(controller), relative, file))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if field >= len(fields) {
		return 0
	}
	if fields[field] == "max" {
		return -1
	}
	n, err := strconv.ParseInt(fields[field], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Read returns what the kernel holds a pod to, nil where it has no group. There,
// zero means no limit.
func (t *Tree) Read(pod *corev1.Pod) *Limits {
	if !t.Exists(pod) {
		return nil
	}
	at := names(pod)
	l := t.read(at)
	if l.Memory == 1<<62 {
		l.Memory = 0
	}
	l.Quota = max(l.Quota, 0)
	if t.unified {
		if weight := t.number(at, "cpu", "cpu.weight", 0); weight > 0 {
			l.Shares = 2 + (weight-1)*262142/9999
			if want := t.PodLimits(pod).Shares; Weight(want) == weight {
				l.Shares = want // weights are coarser than shares
			}
		}
		l.Period = t.number(at, "cpu", "cpu.max", 1)
	} else {
		l.Shares, l.Period = t.number(at, "cpu", "cpu.shares", 0), t.number(at, "cpu", "cpu.cfs_period_us", 0)
	}
	return &l
}

// Applied says whether a pod's group, if it has one, is held to what the pod asks for.
func (t *Tree) Applied(pod *corev1.Pod) bool {
	have, want := t.Read(pod), t.PodLimits(pod)
	return have == nil || have.Shares == want.Shares && have.Quota == want.Quota && have.Memory == want.Memory
}

// read returns the limits of a group that can be lowered: memory, and quota
// with a negative value for none.
func (t *Tree) read(elements []string) Limits {
	l := Limits{}
	if t.unified {
		l.Memory, l.Quota = t.number(elements, "memory", "memory.max", 0), t.number(elements, "cpu", "cpu.max", 0)
	} else {
		l.Memory, l.Quota = t.number(elements, "memory", "memory.limit_in_bytes", 0), t.number(elements, "cpu", "cpu.cfs_quota_us", 0)
	}
	if l.Memory < 0 || l.Memory > 1<<61 {
		l.Memory = 1 << 62 // no limit is above every other
	}
	return l
}

// anyPages bounds no huge pages.
const anyPages = 1 << 62

// Setup makes the groups above pods.
func (t *Tree) Setup() error {
	if err := t.make([]string{"kubepods"}, Limits{Unified: t.reserve(0, 0)}); err != nil {
		return err
	}
	free := Limits{Shares: 2, HugePages: map[string]int64{}, Unified: t.reserve(0, 0)}
	for _, size := range t.cfg.HugePages {
		free.HugePages[size] = anyPages
	}
	if err := t.make([]string{"kubepods", "besteffort"}, free); err != nil {
		return err
	}
	return t.make([]string{"kubepods", "burstable"}, free)
}

// reserve keeps memory from reclaim: hard bytes whatever happens, soft ones as
// far as can be.
func (t *Tree) reserve(hard, soft int64) map[string]string {
	if !t.unified {
		return nil
	}
	return map[string]string{"memory.min": strconv.FormatInt(hard, 10), "memory.low": strconv.FormatInt(soft, 10)}
}

// Top are the names of the group of all pods, from the top.
func (t *Tree) Top() []string { return t.slices([]string{"kubepods"}) }

// Bound holds all pods together to what the node gives them. The kernel may
// refuse while they have more.
func (t *Tree) Bound() error {
	l := bounds(t.cfg.Allocatable, false)
	l.HugePages = t.pages(t.cfg.Allocatable)
	if err := t.write([]string{"kubepods"}, l); err != nil {
		return err
	}
	return t.allCPUs()
}

// allCPUs lets pods have every CPU that the machine has, also those that came
// since their group was made.
func (t *Tree) allCPUs() error {
	if t.cfg.Systemd || t.dir("cpuset") == "" {
		return nil // the slice has them, see unit
	}
	top, file := t.relative([]string{"kubepods"}), "cpuset.cpus"
	if t.unified {
		file = "cpuset.cpus.effective"
	}
	all, err := os.ReadFile(filepath.Join(t.dir("cpuset"), path.Dir(top), file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the controller is not handed down to here
	}
	if err != nil {
		return fmt.Errorf("read the machine's CPUs: %w", err)
	}
	return t.put(top, "cpuset", "cpuset.cpus", strings.TrimSpace(string(all)))
}

// Memory is what all pods together are held to, and their working set; false says
// that they are not, or that the kernel does not tell.
func (t *Tree) Memory() (bound, workingSet uint64, ok bool) {
	top := []string{"kubepods"}
	limit := t.read(top).Memory
	current, inactive := "memory.current", "inactive_file"
	if !t.unified {
		current, inactive = "memory.usage_in_bytes", "total_inactive_file"
	}
	used := t.number(top, "memory", current, 0)
	b, err := os.ReadFile(filepath.Join(t.dir("memory"), t.relative(top), "memory.stat"))
	if err != nil || limit <= 0 || limit == 1<<62 {
		return 0, 0, false
	}
	for line := range strings.Lines(string(b)) {
		if value, found := strings.CutPrefix(line, inactive+" "); found {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return 0, 0, false
			}
			used -= n
		}
	}
	return uint64(limit), uint64(max(used, 0)), true
}

// Reserve holds a group that others have made, as "/system.slice", to what the
// node keeps for it; compressible says that to no more than its weight.
func (t *Tree) Reserve(group string, reserved corev1.ResourceList, compressible bool) error {
	top := *t
	top.cfg.Root = "/"
	elements := strings.Split(strings.Trim(group, "/"), "/")
	if t.cfg.Systemd {
		elements = strings.Split(strings.TrimSuffix(path.Base(group), ".slice"), "-")
	}
	for _, controller := range []string{"cpu", "memory"} {
		dir := filepath.Join(top.dir(controller), top.relative(elements))
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("cgroup %q has some missing paths: %v", elements, dir)
		}
	}
	l := bounds(reserved, compressible)
	if !compressible {
		l.HugePages = t.pages(reserved)
	}
	if t.unified && t.cfg.Memory.Reserve && l.Memory > 0 {
		l.Unified = map[string]string{"memory.min": strconv.FormatInt(l.Memory, 10)}
	}
	return top.write(elements, l)
}

// Share brings the groups above pods up to date with those that run: all
// burstable ones together weigh what they request, and keep as much memory.
func (t *Tree) Share(pods []*corev1.Pod) error {
	milli, guaranteed, burstable := int64(0), int64(0), int64(0)
	for _, pod := range pods {
		requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
		switch podspec.QOS(pod) {
		case corev1.PodQOSBurstable:
			milli += requests.Cpu().MilliValue()
			burstable += requests.Memory().Value()
		case corev1.PodQOSGuaranteed:
			guaranteed += requests.Memory().Value()
		}
	}
	l := Limits{Shares: shares(milli)}
	if t.unified && t.cfg.Memory.Reserve {
		l.Unified = map[string]string{"memory.low": strconv.FormatInt(burstable, 10)}
		if err := t.write([]string{"kubepods"}, Limits{Unified: t.reserve(guaranteed+burstable, burstable)}); err != nil {
			return err
		}
	}
	return t.write([]string{"kubepods", "burstable"}, l)
}

// Ensure makes a pod's group and brings its limits up to date. Limits are
// lowered only with lower set: containers must be within them before.
func (t *Tree) Ensure(pod *corev1.Pod, lower bool) error {
	l := t.PodLimits(pod)
	if !lower && t.Exists(pod) {
		have := t.read(names(pod))
		if l.Memory > 0 && have.Memory > l.Memory {
			l.Memory = 0
		}
		if l.Period > 0 && have.Quota > l.Quota || have.Quota < 0 {
			l.Period = 0
		}
	}
	if lower {
		if l.Memory == 0 {
			l.Memory = -1
		}
		if l.Period == 0 && t.cfg.Quota {
			l.Period, l.Quota = t.cfg.QuotaPeriod.Microseconds(), -1
		}
	}
	if err := t.make(names(pod), l); err != nil {
		return fmt.Errorf("failed to ensure that the pod: %s cgroups exist and are correctly applied: %w", pod.UID, err)
	}
	return nil
}

// Exists says whether a pod's group is there.
func (t *Tree) Exists(pod *corev1.Pod) bool {
	_, err := os.Stat(filepath.Join(t.dir("memory"), t.relative(names(pod))))
	return err == nil
}
