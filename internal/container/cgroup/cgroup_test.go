// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// unified makes a tree of plain files that looks like version 2 of the kernel's
// interface, with one group in it.
func unified(t *testing.T, group string, files map[string]string) Driver {
	t.Helper()
	cgroups.TestMode = true
	t.Cleanup(func() { cgroups.TestMode = false })
	d := Driver{unified: t.TempDir()}
	dir := filepath.Join(d.unified, group)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files["cgroup.controllers"] = "cpuset cpu io memory hugetlb pids"
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func ptr[T any](v T) *T { return &v }

// TestUpdateUnified writes the limits of a running container to a unified
// hierarchy, and leaves alone what is not named.
func TestUpdateUnified(t *testing.T) {
	const group = "/kubepods/burstable/podx/c"
	empty := map[string]string{}
	for _, name := range []string{"memory.max", "memory.swap.max", "memory.high", "memory.oom.group", "cpu.max", "cpu.weight", "cpuset.cpus", "cpuset.mems",
		"hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "io.weight", "pids.max"} {
		empty[name] = ""
	}
	d := unified(t, group, empty)
	err := d.Update(group, &specs.LinuxResources{
		CPU:            &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0-1", Mems: "0"},
		Memory:         &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Unified:        map[string]string{"memory.oom.group": "1", "memory.high": "60000000", "io.weight": "50"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", // of version 2: swap alone
		"memory.high": "60000000", "memory.oom.group": "1", "cpu.max": "50000 100000", "cpu.weight": "100",
		"cpuset.cpus": "0-1", "cpuset.mems": "0", "hugetlb.2MB.max": "4194304", "io.weight": "50", "pids.max": "",
	} {
		if got, err := os.ReadFile(filepath.Join(d.unified, group, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
}

// TestStatsUnified reads what a group of a unified hierarchy has used.
func TestStatsUnified(t *testing.T) {
	const group, pressure = "/p/c", "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
	d := unified(t, group, map[string]string{
		"cpu.stat":    "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 3\nthrottled_usec 2500\n",
		"memory.stat": "anon 4096\nfile 8192\ninactive_file 1024\npgfault 12\npgmajfault 2\n", "memory.current": "20480", "memory.max": "max",
		"memory.swap.current": "2048", "memory.swap.max": "4096", "memory.peak": "30000", "memory.swap.peak": "3000",
		"memory.events": "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\n", "pids.current": "7", "pids.max": "max", "cgroup.events": "populated 1\nfrozen 0\n",
		"io.stat": "8:0 rbytes=100 wbytes=200 rios=3 wios=4\n", "cpu.pressure": pressure, "memory.pressure": pressure, "io.pressure": pressure,
		"hugetlb.2MB.current": "0", "hugetlb.2MB.events": "max 0\n",
	})
	s, err := d.Stats(group)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]struct{ got, want uint64 }{
		"cpu":       {s.CpuStats.CpuUsage.TotalUsage, 1_500_000_000},
		"throttled": {s.CpuStats.ThrottlingData.ThrottledPeriods, 3},
		"memory":    {s.MemoryStats.Usage.Usage, 20480},
		"inactive":  {s.MemoryStats.Stats["inactive_file"], 1024},
		"faults":    {s.MemoryStats.Stats["pgmajfault"], 2},
		"swap":      {s.MemoryStats.SwapOnlyUsage.Usage, 2048},
		"pids":      {s.PidsStats.Current, 7},
		"pressure":  {s.CpuStats.PSI.Some.Total, 77},
		"oom kills": {d.OOMKills(group), 1},
	} {
		if got.got != got.want {
			t.Errorf("%s: %d, want %d", name, got.got, got.want)
		}
	}
	if len(s.BlkioStats.IoServiceBytesRecursive) == 0 || s.BlkioStats.IoServiceBytesRecursive[0].Value != 100 {
		t.Errorf("io: %+v", s.BlkioStats.IoServiceBytesRecursive)
	}
	if n := d.OOMKills("/nowhere"); n != 0 {
		t.Errorf("a group that is gone has %d OOM kills", n)
	}
}

// TestKillUnified kills what is in a group and in those below it.
func TestKillUnified(t *testing.T) {
	const group = "/p/c"
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- child.Wait() }()
	d := unified(t, group, map[string]string{"cgroup.procs": ""})
	below := filepath.Join(d.unified, group, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte(strconv.Itoa(child.Process.Pid)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if pids, err := d.Processes(group); err != nil || len(pids) != 1 || pids[0] != child.Process.Pid {
		t.Errorf("processes: %v, %v; want %d", pids, err, child.Process.Pid)
	}
	if err := d.Kill(group); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("the process ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the process lives on")
	}
	if err := d.Kill("/nowhere"); err != nil {
		t.Errorf("a group that is gone: %v", err)
	}
}

// TestPath names groups for both drivers.
func TestPath(t *testing.T) {
	for _, c := range []struct {
		systemd              bool
		parent, want         string
		slice, prefix, scope string
	}{
		{false, "/kubepods/burstable/pod1", "/kubepods/burstable/pod1/id", "", "", ""},
		{false, "", "/kaji/id", "", "", ""},
		{true, "kubepods-burstable-pod1_2.slice", "kubepods-burstable-pod1_2.slice:kaji:id", "kubepods-burstable-pod1_2.slice", "kaji", "id"},
		{true, "/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice:kaji:id", "kubepods-pod1.slice", "kaji", "id"},
		{true, "", "system.slice:kaji:id", "system.slice", "kaji", "id"},
	} {
		d := Driver{Systemd: c.systemd, Root: "/kaji"}
		path := d.Path(c.parent, "id")
		if path != c.want {
			t.Errorf("systemd %t, parent %q: %q, want %q", c.systemd, c.parent, path, c.want)
		}
		config := d.config(path, nil)
		if c.systemd && (config.Parent != c.slice || config.ScopePrefix != c.prefix || config.Name != c.scope) || !c.systemd && config.Path != c.want {
			t.Errorf("%q becomes %+v", path, config)
		}
	}
}

// TestRemoveFrozen removes a group whose processes somebody has paused.
func TestRemoveFrozen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("it needs root, as all tests of the runtime do")
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	path := "/kaji-cgroup-test/" + filepath.Base(t.TempDir()) + strconv.Itoa(cmd.Process.Pid)
	d := Driver{}
	if err := errors.Join(d.Join(path, cmd.Process.Pid), d.Freeze(path, true)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(d.Freeze(path, false), d.Remove(path), d.Remove("/kaji-cgroup-test")) })
	if err := d.Remove(path); err != nil {
		t.Fatal(err)
	}
	<-done
}
