// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"fmt"
	"slices"

	"github.com/opencontainers/cgroups"
)

type containerKind = kind[Container]

func containerKinds() []containerKind {
	return slices.Concat(cpuKinds(), memoryKinds(), diskKinds(), pressureKinds(), processKinds(), limitKinds())
}

func count(name, help string, value func(*Container) uint64) containerKind {
	return containerKind{"container_" + name, help, counter, nil, func(c *Container) []point { return one(value(c)) }}
}

func level(name, help string, value func(*Container) uint64) containerKind {
	k := count(name, help, value)
	k.of = gauge
	return k
}

func seconds(nanoseconds uint64) uint64 { return nanoseconds / 1e9 }

func cpuKinds() []containerKind {
	usage := containerKind{"container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", counter, []string{"cpu"},
		func(c *Container) []point {
			return []point{{seconds(c.Cgroup.CpuStats.CpuUsage.TotalUsage), []string{"total"}}}
		}}
	return []containerKind{
		usage,
		count("cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.",
			func(c *Container) uint64 { return seconds(c.Cgroup.CpuStats.CpuUsage.UsageInUsermode) }),
		count("cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.",
			func(c *Container) uint64 { return seconds(c.Cgroup.CpuStats.CpuUsage.UsageInKernelmode) }),
		count("cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.",
			func(c *Container) uint64 { return c.Cgroup.CpuStats.ThrottlingData.Periods }),
		count("cpu_cfs_throttled_periods_total", "Number of throttled period intervals.",
			func(c *Container) uint64 { return c.Cgroup.CpuStats.ThrottlingData.ThrottledPeriods }),
		count("cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.",
			func(c *Container) uint64 { return seconds(c.Cgroup.CpuStats.ThrottlingData.ThrottledTime) }),
	}
}

// detail is a line of memory.stat, by its name in either version of the cgroups.
func detail(c *Container, v1, v2 string) uint64 {
	if n, ok := c.Cgroup.MemoryStats.Stats[v1]; ok {
		return n
	}
	return c.Cgroup.MemoryStats.Stats[v2]
}

// WorkingSet is the memory that the kernel cannot drop at once.
func WorkingSet(s *cgroups.Stats) uint64 {
	inactive, ok := s.MemoryStats.Stats["total_inactive_file"]
	if !ok {
		inactive = s.MemoryStats.Stats["inactive_file"]
	}
	if used := s.MemoryStats.Usage.Usage; inactive < used {
		return used - inactive
	}
	return 0
}

// Swap is the swap space in use, which version 1 counts with the memory.
func Swap(s *cgroups.Stats) uint64 {
	m := s.MemoryStats
	if m.SwapOnlyUsage.Usage == 0 && m.SwapUsage.Usage > m.Usage.Usage {
		return m.SwapUsage.Usage - m.Usage.Usage
	}
	return m.SwapOnlyUsage.Usage
}

// SwapLimit is how much swap space may be used, zero where that is not counted.
func SwapLimit(s *cgroups.Stats) uint64 {
	m := s.MemoryStats
	if m.SwapOnlyUsage.Limit == 0 && m.SwapUsage.Limit > m.Usage.Limit {
		return m.SwapUsage.Limit - m.Usage.Limit
	}
	return m.SwapOnlyUsage.Limit
}

func memoryKinds() []containerKind {
	failures := containerKind{"container_memory_failures_total", "Cumulative count of memory allocation failures.", counter,
		[]string{"failure_type", "scope"}, func(c *Container) []point {
			return []point{
				{detail(c, "pgfault", "pgfault"), []string{"pgfault", "container"}},
				{detail(c, "pgmajfault", "pgmajfault"), []string{"pgmajfault", "container"}},
				{detail(c, "total_pgfault", "pgfault"), []string{"pgfault", "hierarchy"}},
				{detail(c, "total_pgmajfault", "pgmajfault"), []string{"pgmajfault", "hierarchy"}},
			}
		}}
	huge := func(name, help string, value func(cgroups.HugetlbStats) uint64) containerKind {
		return containerKind{"container_hugetlb_" + name, help, gauge, []string{"pagesize"}, func(c *Container) (list []point) {
			for size, s := range c.Cgroup.HugetlbStats {
				list = append(list, point{value(s), []string{size}})
			}
			return list
		}}
	}
	return []containerKind{
		level("memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed",
			func(c *Container) uint64 { return c.Cgroup.MemoryStats.Usage.Usage }),
		level("memory_max_usage_bytes", "Maximum memory usage recorded in bytes", func(c *Container) uint64 { return c.Cgroup.MemoryStats.Usage.MaxUsage }),
		level("memory_working_set_bytes", "Current working set in bytes.", func(c *Container) uint64 { return WorkingSet(c.Cgroup) }),
		level("memory_cache", "Number of bytes of page cache memory.", func(c *Container) uint64 { return c.Cgroup.MemoryStats.Cache }),
		level("memory_rss", "Size of RSS in bytes.", func(c *Container) uint64 { return detail(c, "total_rss", "anon") }),
		level("memory_swap", "Container swap usage in bytes.", func(c *Container) uint64 { return Swap(c.Cgroup) }),
		level("memory_mapped_file", "Size of memory mapped files in bytes.", func(c *Container) uint64 { return detail(c, "total_mapped_file", "file_mapped") }),
		level("memory_kernel_usage", "Size of kernel memory allocated in bytes.", func(c *Container) uint64 {
			return max(c.Cgroup.MemoryStats.KernelUsage.Usage, detail(c, "kernel", "kernel"))
		}),
		count("memory_failcnt", "Number of memory usage hits limits", func(c *Container) uint64 { return c.Cgroup.MemoryStats.Usage.Failcnt }),
		failures,
		count("oom_events_total", "Count of out of memory events observed for the container", func(c *Container) uint64 { return c.OOMKills }),
		huge("usage_bytes", "Current hugepage usage in bytes", func(h cgroups.HugetlbStats) uint64 { return h.Usage }),
		huge("max_usage_bytes", "Maximum hugepage usage recorded in bytes", func(h cgroups.HugetlbStats) uint64 { return h.MaxUsage }),
	}
}

// device names a block device as lists of devices do.
func device(e cgroups.BlkioStatEntry) string { return fmt.Sprintf("%d:%d", e.Major, e.Minor) }

// transfers counts one operation on every block device.
func transfers(name, help, op string, of func(*Container) []cgroups.BlkioStatEntry) containerKind {
	return containerKind{"container_fs_" + name, help, counter, []string{"device"}, func(c *Container) (list []point) {
		for _, e := range of(c) {
			if e.Op == op {
				list = append(list, point{e.Value, []string{device(e)}})
			}
		}
		return list
	}}
}

func diskKinds() []containerKind {
	bytes := func(c *Container) []cgroups.BlkioStatEntry { return c.Cgroup.BlkioStats.IoServiceBytesRecursive }
	operations := func(c *Container) []cgroups.BlkioStatEntry { return c.Cgroup.BlkioStats.IoServicedRecursive }
	space := func(name, help string, value func(Disk) uint64) containerKind {
		return containerKind{"container_fs_" + name, help, gauge, []string{"device"},
			func(c *Container) []point { return []point{{value(c.Disk), []string{c.Disk.Device}}} }}
	}
	usage := containerKind{"container_blkio_device_usage_total", "Blkio Device bytes usage", counter,
		[]string{"device", "major", "minor", "operation"}, func(c *Container) (list []point) {
			for _, e := range bytes(c) {
				list = append(list, point{e.Value, []string{device(e), fmt.Sprint(e.Major), fmt.Sprint(e.Minor), e.Op}})
			}
			return list
		}}
	return []containerKind{
		usage,
		transfers("reads_bytes_total", "Cumulative count of bytes read", "Read", bytes),
		transfers("reads_total", "Cumulative count of reads completed", "Read", operations),
		transfers("writes_bytes_total", "Cumulative count of bytes written", "Write", bytes),
		transfers("writes_total", "Cumulative count of writes completed", "Write", operations),
		space("usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", func(d Disk) uint64 { return d.Used }),
		space("limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", func(d Disk) uint64 { return d.Size }),
		space("inodes_total", "Number of Inodes", func(d Disk) uint64 { return d.Inodes }),
		space("inodes_free", "Number of available Inodes", func(d Disk) uint64 { return d.FreeInodes }),
	}
}

// pressureKinds are of kernels that account for stalls; others have no values.
func pressureKinds() (list []containerKind) {
	for _, r := range []struct {
		name, text string
		of         func(*cgroups.Stats) *cgroups.PSIStats
	}{
		{"cpu", "CPU", func(s *cgroups.Stats) *cgroups.PSIStats { return s.CpuStats.PSI }},
		{"memory", "memory", func(s *cgroups.Stats) *cgroups.PSIStats { return s.MemoryStats.PSI }},
		{"io", "IO", func(s *cgroups.Stats) *cgroups.PSIStats { return s.BlkioStats.PSI }},
	} {
		stall := func(kind, help string, data func(*cgroups.PSIStats) cgroups.PSIData) containerKind {
			return containerKind{"container_pressure_" + r.name + "_" + kind + "_seconds_total", help, counter, nil, func(c *Container) []point {
				p := r.of(c.Cgroup)
				if p == nil {
					return nil
				}
				return one(data(p).Total / 1e6)
			}}
		}
		list = append(list,
			stall("stalled", "Total time duration no tasks in the container could make progress due to "+r.text+" congestion.",
				func(p *cgroups.PSIStats) cgroups.PSIData { return p.Full }),
			stall("waiting", "Total time duration tasks in the container have waited due to "+r.text+" congestion.",
				func(p *cgroups.PSIStats) cgroups.PSIData { return p.Some }))
	}
	return list
}

func processKinds() []containerKind {
	soft := containerKind{"container_ulimits_soft", "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice", gauge,
		[]string{"ulimit"}, func(c *Container) []point { return []point{{c.Processes.MaxOpenFiles, []string{"max_open_files"}}} }}
	return []containerKind{
		level("processes", "Number of processes running inside the container.", func(c *Container) uint64 { return c.Processes.Count }),
		level("threads", "Number of threads running inside the container", func(c *Container) uint64 { return c.Processes.Threads }),
		level("threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero",
			func(c *Container) uint64 { return c.Cgroup.PidsStats.Limit }),
		level("file_descriptors", "Number of open file descriptors for the container.", func(c *Container) uint64 { return c.Processes.Files }),
		level("sockets", "Number of open sockets for the container.", func(c *Container) uint64 { return c.Processes.Sockets }),
		soft,
		level("last_seen", "Last time a container was seen by the exporter", func(c *Container) uint64 { return uint64(c.At.Unix()) }),
		level("start_time_seconds", "Start time of the container since unix epoch in seconds.", func(c *Container) uint64 { return uint64(c.Started.Unix()) }),
	}
}

func limitKinds() []containerKind {
	limit := func(name, help string, value func(*Container) int64) containerKind {
		return level("spec_"+name, help, func(c *Container) uint64 { return uint64(max(value(c), 0)) })
	}
	return []containerKind{
		limit("cpu_period", "CPU period of the container.", func(c *Container) int64 { return c.Limits.GetCpuPeriod() }),
		limit("cpu_quota", "CPU quota of the container.", func(c *Container) int64 { return c.Limits.GetCpuQuota() }),
		limit("cpu_shares", "CPU share of the container.", func(c *Container) int64 { return c.Limits.GetCpuShares() }),
		limit("memory_limit_bytes", "Memory limit for the container.", func(c *Container) int64 { return c.Limits.GetMemoryLimitInBytes() }),
		limit("memory_reservation_limit_bytes", "Memory reservation limit for the container.", func(*Container) int64 { return 0 }),
		limit("memory_swap_limit_bytes", "Memory swap limit for the container.", func(c *Container) int64 { return c.Limits.GetMemorySwapLimitInBytes() }),
	}
}
