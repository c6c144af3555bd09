// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Use is what the processes of a group take, those of the groups below it included.
type Use struct {
	// Group is the group's name, that by which memory is counted.
	Group string
	// Made is when the group was made.
	Made time.Time
	// CPU is in nanoseconds.
	CPU uint64
	// Memory, WorkingSet, RSS and Swap are in bytes, and so are Bound and SwapBound,
	// of which zero is none.
	Memory, WorkingSet, RSS, Swap, Bound, SwapBound uint64
	Faults, MajorFaults                             uint64
}

// Own are the groups of this process by which processor time and memory are
// counted: the same one with version 2.
func (t *Tree) Own() (cpu, memory string, err error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", fmt.Errorf("read the own control group: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		if t.unified && fields[1] == "" {
			return fields[2], fields[2], nil
		}
		for _, c := range strings.Split(fields[1], ",") {
			switch c {
			case "cpuacct":
				cpu = fields[2]
			case "memory":
				memory = fields[2]
			}
		}
	}
	if cpu == "" || memory == "" {
		return "", "", fmt.Errorf("cgroup %q is not found", map[bool]string{true: "unified", false: "memory"}[t.unified])
	}
	return cpu, memory, nil
}

// Pods is the group of all pods, below a hierarchy.
func (t *Tree) Pods() string { return t.relative([]string{"kubepods"}) }

// Used reads what a group takes; with version 1 processor time and memory may be
// counted by different ones.
func (t *Tree) Used(cpu, memory string) (Use, error) {
	u := Use{Group: memory}
	info, err := os.Stat(filepath.Join(t.dir("memory"), memory))
	if err != nil {
		return u, fmt.Errorf("look at a control group: %w", err)
	}
	u.Made = info.ModTime()
	read := func(file string, fields map[string]*uint64) {
		b, err := os.ReadFile(filepath.Join(t.dir("memory"), memory, file))
		if err != nil {
			return // not counted
		}
		if to := fields[""]; to != nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
				*to = n // what is no number is no bound
			}
			return
		}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if to := fields[name]; to != nil {
				*to, _ = strconv.ParseUint(value, 10, 64) // the kernel writes numbers
			}
		}
	}
	one := func(to *uint64) map[string]*uint64 { return map[string]*uint64{"": to} }
	var inactive uint64
	if t.unified {
		u.CPU = uint64(t.field(cpu, "cpu", "cpu.stat", "usage_usec")) * 1000
		read("memory.current", one(&u.Memory))
		read("memory.swap.current", one(&u.Swap))
		read("memory.max", one(&u.Bound))
		read("memory.swap.max", one(&u.SwapBound))
		read("memory.stat", map[string]*uint64{"anon": &u.RSS, "inactive_file": &inactive, "pgfault": &u.Faults, "pgmajfault": &u.MajorFaults})
	} else {
		u.CPU = uint64(max(t.at(cpu, "cpuacct", "cpuacct.usage", 0), 0))
		read("memory.usage_in_bytes", one(&u.Memory))
		read("memory.limit_in_bytes", one(&u.Bound))
		read("memory.stat", map[string]*uint64{"total_rss": &u.RSS, "total_inactive_file": &inactive, "total_pgfault": &u.Faults, "total_pgmajfault": &u.MajorFaults, "total_swap": &u.Swap})
	}
	if u.Bound >= 1<<60 {
		u.Bound = 0
	}
	u.WorkingSet = u.Memory - min(u.Memory, inactive)
	return u, nil
}

// field reads a named number of a group's file, zero where there is none.
func (t *Tree) field(relative, controller, file, name string) int64 {
	b, err := os.ReadFile(filepath.Join(t.dir(controller), relative, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64) // the kernel writes numbers
			return n
		}
	}
	return 0
}

// Place makes a group, if it is not there, and puts a process into it.
func (t *Tree) Place(group string, pid int) error {
	for _, root := range t.roots() {
		if err := os.MkdirAll(filepath.Join(root, group), 0o755); err != nil {
			return fmt.Errorf("make control group %s: %w", group, err)
		}
		if filepath.Base(root) == "cpuset" && !t.unified {
			if err := inheritSet(root, group); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(root, group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("put process %d into control group %s: %w", pid, group, err)
		}
	}
	return nil
}

// Gather puts all processes that are in no group into one, but for the kernel's
// and the first.
func (t *Tree) Gather(group string) error {
	if strings.Trim(group, "/") == "" {
		return errors.New("system container cannot be root (\"/\")")
	}
	var loose []int
	for _, root := range t.roots() {
		b, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
		if err != nil {
			return fmt.Errorf("read the processes of no control group: %w", err)
		}
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			if _, kernel := os.Readlink("/proc/" + field + "/exe"); err != nil || pid == 1 || kernel != nil || slices.Contains(loose, pid) {
				continue
			}
			loose = append(loose, pid)
		}
	}
	for _, pid := range loose {
		if err := t.Place(group, pid); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}
