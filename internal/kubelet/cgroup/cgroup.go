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
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
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

// MemoryQoS says how requests and limits of memory count besides the bounds.
type MemoryQoS struct {
	// Reserve keeps what guaranteed pods request from reclaim, and what burstable
	// ones do as far as can be.
	Reserve bool
	// Throttle is the part of the way from a request to its limit from which on
	// more memory is slow to get; zero never is.
	Throttle float64
}

// High is where memory gets slow to get between a request and a limit, in bytes;
// zero where nothing is throttled.
func (q MemoryQoS) High(request, limit int64) int64 {
	page := int64(os.Getpagesize())
	high := int64(float64(request)+float64(limit-request)*q.Throttle) / page * page
	if q.Throttle == 0 || limit == 0 || request == limit || high <= request {
		return 0
	}
	return high
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

// Limits are what a group gets. Zero values are not written; a negative quota
// or memory takes the limit away.
type Limits struct {
	Shares, Quota, Period, Memory, Pids int64
	// HugePages are bytes by page size, as the kernel writes it.
	HugePages map[string]int64
	// Unified are files that version 2 alone has.
	Unified map[string]string
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

// pages are the huge pages in a list, by size; those that it does not have are none.
func (t *Tree) pages(list corev1.ResourceList) map[string]int64 {
	out := map[string]int64{}
	for _, size := range t.cfg.HugePages {
		out[size] = 0
	}
	for name, amount := range list {
		text, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
		size, err := apiresource.ParseQuantity(text)
		if !ok || err != nil {
			continue
		}
		if kernel := PageSize(size.Value()); slices.Contains(t.cfg.HugePages, kernel) {
			out[kernel] += amount.Value()
		}
	}
	return out
}

// PageSize writes a size in bytes as the kernel does in names of files: "2MB".
func PageSize(bytes int64) string {
	n, unit := bytes/1024, 0
	for n >= 1024 && n%1024 == 0 && unit < 3 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + []string{"KB", "MB", "GB", "TB"}[unit]
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

// bounds are the limits of a group that is given resources as a whole.
func bounds(r corev1.ResourceList, compressible bool) (l Limits) {
	if cpu, ok := r[corev1.ResourceCPU]; ok {
		l.Shares = shares(cpu.MilliValue())
	}
	if !compressible {
		processes := r[PIDs]
		l.Memory, l.Pids = r.Memory().Value(), processes.Value()
	}
	return l
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

func shares(milli int64) int64 { return min(max(milli*1024/1000, 2), 262144) }

// PodLimits are those of a pod's group.
func (t *Tree) PodLimits(pod *corev1.Pod) Limits {
	l := Limits{Shares: 2, Pids: t.cfg.PodPids}
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	if podspec.QOS(pod) != corev1.PodQOSBestEffort {
		l.Shares = shares(requests.Cpu().MilliValue())
	}
	if allHave(pod, corev1.ResourceCPU) && t.cfg.Quota && (t.cfg.Exclusive == nil || !t.cfg.Exclusive(pod)) {
		l.Period = t.cfg.QuotaPeriod.Microseconds()
		l.Quota = max(limits.Cpu().MilliValue()*l.Period/1000, 1000)
	}
	if allHave(pod, corev1.ResourceMemory) {
		l.Memory = limits.Memory().Value()
	}
	l.HugePages = t.pages(requests)
	l.Unified = t.memoryQoS(pod, requests.Memory().Value(), l.Memory)
	return l
}

// memoryQoS is what a pod's group has of requests and limits of memory besides
// its bound.
func (t *Tree) memoryQoS(pod *corev1.Pod, request, limit int64) map[string]string {
	files := map[string]string{}
	if t.unified && t.cfg.Memory.Reserve && request > 0 {
		file := "memory.low"
		if podspec.QOS(pod) == corev1.PodQOSGuaranteed {
			file = "memory.min"
		}
		files[file] = strconv.FormatInt(request, 10)
	}
	if high := t.cfg.Memory.High(request, limit); t.unified && pod.Spec.Resources != nil && high > 0 {
		files["memory.high"] = strconv.FormatInt(high, 10)
	}
	return files
}

// allHave says whether the pod as a whole is limited: by itself, or because
// every container is.
func allHave(pod *corev1.Pod, name corev1.ResourceName) bool {
	if r := pod.Spec.Resources; r != nil {
		if limit, ok := r.Limits[name]; ok && !limit.IsZero() {
			return true
		}
	}
	limited := func(c *corev1.Container) bool {
		limit := c.Resources.Limits[name]
		return !limit.IsZero()
	}
	for i := range pod.Spec.Containers {
		if !limited(&pod.Spec.Containers[i]) {
			return false
		}
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; podspec.Sidecar(c) && !limited(c) {
			return false
		}
	}
	return true
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

func (t *Tree) dir(controller string) string {
	if t.unified {
		return t.cfg.Mount
	}
	return t.controllers[controller]
}

func (t *Tree) roots() []string {
	if t.unified {
		return []string{t.cfg.Mount}
	}
	var roots []string
	for _, dir := range t.controllers {
		if !slices.Contains(roots, dir) {
			roots = append(roots, dir)
		}
	}
	return roots
}

func (t *Tree) make(elements []string, l Limits) error {
	if t.units {
		return t.makeSlice(elements, l)
	}
	relative := t.relative(elements)
	for _, root := range t.roots() {
		dir := filepath.Join(root, relative)
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		if t.unified {
			if err := t.delegate(relative); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make control group %s: %w", dir, err)
		}
	}
	if dir := t.controllers["cpuset"]; dir != "" && !t.unified {
		if err := inheritSet(dir, relative); err != nil {
			return err
		}
	}
	return t.write(elements, l)
}

// delegate turns the controllers on for all levels above a group.
func (t *Tree) delegate(relative string) error {
	dir := t.cfg.Mount
	parts := strings.Split(strings.Trim(relative, "/"), "/")
	for _, part := range parts {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read controllers of %s: %w", dir, err)
		}
		for _, c := range strings.Fields(string(b)) {
			// One that cannot be delegated is missed by whoever needs it.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make control group %s: %w", dir, err)
		}
	}
	return nil
}

// inheritSet copies CPUs and memory nodes downwards: an empty set admits nobody.
func inheritSet(root, relative string) error {
	dir := root
	for _, part := range strings.Split(strings.Trim(relative, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			have, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || strings.TrimSpace(string(have)) != "" {
				continue
			}
			b, err := os.ReadFile(filepath.Join(parent, name))
			if err != nil {
				return fmt.Errorf("read %s of %s: %w", name, parent, err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				return fmt.Errorf("write %s of %s: %w", name, dir, err)
			}
		}
	}
	return nil
}

// Weight converts version 1's shares to version 2's weight, as the field does.
func Weight(shares int64) int64 {
	if shares <= 0 {
		return 0
	}
	return 1 + (min(max(shares, 2), 262144)-2)*9999/262142
}

func (t *Tree) write(elements []string, l Limits) error {
	if t.units {
		return t.limitSlice(elements, l)
	}
	relative := t.relative(elements)
	put := func(controller, file, value string) error { return t.put(relative, controller, file, value) }
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	limit := func(n int64) string {
		if n < 0 {
			return "max"
		}
		return number(n)
	}
	var errs []error
	if t.unified {
		if l.Shares > 0 {
			errs = append(errs, put("cpu", "cpu.weight", number(Weight(l.Shares))))
		}
		if l.Period > 0 {
			errs = append(errs, put("cpu", "cpu.max", limit(l.Quota)+" "+number(l.Period)))
		}
		if l.Memory != 0 {
			errs = append(errs, put("memory", "memory.max", limit(l.Memory)))
		}
	} else {
		if l.Shares > 0 {
			errs = append(errs, put("cpu", "cpu.shares", number(l.Shares)))
		}
		if l.Period > 0 {
			errs = append(errs, put("cpu", "cpu.cfs_period_us", number(l.Period)), put("cpu", "cpu.cfs_quota_us", number(l.Quota)))
		}
		if l.Memory > 0 || l.Memory < 0 && t.read(elements).Memory < 1<<61 {
			errs = append(errs, put("memory", "memory.limit_in_bytes", number(l.Memory)))
		}
	}
	if l.Pids > 0 {
		errs = append(errs, put("pids", "pids.max", number(l.Pids)))
	}
	file := map[bool]string{true: "max", false: "limit_in_bytes"}[t.unified]
	for size, bytes := range l.HugePages {
		for _, kind := range []string{".", ".rsvd."} {
			errs = append(errs, t.pagesFile(relative, "hugetlb."+size+kind+file, bytes))
		}
	}
	for file, value := range l.Unified {
		errs = append(errs, put("memory", file, value))
	}
	return errors.Join(errs...)
}

// pagesFile bounds huge pages where the kernel counts them: it does not count
// reservations (rsvd) in older versions.
func (t *Tree) pagesFile(relative, file string, bytes int64) error {
	dir := t.dir("hugetlb")
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, relative, file)); err != nil {
		return nil
	}
	have := t.at(relative, "hugetlb", file, 0)
	if have == bytes || bytes == anyPages && (have < 0 || have >= anyPages/2) {
		return nil // the kernel rounds what is no bound
	}
	return t.put(relative, "hugetlb", file, strconv.FormatInt(bytes, 10))
}

// put writes a file of a group, unless it says so already.
func (t *Tree) put(relative, controller, file, value string) error {
	dir := t.dir(controller)
	if dir == "" {
		return nil
	}
	at := filepath.Join(dir, relative, file)
	if have, err := os.ReadFile(at); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	err := os.WriteFile(at, []byte(value), 0o644)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && t.unified {
		return nil // the controller is not delegated to us
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", at, err)
	}
	return nil
}

// Remove takes a pod's group away, processes that are left included.
func (t *Tree) Remove(pod *corev1.Pod) error {
	var errs []error
	for _, qos := range [][]string{{"kubepods"}, {"kubepods", "burstable"}, {"kubepods", "besteffort"}} {
		elements, found := append(slices.Clone(qos), "pod"+string(pod.UID)), false
		for _, root := range t.roots() {
			dir := filepath.Join(root, t.relative(elements))
			if _, err := os.Stat(dir); err == nil {
				errs, found = append(errs, remove(dir)), true
			}
		}
		if found && t.units {
			errs = append(errs, t.removeSlice(elements))
		}
	}
	return errors.Join(errs...)
}

// remove deletes a group and those in it, deepest first.
func remove(dir string) error {
	var groups []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.IsDir() {
			groups = append(groups, p)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look into control group %s: %w", dir, err)
	}
	for i := len(groups) - 1; i >= 0; i-- {
		if err := removeOne(groups[i]); err != nil {
			return err
		}
	}
	return nil
}

func removeOne(dir string) error {
	wait := time.Millisecond
	for range 8 { // the kernel needs a moment after the last process has gone
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil {
			for _, field := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone by now
				}
			}
		}
		time.Sleep(wait)
		wait *= 2
	}
	return fmt.Errorf("remove control group %s: %w", dir, syscall.EBUSY)
}
