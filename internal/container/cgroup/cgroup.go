// SPDX-License-Identifier: Apache-2.0

// Package cgroup names, makes, limits, measures and removes the control groups
// of sandboxes and containers, on both versions and with both drivers. Package
// container calls it.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs2"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Driver makes control groups. Those that are named already are recognized as of
// one kind or the other by their names.
type Driver struct {
	// Systemd asks systemd for new ones; otherwise the file system is used.
	Systemd bool
	// Root is the parent where a pod names none, such as "/kaji".
	Root string
	// unified, in tests, is a directory that looks like a unified hierarchy.
	unified string
}

// buryTime is how long killed processes may take to leave.
const buryTime = 10 * time.Second

// V2 tells whether the machine has the unified hierarchy.
func V2() bool { return cgroups.IsCgroup2UnifiedMode() }

// Hugetlb tells whether the machine accounts for huge pages. The kubelet limits
// them for every container, be there a controller or not.
func Hugetlb() bool {
	if V2() {
		controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		return err == nil && slices.Contains(strings.Fields(string(controllers)), "hugetlb")
	}
	_, err := cgroups.FindCgroupMountpoint("", "hugetlb")
	return err == nil
}

// Path is the control group of one sandbox or container below a pod's parent,
// in the form of the OCI.
func (d Driver) Path(parent, id string) string {
	if d.Systemd {
		if parent == "" {
			parent = "system.slice"
		}
		return filepath.Base(parent) + ":kaji:" + id
	}
	if parent == "" {
		parent = d.Root
	}
	return filepath.Join("/", parent, id)
}

// Slice is systemd's slice that stands for a group of the file system at the top,
// as a path below the hierarchy.
func Slice(root string) string {
	return "/" + strings.ReplaceAll(strings.Trim(root, "/"), "-", "_") + ".slice"
}

// Exists says whether a group is there, by its path below the hierarchies.
func Exists(path string) bool {
	at := []string{filepath.Join("/sys/fs/cgroup", path)}
	if !V2() {
		at, _ = filepath.Glob(filepath.Join("/sys/fs/cgroup/*", path)) // the pattern is well formed
	}
	return slices.ContainsFunc(at, func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	})
}

func (d Driver) manager(path string, r *cgroups.Resources) (cgroups.Manager, error) {
	if d.unified != "" {
		return fs2.NewManager(d.config(path, r), filepath.Join(d.unified, path))
	}
	return manager.New(d.config(path, r))
}

func (d Driver) config(path string, r *cgroups.Resources) *cgroups.Cgroup {
	config := &cgroups.Cgroup{Resources: r, Systemd: strings.Contains(path, ":") || !strings.Contains(path, "/") && strings.HasSuffix(path, ".slice")}
	if !config.Systemd {
		config.Path = path
		return config
	}
	slice, rest, scope := strings.Cut(path, ":")
	if !scope { // a pod's parent: a slice, which stands in that of the name without the last part
		config.Name = filepath.Base(path)
		config.Parent = "-.slice"
		if i := strings.LastIndex(config.Name, "-"); i > 0 {
			config.Parent = config.Name[:i] + ".slice"
		}
		return config
	}
	prefix, name, _ := strings.Cut(rest, ":")
	config.Parent, config.ScopePrefix, config.Name = slice, prefix, name
	return config
}

// Join makes the group and puts a process into it.
func (d Driver) Join(path string, pid int) error {
	m, err := d.manager(path, &cgroups.Resources{SkipDevices: true})
	if err != nil {
		return err
	}
	return m.Apply(pid)
}

// Update changes the limits of a running container; what is zero stays.
func (d Driver) Update(path string, r *specs.LinuxResources) error {
	out := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true, Unified: r.Unified}
	if c := r.CPU; c != nil {
		out.CpusetCpus, out.CpusetMems = c.Cpus, c.Mems
		if c.Shares != nil {
			out.CpuShares = *c.Shares
			if V2() || d.unified != "" {
				out.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*c.Shares)
			}
		}
		if c.Quota != nil {
			out.CpuQuota = *c.Quota
		}
		if c.Period != nil {
			out.CpuPeriod = *c.Period
		}
	}
	if m := r.Memory; m != nil {
		if m.Limit != nil {
			out.Memory = *m.Limit
		}
		if m.Swap != nil {
			out.MemorySwap = *m.Swap
		}
	}
	for _, h := range r.HugepageLimits {
		out.HugetlbLimit = append(out.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
	}
	m, err := d.manager(path, out)
	if err != nil {
		return err
	}
	return m.Set(out)
}

// Freeze pauses all processes of the group, or lets them go on.
func (d Driver) Freeze(path string, frozen bool) error {
	m, err := d.manager(path, &cgroups.Resources{SkipDevices: true})
	if err != nil {
		return err
	}
	if frozen {
		return m.Freeze(cgroups.Frozen)
	}
	return m.Freeze(cgroups.Thawed)
}

// Kill sends SIGKILL to all processes of the group and those below it.
func (d Driver) Kill(path string) error {
	m, err := d.manager(path, &cgroups.Resources{})
	if err != nil {
		return err
	}
	_, err = kill(m)
	return err
}

// kill returns how many processes it met.
func kill(m cgroups.Manager) (int, error) {
	pids, err := m.GetAllPids()
	// As above.
	if path := m.Path("freezer"); len(pids) == 0 && path != "" && !V2() {
		pids, err = cgroups.GetAllPids(path)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, os.NewSyscallError("kill", err))
		}
	}
	// On version 1 a paused process does not die.
	if state, err := m.GetFreezerState(); err == nil && state == cgroups.Frozen && len(pids) > 0 {
		errs = append(errs, m.Freeze(cgroups.Thawed))
	}
	return len(pids), errors.Join(errs...)
}

// Remove kills what is left in the group, waits for the kernel to bury it and
// removes the group; it succeeds when there is none.
func (d Driver) Remove(path string) error {
	m, err := d.manager(path, &cgroups.Resources{})
	if err != nil {
		return err
	}
	// On version 1 the first asks for the controller of devices only, which
	// containers have and sandboxes have not.
	if path := m.Path("freezer"); !m.Exists() && (path == "" || !cgroups.PathExists(path)) {
		return m.Destroy() // perhaps some of its parts
	}
	start := time.Now()
	// Destroy itself would wait much too long for a group that is in use.
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		left, err := kill(m)
		if err != nil {
			return err
		}
		if left == 0 {
			return m.Destroy()
		}
		if time.Since(start) > buryTime {
			return fmt.Errorf("control group %s: %d processes do not end although they were killed", path, left)
		}
		time.Sleep(wait)
	}
}

// OOMKills counts processes of the group that the kernel killed for memory.
func (d Driver) OOMKills(path string) uint64 {
	m, err := d.manager(path, &cgroups.Resources{})
	if err != nil {
		return 0
	}
	n, err := m.OOMKillCount()
	if err != nil {
		return 0
	}
	return n
}

// OOMKillsAround counts those of all groups of the pod that a scope of systemd is
// in, the ones that are gone included: systemd removes a scope as soon as it is
// empty, with its counts. Other groups stay until they are removed; for them it
// is zero.
func (d Driver) OOMKillsAround(path string) uint64 {
	slice, _, scope := strings.Cut(path, ":")
	if !scope {
		return 0
	}
	return d.OOMKills(slice)
}

// Processes lists the processes of the group and those below it.
func (d Driver) Processes(path string) ([]int, error) {
	m, err := d.manager(path, &cgroups.Resources{})
	if err != nil {
		return nil, err
	}
	return m.GetAllPids()
}

// Stats measures a group.
func (d Driver) Stats(path string) (*cgroups.Stats, error) {
	m, err := d.manager(path, &cgroups.Resources{})
	if err != nil {
		return nil, err
	}
	return m.GetStats()
}
