// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/metric"
)

// usageLife is how long the measured size of a writable layer is good for:
// measuring walks all its files.
const usageLife = 30 * time.Second

// usageCache keeps the last measurement.
type usageCache struct {
	mu            sync.Mutex
	at            time.Time
	bytes, inodes uint64
}

func (u *usageCache) measure(dir string) (at time.Time, bytes, inodes uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) > usageLife {
		u.bytes, u.inodes = diskUsage(dir)
		u.at = time.Now()
	}
	return u.at, u.bytes, u.inodes
}

// diskUsage sums up what the files below a directory occupy, hard links once.
func diskUsage(dir string) (bytes, inodes uint64) {
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || seen[st.Ino] {
			return nil
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			seen[st.Ino] = true
		}
		bytes += uint64(st.Blocks) * 512
		inodes++
		return nil
	})
	return bytes, inodes
}

func value(v uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: v} }

func cpuUsage(s *cgroups.Stats, now int64) *runtimeapi.CpuUsage {
	return &runtimeapi.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: value(s.CpuStats.CpuUsage.TotalUsage), Psi: psi(s.CpuStats.PSI)}
}

func psi(p *cgroups.PSIStats) *runtimeapi.PsiStats {
	if p == nil {
		return nil
	}
	data := func(d cgroups.PSIData) *runtimeapi.PsiData {
		return &runtimeapi.PsiData{Total: d.Total, Avg10: d.Avg10, Avg60: d.Avg60, Avg300: d.Avg300}
	}
	return &runtimeapi.PsiStats{Some: data(p.Some), Full: data(p.Full)}
}

func memoryUsage(s *cgroups.Stats, now int64) *runtimeapi.MemoryUsage {
	m := s.MemoryStats
	detail := func(v1, v2 string) uint64 {
		if n, ok := m.Stats[v1]; ok {
			return n
		}
		return m.Stats[v2]
	}
	used, working := m.Usage.Usage, metric.WorkingSet(s)
	out := &runtimeapi.MemoryUsage{
		Timestamp: now, UsageBytes: value(used), WorkingSetBytes: value(working), RssBytes: value(detail("total_rss", "anon")),
		PageFaults: value(detail("total_pgfault", "pgfault")), MajorPageFaults: value(detail("total_pgmajfault", "pgmajfault")), Psi: psi(m.PSI),
	}
	if limit := m.Usage.Limit; limit > 0 && limit < 1<<62 && limit > working {
		out.AvailableBytes = value(limit - working)
	}
	return out
}

// ioUsage is what the unified hierarchy tells of waiting for disks, nil on others.
func ioUsage(s *cgroups.Stats, now int64) *runtimeapi.IoUsage {
	if s.BlkioStats.PSI == nil {
		return nil
	}
	return &runtimeapi.IoUsage{Timestamp: now, Psi: psi(s.BlkioStats.PSI)}
}

func swapUsage(s *cgroups.Stats, now int64) *runtimeapi.SwapUsage {
	used := metric.Swap(s)
	out := &runtimeapi.SwapUsage{Timestamp: now, SwapUsageBytes: value(used)}
	if limit := metric.SwapLimit(s); limit > 0 && limit < 1<<62 && limit >= used {
		out.SwapAvailableBytes = value(limit - used)
	}
	return out
}

func (r *Runtime) containerStats(c *container) (*runtimeapi.ContainerStats, error) {
	rec := c.record.Load()
	config := rec.Config.value
	out := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{Id: rec.ID, Metadata: config.GetMetadata(), Labels: config.GetLabels(), Annotations: config.GetAnnotations()},
	}
	at, bytes, inodes := c.fsUsage.measure(filepath.Join(r.containerRoot(rec.ID), "upper"))
	out.WritableLayer = &runtimeapi.FilesystemUsage{
		Timestamp: at.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: r.cfg.Root}, UsedBytes: value(bytes), InodesUsed: value(inodes),
	}
	if rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return out, nil
	}
	s, err := r.cgroups.Stats(rec.Cgroup)
	if err != nil {
		return nil, fmt.Errorf("failed to get container %q stats: %w", rec.ID, err)
	}
	now := time.Now().UnixNano()
	out.Cpu, out.Memory, out.Swap, out.Io = cpuUsage(s, now), memoryUsage(s, now), swapUsage(s, now), ioUsage(s, now)
	return out, nil
}

// ContainerStats measures one container.
func (r *Runtime) ContainerStats(_ context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	stats, err := r.containerStats(c)
	return &runtimeapi.ContainerStatsResponse{Stats: stats}, err
}

// ListContainerStats measures the running containers that fit the filter.
func (r *Runtime) ListContainerStats(_ context.Context, req *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	f := req.GetFilter()
	out := &runtimeapi.ListContainerStatsResponse{}
	for _, rec := range r.containerRecords() {
		if rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING || f.GetId() != "" && !strings.HasPrefix(rec.ID, f.GetId()) ||
			f.GetPodSandboxId() != "" && !strings.HasPrefix(rec.Sandbox, f.GetPodSandboxId()) || !matches(rec.Config.value.GetLabels(), f.GetLabelSelector()) {
			continue
		}
		c, err := r.findContainer(rec.ID)
		if err != nil {
			continue
		}
		stats, err := r.containerStats(c)
		if err != nil {
			r.log.Debug("measuring a container", "container", rec.ID, "err", err) // it may just have ended
			continue
		}
		out.Stats = append(out.Stats, stats)
	}
	return out, nil
}

func (r *Runtime) podStats(rec *sandboxRecord) *runtimeapi.PodSandboxStats {
	config := rec.Config.value
	linux := &runtimeapi.LinuxPodSandboxStats{}
	out := &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{Id: rec.ID, Metadata: config.GetMetadata(), Labels: config.GetLabels(), Annotations: config.GetAnnotations()},
		Linux:      linux,
	}
	now := time.Now().UnixNano()
	group := config.GetLinux().GetCgroupParent()
	if group == "" {
		group = rec.Cgroup
	} else if r.cgroups.Systemd {
		group = filepath.Base(group) // of a slice the name says where it is
	}
	if s, err := r.cgroups.Stats(group); err == nil {
		linux.Cpu, linux.Memory, linux.Io = cpuUsage(s, now), memoryUsage(s, now), ioUsage(s, now)
		linux.Process = &runtimeapi.ProcessUsage{Timestamp: now, ProcessCount: value(s.PidsStats.Current)}
	}
	if !hostNetwork(config) {
		linux.Network = networkUsage(rec.PausePid.Pid, now)
	}
	for _, c := range r.containersOf(rec.ID) {
		if c.record.Load().State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		if stats, err := r.containerStats(c); err == nil {
			linux.Containers = append(linux.Containers, stats)
		}
	}
	return out
}

// networkUsage gives the counters of a pod's interfaces.
func networkUsage(pid int, now int64) *runtimeapi.NetworkUsage {
	out := &runtimeapi.NetworkUsage{Timestamp: now}
	for _, i := range interfaces(pid) {
		usage := &runtimeapi.NetworkInterfaceUsage{
			Name: i.Name, RxBytes: value(i.RxBytes), RxErrors: value(i.RxErrors), TxBytes: value(i.TxBytes), TxErrors: value(i.TxErrors)}
		if i.Name == "eth0" || out.DefaultInterface == nil {
			usage, out.DefaultInterface = out.DefaultInterface, usage
		}
		if usage != nil {
			out.Interfaces = append(out.Interfaces, usage)
		}
	}
	return out
}

// PodSandboxStats measures one pod.
func (r *Runtime) PodSandboxStats(_ context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	s, err := r.findSandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: r.podStats(s.record.Load())}, nil
}

// ListPodSandboxStats measures the running pods that fit the filter.
func (r *Runtime) ListPodSandboxStats(_ context.Context, req *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	f := req.GetFilter()
	out := &runtimeapi.ListPodSandboxStatsResponse{}
	for _, rec := range r.sandboxRecords() {
		if rec.Ready && (f.GetId() == "" || strings.HasPrefix(rec.ID, f.GetId())) && matches(rec.Config.value.GetLabels(), f.GetLabelSelector()) {
			out.Stats = append(out.Stats, r.podStats(rec))
		}
	}
	return out, nil
}
