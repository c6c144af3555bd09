// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

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
