// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// diskKeep is how long the size of a directory is good for.
const diskKeep = time.Minute

// Space is what a file system has.
type Space struct {
	Capacity, Available, Used      uint64
	Inodes, InodesFree, InodesUsed uint64
}

// SpaceOf asks the file system that a path is on.
func SpaceOf(path string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Space{}, fmt.Errorf("ask the file system of %s: %w", path, err)
	}
	size := uint64(s.Bsize)
	return Space{Capacity: s.Blocks * size, Available: s.Bavail * size, Used: (s.Blocks - s.Bfree) * size,
		Inodes: s.Files, InodesFree: s.Ffree, InodesUsed: s.Files - s.Ffree}, nil
}

func (s Space) stats(at time.Time) *statsapi.FsStats {
	return &statsapi.FsStats{Time: metav1.NewTime(at), AvailableBytes: &s.Available, CapacityBytes: &s.Capacity, UsedBytes: &s.Used,
		InodesFree: &s.InodesFree, Inodes: &s.Inodes, InodesUsed: &s.InodesUsed}
}

// DiskUse is what a directory takes on its own file system; the result is kept
// for a while.
func (r *Reader) DiskUse(dir string) (bytes, inodes uint64) {
	r.mu.Lock()
	kept, ok := r.usage[dir]
	r.mu.Unlock()
	keep := r.cfg.DiskKeep
	switch {
	case keep < 0:
		return 0, 0
	case keep == 0:
		keep = diskKeep
	}
	if ok && time.Since(kept.at) < keep {
		return kept.bytes, kept.inodes
	}
	bytes, inodes = Measure(dir)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.usage) > 8192 {
		r.usage = map[string]diskUse{}
	}
	r.usage[dir] = diskUse{time.Now(), bytes, inodes}
	return bytes, inodes
}

// Measure adds up what a directory takes on its own file system.
func Measure(dir string) (bytes, inodes uint64) {
	var device uint64
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it vanished while being looked at
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if path == dir {
			device = stat.Dev
		}
		if stat.Dev != device {
			return filepath.SkipDir
		}
		if stat.Nlink > 1 && !d.IsDir() {
			if seen[stat.Ino] {
				return nil
			}
			seen[stat.Ino] = true
		}
		bytes += uint64(stat.Blocks) * 512
		inodes++
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0
	}
	return bytes, inodes
}

// Memory is the node's, in bytes: what is in use in the sense of eviction
// (WorkingSet), what is resident, and what is available.
type Memory struct {
	WorkingSet, Usage, RSS, Available, Swap, SwapUsed uint64
	Faults, MajorFaults                               uint64
}

// MemoryNow reads it.
func MemoryNow() Memory {
	values := map[string]uint64{}
	for _, file := range []string{"/proc/meminfo", "/proc/vmstat"} {
		b, err := os.ReadFile(file)
		if err != nil {
			return Memory{}
		}
		for line := range strings.Lines(string(b)) {
			fields := strings.Fields(line)
			if len(fields) >= 2 {
				n, _ := strconv.ParseUint(fields[1], 10, 64) // foreign lines count as zero
				values[fields[0]] = n
			}
		}
	}
	kilo := func(name string) uint64 { return values[name+":"] << 10 }
	m := Memory{Usage: kilo("MemTotal") - kilo("MemFree"), RSS: kilo("AnonPages"), Swap: kilo("SwapTotal"), SwapUsed: kilo("SwapTotal") - min(kilo("SwapTotal"), kilo("SwapFree")),
		Faults: values["pgfault"], MajorFaults: values["pgmajfault"]}
	m.WorkingSet = m.Usage - min(m.Usage, kilo("Inactive(file)"))
	m.Available = kilo("MemTotal") - min(kilo("MemTotal"), m.WorkingSet)
	return m
}

// CPUNow reads the node's processor time in nanoseconds.
func CPUNow() uint64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	var ticks uint64
	for i, f := range fields {
		// user nice system idle iowait irq softirq steal
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, _ := strconv.ParseUint(f, 10, 64)
		ticks += n
	}
	const nanosPerTick = 1e9 / 100
	return ticks * nanosPerTick
}

// Processes reads how many processes there may be and are.
func Processes() (most, now int64) {
	number := func(path string) int64 {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return n
	}
	most = number("/proc/sys/kernel/pid_max")
	if threads := number("/proc/sys/kernel/threads-max"); threads > 0 && threads < most {
		most = threads
	}
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return most, 0
	}
	if fields := strings.Fields(string(b)); len(fields) > 3 {
		_, total, _ := strings.Cut(fields[3], "/")
		now, _ = strconv.ParseInt(total, 10, 64)
	}
	return most, now
}
