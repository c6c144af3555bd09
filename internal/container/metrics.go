// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/metric"
)

// ListMetricDescriptors describes what ListPodSandboxMetrics lists.
func (r *Runtime) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	return &runtimeapi.ListMetricDescriptorsResponse{Descriptors: metric.Descriptors()}, nil
}

// ListPodSandboxMetrics measures all running pods.
func (r *Runtime) ListPodSandboxMetrics(context.Context, *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	out := &runtimeapi.ListPodSandboxMetricsResponse{}
	disk := r.disk()
	for _, rec := range r.sandboxRecords() {
		if rec.Ready {
			out.PodMetrics = append(out.PodMetrics, r.podMetrics(rec, disk))
		}
	}
	return out, nil
}

func (r *Runtime) podMetrics(rec *sandboxRecord, disk metric.Disk) *runtimeapi.PodSandboxMetrics {
	pod := rec.Config.value.GetMetadata()
	out := &runtimeapi.PodSandboxMetrics{PodSandboxId: rec.ID}
	if !hostNetwork(rec.Config.value) {
		names := metric.Names{ID: rec.ID, Name: rec.ID, Namespace: pod.GetNamespace(), Pod: pod.GetName()}
		out.Metrics = metric.OfPod(names, interfaces(rec.PausePid.Pid))
	}
	for _, c := range r.containersOf(rec.ID) {
		rec := c.record.Load()
		if rec.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		stats, err := r.cgroups.Stats(rec.Cgroup)
		if err != nil {
			r.log.Debug("measuring a container", "container", rec.ID, "err", err) // it may just have ended
			continue
		}
		config := rec.Config.value
		m := &metric.Container{
			Names: metric.Names{Container: config.GetMetadata().GetName(), ID: rec.ID, Image: rec.ImageRef, Name: rec.ID,
				Namespace: pod.GetNamespace(), Pod: pod.GetName()},
			At: time.Now(), Started: rec.Started, Cgroup: stats, Limits: config.GetLinux().GetResources(),
			OOMKills: r.cgroups.OOMKills(rec.Cgroup), Processes: r.processes(rec), Disk: disk,
		}
		_, m.Disk.Used, _ = c.fsUsage.measure(filepath.Join(r.containerRoot(rec.ID), "upper"))
		out.ContainerMetrics = append(out.ContainerMetrics, metric.OfContainer(m))
	}
	return out
}

// disk is the file system that holds the containers' own layers.
func (r *Runtime) disk() metric.Disk {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(r.cfg.Root, &fs) != nil || unix.Stat(r.cfg.Root, &st) != nil {
		return metric.Disk{}
	}
	return metric.Disk{
		Device: strconv.Itoa(int(unix.Major(st.Dev))) + ":" + strconv.Itoa(int(unix.Minor(st.Dev))),
		Size:   fs.Blocks * uint64(fs.Bsize), Inodes: fs.Files, FreeInodes: fs.Ffree,
	}
}

// processes counts what the processes of a container hold.
func (r *Runtime) processes(rec *containerRecord) metric.Processes {
	pids, err := r.cgroups.Processes(rec.Cgroup)
	if err != nil {
		return metric.Processes{}
	}
	out := metric.Processes{Count: uint64(len(pids))}
	var limit unix.Rlimit
	if unix.Prlimit(rec.Pid.Pid, unix.RLIMIT_NOFILE, nil, &limit) == nil {
		out.MaxOpenFiles = limit.Cur
	}
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		threads, _ := names(filepath.Join(dir, "task")) // none of what has ended
		out.Threads += uint64(len(threads))
		fds, _ := names(filepath.Join(dir, "fd"))
		out.Files += uint64(len(fds))
		for _, fd := range fds {
			if target, err := os.Readlink(filepath.Join(dir, "fd", fd)); err == nil && strings.HasPrefix(target, "socket:") {
				out.Sockets++
			}
		}
	}
	return out
}

// interfaces reads the counters of the interfaces in a process's network
// namespace, its loopback left out.
func interfaces(pid int) (list []metric.Interface) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, counters, ok := strings.Cut(lines.Text(), ":")
		n := strings.Fields(counters)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(n) < 12 {
			continue
		}
		count := func(i int) uint64 {
			v, _ := strconv.ParseUint(n[i], 10, 64) // zero for what is no number
			return v
		}
		list = append(list, metric.Interface{
			Name: name, RxBytes: count(0), RxPackets: count(1), RxErrors: count(2), RxDropped: count(3),
			TxBytes: count(8), TxPackets: count(9), TxErrors: count(10), TxDropped: count(11),
		})
	}
	return list
}
