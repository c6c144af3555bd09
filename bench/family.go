// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cost is what processes have taken.
type cost struct {
	cpu                     time.Duration // with that of their ended children
	proportional, anonymous int64         // bytes; shared pages are counted in parts
}

// family sums up the runtime's process and all that serve its pods: its
// descendants, and those that name a sandbox in their arguments (containerd's
// shims leave their parent) with theirs; not what runs in containers. Without a
// process it is zero.
func (r *runtimeRun) family() (sum cost, err error) {
	if r.PID == 0 {
		return cost{}, nil
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/stat", r.PID)); err != nil {
		return cost{}, fmt.Errorf("no process %d on this machine", r.PID)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return cost{}, err
	}
	children, roots := map[int][]int{}, []int{r.PID}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f := statFields(pid); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && containsAny(line, r.sandboxes) {
			roots = append(roots, pid)
		}
	}
	seen := map[int]bool{}
	for len(roots) > 0 {
		pid := roots[0]
		roots = roots[1:]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		if groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err != nil || containsAny(groups, r.containers) {
			continue
		}
		roots = append(roots, children[pid]...)
		sum.add(pid)
	}
	return sum, nil
}

func containsAny(text []byte, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return bytes.Contains(text, []byte(w)) })
}

// statFields are those of proc(5)'s stat from the third, the state, on; nil when
// the process is gone.
func statFields(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// The name in parentheses may hold anything; fields count from its end.
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// add counts one process, if it still is.
func (c *cost) add(pid int) {
	if f := statFields(pid); len(f) > 14 {
		for _, field := range f[11:15] { // utime, stime, cutime, cstime: fields 14 to 17
			n, _ := strconv.ParseInt(field, 10, 64)
			c.cpu += time.Duration(n) * (time.Second / ticks)
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "Pss":
			c.proportional += n << 10
		case "Pss_Anon":
			c.anonymous += n << 10
		}
	}
}
