// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Process is a process of this machine that is watched while it is measured.
// The nil Process stands for one elsewhere, of which nothing is known.
type Process struct{ pids []int }

// Watch returns the process with the given id; several ids count as one.
func Watch(pids ...int) (*Process, error) {
	if len(pids) == 0 {
		return nil, nil
	}
	for _, pid := range pids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/stat", pid)); err != nil {
			return nil, fmt.Errorf("no process %d on this machine", pid)
		}
	}
	return &Process{pids: pids}, nil
}

// ticks is how many parts of a second /proc counts in; the kernel's ABI fixes
// it at 100 on the architectures Go runs on.
const ticks = 100

// CPU returns the time the process has computed so far, in user and kernel mode.
func (p *Process) CPU() time.Duration {
	if p == nil {
		return 0
	}
	var sum time.Duration
	for _, pid := range p.pids {
		f := statFields(pid)
		if len(f) < 13 {
			continue // it ended; what it did is no longer known
		}
		for _, field := range f[11:13] { // utime, stime: fields 14 and 15 of proc(5)
			n, _ := strconv.ParseInt(field, 10, 64)
			sum += time.Duration(n) * (time.Second / ticks)
		}
	}
	return sum
}

// Memory returns the resident bytes, and those of them that no file backs.
func (p *Process) Memory() (resident, anonymous int64) {
	if p == nil {
		return 0, 0
	}
	for _, pid := range p.pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				continue
			}
			switch name {
			case "VmRSS":
				resident += n << 10
			case "RssAnon":
				anonymous += n << 10
			}
		}
	}
	return resident, anonymous
}
