// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// Summary is the answer of /stats/summary.
func (r *Reader) Summary(ctx context.Context, cpuAndMemoryOnly bool) (*statsapi.Summary, error) {
	now, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	return &statsapi.Summary{Node: r.node(ctx, now, cpuAndMemoryOnly), Pods: r.pods(now, cpuAndMemoryOnly)}, nil
}

func (r *Reader) node(ctx context.Context, now reading, only bool) statsapi.NodeStats {
	at := metav1.NewTime(now.at)
	cpu := CPUNow()
	nano := r.speed("node", now.at.UnixNano(), cpu)
	m := MemoryNow()
	available := m.Available - min(m.Available, r.cfg.Machine.Reserved()) // the pages of others serve nobody else
	swapFree := m.Swap - min(m.Swap, m.SwapUsed)
	n := statsapi.NodeStats{NodeName: r.cfg.NodeName, StartTime: metav1.NewTime(booted(r.cfg.Started)),
		CPU: &statsapi.CPUStats{Time: at, UsageNanoCores: &nano, UsageCoreNanoSeconds: &cpu, PSI: pressure("cpu")},
		Memory: &statsapi.MemoryStats{Time: at, AvailableBytes: &available, UsageBytes: &m.Usage, WorkingSetBytes: &m.WorkingSet, RSSBytes: &m.RSS,
			PageFaults: &m.Faults, MajorPageFaults: &m.MajorFaults, PSI: pressure("memory")},
		Swap:             &statsapi.SwapStats{Time: at, SwapUsageBytes: &m.SwapUsed, SwapAvailableBytes: &swapFree},
		SystemContainers: r.system(at),
	}
	if only {
		return n
	}
	if psi := pressure("io"); psi != nil {
		n.IO = &statsapi.IOStats{Time: at, PSI: psi}
	}
	if space, err := SpaceOf(r.cfg.RootDir); err == nil {
		n.Fs = space.stats(now.at)
	}
	n.Runtime = r.runtime(ctx, now.at)
	n.Network = networkNow(at)
	most, running := Processes()
	n.Rlimit = &statsapi.RlimitStats{Time: at, MaxPID: &most, NumOfRunningProcesses: &running}
	return n
}

// system are the groups that no single pod has.
func (r *Reader) system(at metav1.Time) []statsapi.ContainerStats {
	if r.cfg.System == nil {
		return nil
	}
	var out []statsapi.ContainerStats
	all := r.cfg.System()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		u := all[name]
		nano := r.speed("system "+name, at.UnixNano(), u.CPU)
		c := statsapi.ContainerStats{Name: name, StartTime: metav1.NewTime(u.Made),
			CPU:    &statsapi.CPUStats{Time: at, UsageNanoCores: &nano, UsageCoreNanoSeconds: &u.CPU},
			Memory: &statsapi.MemoryStats{Time: at, UsageBytes: &u.Memory, WorkingSetBytes: &u.WorkingSet, RSSBytes: &u.RSS, PageFaults: &u.Faults, MajorPageFaults: &u.MajorFaults},
			Swap:   &statsapi.SwapStats{Time: at, SwapUsageBytes: &u.Swap}}
		if name == statsapi.SystemContainerKubelet {
			c.StartTime = metav1.NewTime(r.cfg.Started)
		}
		if u.Bound > 0 {
			available := u.Bound - min(u.Bound, u.WorkingSet)
			c.Memory.AvailableBytes = &available
		}
		if u.SwapBound > 0 {
			available := u.SwapBound - min(u.SwapBound, u.Swap)
			c.Swap.SwapAvailableBytes = &available
		}
		out = append(out, c)
	}
	return out
}

// booted is when the machine started, or else the agent.
func booted(agent time.Time) time.Time {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return agent
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
				return time.Unix(n, 0)
			}
		}
	}
	return agent
}

// pressure is how long processes of the node wait for a resource; nil where the
// kernel does not count that.
func pressure(of string) *statsapi.PSIStats {
	b, err := os.ReadFile("/proc/pressure/" + of)
	if err != nil {
		return nil
	}
	var p statsapi.PSIStats
	for line := range strings.Lines(string(b)) {
		kind, _, _ := strings.Cut(line, " ")
		to := map[string]*statsapi.PSIData{"some": &p.Some, "full": &p.Full}[kind]
		if to == nil {
			continue
		}
		var total uint64
		if _, err := fmt.Sscanf(line, kind+" avg10=%f avg60=%f avg300=%f total=%d", &to.Avg10, &to.Avg60, &to.Avg300, &total); err != nil {
			return nil
		}
		to.Total = total
	}
	return &p
}

// psi is what a runtime says of the same of a container.
func psi(p *runtimeapi.PsiStats) *statsapi.PSIStats {
	if p == nil {
		return nil
	}
	data := func(d *runtimeapi.PsiData) statsapi.PSIData {
		return statsapi.PSIData{Total: d.GetTotal(), Avg10: d.GetAvg10(), Avg60: d.GetAvg60(), Avg300: d.GetAvg300()}
	}
	return &statsapi.PSIStats{Some: data(p.GetSome()), Full: data(p.GetFull())}
}

// ImageSpace is what the file system of images has, and what images take.
func (r *Reader) ImageSpace(ctx context.Context) (space Space, used uint64, err error) {
	answer, err := r.cfg.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return space, 0, err
	}
	path := r.cfg.RootDir
	for _, f := range answer.ImageFilesystems {
		if mount := f.GetFsId().GetMountpoint(); mount != "" {
			path = mount
		}
		used += f.GetUsedBytes().GetValue()
	}
	space, err = SpaceOf(path)
	return space, used, err
}

// LayerSpace is what the file system has that containers write to, where that is
// another one than that of images.
func (r *Reader) LayerSpace(ctx context.Context) (space Space, split bool) {
	answer, err := r.cfg.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(answer.ImageFilesystems) == 0 || len(answer.ContainerFilesystems) == 0 {
		return space, false
	}
	images, layers := answer.ImageFilesystems[0].GetFsId().GetMountpoint(), answer.ContainerFilesystems[0].GetFsId().GetMountpoint()
	var one, other unix.Stat_t
	if layers == "" || unix.Stat(images, &one) != nil || unix.Stat(layers, &other) != nil || one.Dev == other.Dev {
		return space, false
	}
	space, err = SpaceOf(layers)
	return space, err == nil
}

// ImagesApart says whether images and what containers write lie on another file
// system than the node's own.
func (r *Reader) ImagesApart(ctx context.Context) bool {
	answer, err := r.cfg.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return false
	}
	var own, other unix.Stat_t
	if err := unix.Stat(r.cfg.RootDir, &own); err != nil {
		return false
	}
	for _, f := range answer.ImageFilesystems {
		if mount := f.GetFsId().GetMountpoint(); mount != "" && unix.Stat(mount, &other) == nil {
			return own.Dev != other.Dev
		}
	}
	return false
}

func (r *Reader) runtime(ctx context.Context, at time.Time) *statsapi.RuntimeStats {
	space, used, err := r.ImageSpace(ctx)
	if err != nil {
		r.cfg.Logger.Warn("the file system of images was not read", "err", err)
		return nil
	}
	images := space.stats(at)
	images.UsedBytes = &used
	if layers, split := r.LayerSpace(ctx); split {
		space = layers
	}
	containers := space.stats(at)
	return &statsapi.RuntimeStats{ImageFs: images, ContainerFs: containers}
}

// networkNow reads the node's interfaces; the first with a default route counts
// as the main one.
func networkNow(at metav1.Time) *statsapi.NetworkStats {
	f, err := os.Open("/proc/net/dev")
	if err != nil {
		return nil
	}
	defer f.Close()
	n := &statsapi.NetworkStats{Time: at}
	main := defaultInterface()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(fields) < 11 || name == "lo" {
			continue
		}
		number := func(i int) *uint64 {
			v, _ := strconv.ParseUint(fields[i], 10, 64)
			return &v
		}
		one := statsapi.InterfaceStats{Name: name, RxBytes: number(0), RxErrors: number(2), TxBytes: number(8), TxErrors: number(10)}
		n.Interfaces = append(n.Interfaces, one)
		if name == main {
			n.InterfaceStats = one
		}
	}
	return n
}

func defaultInterface() string {
	b, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "00000000" {
			return f[0]
		}
	}
	return ""
}

func (r *Reader) pods(now reading, only bool) []statsapi.PodStats {
	byUID := map[string]*statsapi.PodStats{}
	var order []string
	pod := func(labels map[string]string) *statsapi.PodStats {
		uid := labels[kubelettypes.KubernetesPodUIDLabel]
		if uid == "" {
			return nil
		}
		if byUID[uid] == nil {
			byUID[uid] = &statsapi.PodStats{Containers: []statsapi.ContainerStats{}, PodRef: statsapi.PodReference{
				Name: labels[kubelettypes.KubernetesPodNameLabel], Namespace: labels[kubelettypes.KubernetesPodNamespaceLabel], UID: uid}}
			order = append(order, uid)
		}
		return byUID[uid]
	}
	for _, c := range now.containers {
		p := pod(c.GetAttributes().GetLabels())
		if p == nil || c.GetCpu() == nil && c.GetMemory() == nil {
			continue
		}
		p.Containers = append(p.Containers, r.container(p, c, only))
	}
	for _, s := range now.sandboxes {
		if p := pod(s.GetAttributes().GetLabels()); p != nil {
			r.sandbox(p, s, only)
		}
	}
	known := map[string]*corev1.Pod{}
	for _, p := range r.cfg.Pods() {
		known[string(p.UID)] = p
	}
	out := make([]statsapi.PodStats, 0, len(order))
	for _, uid := range order {
		p := byUID[uid]
		if len(p.Containers) == 0 && p.CPU == nil {
			continue
		}
		r.sum(p, now.at)
		p.Swap = swapOf(p.Containers)
		if spec := known[uid]; spec != nil {
			if spec.Status.StartTime != nil {
				p.StartTime = *spec.Status.StartTime
			}
			for i := range p.Containers {
				if c := statusOf(spec, p.Containers[i].Name); c != nil && c.State.Running != nil {
					p.Containers[i].StartTime = c.State.Running.StartedAt
				}
			}
			if !only {
				r.volumes(p, spec, now.at)
			}
		}
		out = append(out, *p)
	}
	return out
}

// statusOf returns the status of a container of any kind, nil for none.
func statusOf(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

func (r *Reader) container(p *statsapi.PodStats, c *runtimeapi.ContainerStats, only bool) statsapi.ContainerStats {
	name := c.Attributes.Labels[kubelettypes.KubernetesContainerNameLabel]
	s := statsapi.ContainerStats{Name: name, CPU: r.cpu(c.Attributes.Id, c.Cpu), Memory: memory(c.Memory)}
	if w := c.Swap; w != nil {
		s.Swap = &statsapi.SwapStats{Time: when(w.Timestamp), SwapUsageBytes: valueOf(w.SwapUsageBytes), SwapAvailableBytes: valueOf(w.SwapAvailableBytes)}
	}
	if only {
		return s
	}
	s.IO = io(c.Io)
	if w := c.WritableLayer; w != nil {
		used, inodes := w.GetUsedBytes().GetValue(), w.GetInodesUsed().GetValue()
		s.Rootfs = &statsapi.FsStats{Time: when(w.Timestamp), UsedBytes: &used, InodesUsed: &inodes}
	}
	dir := filepath.Join(r.cfg.LogDir, p.PodRef.Namespace+"_"+p.PodRef.Name+"_"+p.PodRef.UID, name)
	used, inodes := r.DiskUse(dir)
	s.Logs = &statsapi.FsStats{Time: metav1.Now(), UsedBytes: &used, InodesUsed: &inodes}
	return s
}

func when(nanos int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanos)) }

func (r *Reader) cpu(key string, c *runtimeapi.CpuUsage) *statsapi.CPUStats {
	if c == nil {
		return nil
	}
	total := c.GetUsageCoreNanoSeconds().GetValue()
	nano := c.GetUsageNanoCores().GetValue()
	if c.UsageNanoCores == nil {
		nano = r.speed(key, c.Timestamp, total)
	}
	return &statsapi.CPUStats{Time: when(c.Timestamp), UsageNanoCores: &nano, UsageCoreNanoSeconds: &total, PSI: psi(c.Psi)}
}

func io(u *runtimeapi.IoUsage) *statsapi.IOStats {
	if u == nil || u.Psi == nil {
		return nil
	}
	return &statsapi.IOStats{Time: when(u.Timestamp), PSI: psi(u.Psi)}
}

func valueOf(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func memory(m *runtimeapi.MemoryUsage) *statsapi.MemoryStats {
	if m == nil {
		return nil
	}
	return &statsapi.MemoryStats{Time: when(m.Timestamp), WorkingSetBytes: valueOf(m.WorkingSetBytes), AvailableBytes: valueOf(m.AvailableBytes),
		UsageBytes: valueOf(m.UsageBytes), RSSBytes: valueOf(m.RssBytes), PageFaults: valueOf(m.PageFaults), MajorPageFaults: valueOf(m.MajorPageFaults), PSI: psi(m.Psi)}
}

func (r *Reader) sandbox(p *statsapi.PodStats, s *runtimeapi.PodSandboxStats, only bool) {
	l := s.GetLinux()
	if l == nil {
		return
	}
	p.CPU, p.Memory = r.cpu(s.Attributes.Id, l.Cpu), memory(l.Memory)
	if only {
		return
	}
	p.IO = io(l.Io)
	if l.Process != nil && l.Process.ProcessCount != nil {
		p.ProcessStats = &statsapi.ProcessStats{ProcessCount: &l.Process.ProcessCount.Value}
	}
	if n := l.Network; n != nil {
		one := func(i *runtimeapi.NetworkInterfaceUsage) statsapi.InterfaceStats {
			rx, rxErr, tx, txErr := i.GetRxBytes().GetValue(), i.GetRxErrors().GetValue(), i.GetTxBytes().GetValue(), i.GetTxErrors().GetValue()
			return statsapi.InterfaceStats{Name: i.Name, RxBytes: &rx, RxErrors: &rxErr, TxBytes: &tx, TxErrors: &txErr}
		}
		p.Network = &statsapi.NetworkStats{Time: when(n.Timestamp)}
		if n.DefaultInterface != nil {
			p.Network.InterfaceStats = one(n.DefaultInterface)
			p.Network.Interfaces = append(p.Network.Interfaces, one(n.DefaultInterface))
		}
		for _, i := range n.Interfaces {
			p.Network.Interfaces = append(p.Network.Interfaces, one(i))
		}
	}
}

// sum fills in a pod's figures from its containers where the sandbox has none.
func (r *Reader) sum(p *statsapi.PodStats, at time.Time) {
	slices.SortFunc(p.Containers, func(a, b statsapi.ContainerStats) int { return strings.Compare(a.Name, b.Name) })
	if p.CPU == nil {
		var total, nano uint64
		for _, c := range p.Containers {
			if c.CPU != nil {
				total += *c.CPU.UsageCoreNanoSeconds
				nano += *c.CPU.UsageNanoCores
			}
		}
		p.CPU = &statsapi.CPUStats{Time: metav1.NewTime(at), UsageNanoCores: &nano, UsageCoreNanoSeconds: &total}
	}
	if p.Memory == nil {
		m := &statsapi.MemoryStats{Time: metav1.NewTime(at)}
		add := func(to **uint64, v *uint64) {
			if v == nil {
				return
			}
			if *to == nil {
				*to = new(uint64)
			}
			**to += *v
		}
		for _, c := range p.Containers {
			if c.Memory != nil {
				add(&m.WorkingSetBytes, c.Memory.WorkingSetBytes)
				add(&m.UsageBytes, c.Memory.UsageBytes)
				add(&m.RSSBytes, c.Memory.RSSBytes)
				add(&m.PageFaults, c.Memory.PageFaults)
				add(&m.MajorPageFaults, c.Memory.MajorPageFaults)
			}
		}
		p.Memory = m
	}
}

// swapOf adds up what containers have swapped out; nil where that is not counted.
func swapOf(containers []statsapi.ContainerStats) *statsapi.SwapStats {
	var sum *statsapi.SwapStats
	for _, c := range containers {
		if c.Swap == nil {
			continue
		}
		if sum == nil {
			sum = &statsapi.SwapStats{Time: c.Swap.Time, SwapUsageBytes: new(uint64), SwapAvailableBytes: new(uint64)}
		}
		for _, part := range [][2]*uint64{{sum.SwapUsageBytes, c.Swap.SwapUsageBytes}, {sum.SwapAvailableBytes, c.Swap.SwapAvailableBytes}} {
			if part[1] != nil {
				*part[0] += *part[1]
			}
		}
	}
	return sum
}

// volumes adds a pod's volumes and its ephemeral storage.
func (r *Reader) volumes(p *statsapi.PodStats, pod *corev1.Pod, at time.Time) {
	used, inodes := r.PodDisk(p, pod, func(v *corev1.Volume, path string, bytes, count uint64) {
		s := statsapi.VolumeStats{Name: v.Name}
		if space, err := SpaceOf(path); err == nil {
			s.FsStats = *space.stats(at)
		}
		switch {
		case v.PersistentVolumeClaim != nil:
			s.PVCRef = &statsapi.PVCReference{Name: v.PersistentVolumeClaim.ClaimName, Namespace: pod.Namespace}
		case v.Ephemeral != nil:
			s.PVCRef = &statsapi.PVCReference{Name: pod.Name + "-" + v.Name, Namespace: pod.Namespace}
		default:
			s.UsedBytes, s.InodesUsed = &bytes, &count
		}
		p.VolumeStats = append(p.VolumeStats, s)
	})
	p.EphemeralStorage = &statsapi.FsStats{Time: metav1.NewTime(at), UsedBytes: &used, InodesUsed: &inodes}
	if space, err := SpaceOf(r.cfg.RootDir); err == nil {
		p.EphemeralStorage.AvailableBytes, p.EphemeralStorage.CapacityBytes = &space.Available, &space.Capacity
		p.EphemeralStorage.InodesFree, p.EphemeralStorage.Inodes = &space.InodesFree, &space.Inodes
	}
}

// PodDisk is what a pod takes of the node's ephemeral storage: writable
// layers, logs and scratch volumes. each is told of every volume.
func (r *Reader) PodDisk(p *statsapi.PodStats, pod *corev1.Pod, each func(v *corev1.Volume, path string, bytes, inodes uint64)) (bytes, inodes uint64) {
	for _, c := range p.Containers {
		for _, f := range []*statsapi.FsStats{c.Rootfs, c.Logs} {
			if f != nil {
				bytes += *f.UsedBytes
				inodes += *f.InodesUsed
			}
		}
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		path := r.cfg.Volume(pod, v.Name)
		if path == "" || v.HostPath != nil {
			continue
		}
		var used, count uint64
		if v.PersistentVolumeClaim == nil && v.Ephemeral == nil && v.CSI == nil {
			used, count = r.DiskUse(path)
		}
		onDisk := v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault || v.ConfigMap != nil
		if onDisk {
			bytes += used
			inodes += count
		}
		if each != nil {
			each(v, path, used, count)
		}
	}
	return bytes, inodes
}
