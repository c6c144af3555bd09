// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"net/http"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"kaji/internal/kubelet/cgroup"
)

// perContainer are the labels of a container's or a sandbox's metrics.
var perContainer = [...]string{"container", "id", "image", "name", "namespace", "pod"}

// quotaPeriod is the period of CPU quotas in microseconds.
const quotaPeriod = 100000

// family are the metrics of /metrics/cadvisor, under upstream's names.
type family struct {
	cores, memory, swap, version, failed          series
	seen, started                                 series
	cpu, usage, workingSet, rss, faults           series
	specPeriod, specQuota, specShares, specMemory series
	files, inodes                                 series
	rx, rxErrors, tx, txErrors                    series
}

func newFamily() *family {
	with := func(more ...string) []string { return append(append([]string(nil), perContainer[:]...), more...) }
	machine := []string{"boot_id", "machine_id", "system_uuid"}
	return &family{
		cores:  gauge("machine_cpu_cores", "Number of logical CPU cores.", machine...),
		memory: gauge("machine_memory_bytes", "Amount of memory installed on the machine.", machine...),
		swap:   gauge("machine_swap_bytes", "Amount of swap memory available on the machine.", machine...),
		version: gauge("cadvisor_version_info", "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.",
			"cadvisorRevision", "cadvisorVersion", "dockerVersion", "kernelVersion", "osVersion"),
		failed:     gauge("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise"),
		seen:       gauge("container_last_seen", "Last time a container was seen by the exporter", with()...),
		started:    gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds.", with()...),
		cpu:        counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", with("cpu")...),
		usage:      gauge("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", with()...),
		workingSet: gauge("container_memory_working_set_bytes", "Current working set in bytes.", with()...),
		rss:        gauge("container_memory_rss", "Size of RSS in bytes.", with()...),
		faults:     counter("container_memory_failures_total", "Cumulative count of memory allocation failures.", with("failure_type", "scope")...),
		specPeriod: gauge("container_spec_cpu_period", "CPU period of the container.", with()...),
		specQuota:  gauge("container_spec_cpu_quota", "CPU quota of the container.", with()...),
		specShares: gauge("container_spec_cpu_shares", "CPU share of the container.", with()...),
		specMemory: gauge("container_spec_memory_limit_bytes", "Memory limit for the container.", with()...),
		files:      gauge("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", with("device")...),
		inodes:     gauge("container_fs_inodes_total", "Number of Inodes", with("device")...),
		rx:         counter("container_network_receive_bytes_total", "Cumulative count of bytes received", with("interface")...),
		rxErrors:   counter("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", with("interface")...),
		tx:         counter("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", with("interface")...),
		txErrors:   counter("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", with("interface")...),
	}
}

// CAdvisor serves /metrics/cadvisor under the names that dashboards ask for.
func (r *Reader) CAdvisor() http.Handler {
	f := newFamily()
	return handler(func(out chan<- prometheus.Metric) {
		m := r.cfg.Machine
		f.cores.at(time.Time{}, out, float64(m.MilliCPU)/1000, m.BootID, m.MachineID, m.SystemUUID)
		f.memory.at(time.Time{}, out, float64(m.Memory), m.BootID, m.MachineID, m.SystemUUID)
		f.swap.at(time.Time{}, out, float64(m.Swap), m.BootID, m.MachineID, m.SystemUUID)
		f.version.at(time.Time{}, out, 1, "", "", "", m.Kernel, m.OSImage)
		now, err := r.read(context.Background())
		if err != nil {
			f.failed.at(time.Time{}, out, 1)
			return
		}
		f.failed.at(time.Time{}, out, 0)
		pods := map[string]*corev1.Pod{}
		for _, p := range r.cfg.Pods() {
			pods[string(p.UID)] = p
		}
		for _, c := range now.containers {
			pod := pods[c.GetAttributes().GetLabels()[kubelettypes.KubernetesPodUIDLabel]]
			f.container(out, now.at, c, pod, r.group(pod, c.GetAttributes().GetId()))
		}
		for _, s := range now.sandboxes {
			f.sandbox(out, s, r.group(pods[s.GetAttributes().GetMetadata().GetUid()], s.GetAttributes().GetId()))
		}
		f.machine(out, r.node(context.Background(), now, true))
		if r.cfg.System != nil {
			for _, u := range r.cfg.System() {
				f.group(out, now.at, u)
			}
		}
		r.more(out, pods)
	})
}

func (f *family) container(out chan<- prometheus.Metric, now time.Time, c *runtimeapi.ContainerStats, pod *corev1.Pod, group string) {
	l, id := c.GetAttributes().GetLabels(), c.GetAttributes().GetId()
	name, image := l[kubelettypes.KubernetesContainerNameLabel], ""
	var status *corev1.ContainerStatus
	if pod != nil {
		if status = statusOf(pod, name); status != nil {
			image = status.Image
		}
	}
	labels := []string{name, group, image, id, l[kubelettypes.KubernetesPodNamespaceLabel], l[kubelettypes.KubernetesPodNameLabel]}
	with := func(more ...string) []string { return append(labels[:len(labels):len(labels)], more...) }
	f.seen.at(time.Time{}, out, float64(now.Unix()), labels...)
	if status != nil && status.State.Running != nil {
		f.started.at(time.Time{}, out, float64(status.State.Running.StartedAt.Unix()), labels...)
	}
	if u := c.GetCpu(); u != nil {
		f.cpu.at(time.Unix(0, u.Timestamp), out, float64(u.GetUsageCoreNanoSeconds().GetValue())/1e9, with("total")...)
	}
	if u := c.GetMemory(); u != nil {
		at := time.Unix(0, u.Timestamp)
		f.usage.at(at, out, float64(u.GetUsageBytes().GetValue()), labels...)
		f.workingSet.at(at, out, float64(u.GetWorkingSetBytes().GetValue()), labels...)
		f.rss.at(at, out, float64(u.GetRssBytes().GetValue()), labels...)
		f.faults.at(at, out, float64(u.GetPageFaults().GetValue()), with("pgfault", "container")...)
		f.faults.at(at, out, float64(u.GetMajorPageFaults().GetValue()), with("pgmajfault", "container")...)
	}
	if w := c.GetWritableLayer(); w != nil {
		f.files.at(time.Unix(0, w.Timestamp), out, float64(w.GetUsedBytes().GetValue()), with("")...)
		f.inodes.at(time.Unix(0, w.Timestamp), out, float64(w.GetInodesUsed().GetValue()), with("")...)
	}
	f.spec(out, pod, name, labels)
}

// spec tells what a container may use.
func (f *family) spec(out chan<- prometheus.Metric, pod *corev1.Pod, name string, labels []string) {
	if pod == nil {
		return
	}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name != name {
				continue
			}
			may := list[i].Resources
			f.specPeriod.at(time.Time{}, out, quotaPeriod, labels...)
			if limit := may.Limits.Cpu(); !limit.IsZero() {
				f.specQuota.at(time.Time{}, out, float64(limit.MilliValue())*quotaPeriod/1000, labels...)
			}
			f.specShares.at(time.Time{}, out, float64(max(2, may.Requests.Cpu().MilliValue()*1024/1000)), labels...)
			f.specMemory.at(time.Time{}, out, float64(may.Limits.Memory().Value()), labels...)
			return
		}
	}
}

// group is the use of a control group that is no pod's.
func (f *family) group(out chan<- prometheus.Metric, at time.Time, u cgroup.Use) {
	if u.Group == "/" {
		return // the whole machine, which is told already
	}
	labels := []string{"", u.Group, "", "", "", ""}
	f.cpu.at(at, out, float64(u.CPU)/1e9, append(labels[:len(labels):len(labels)], "total")...)
	f.usage.at(at, out, float64(u.Memory), labels...)
	f.workingSet.at(at, out, float64(u.WorkingSet), labels...)
	f.rss.at(at, out, float64(u.RSS), labels...)
}

func (f *family) sandbox(out chan<- prometheus.Metric, s *runtimeapi.PodSandboxStats, group string) {
	l, id, linux := s.GetAttributes().GetLabels(), s.GetAttributes().GetId(), s.GetLinux()
	if linux == nil {
		return
	}
	labels := []string{"", group, "", id, l[kubelettypes.KubernetesPodNamespaceLabel], l[kubelettypes.KubernetesPodNameLabel]}
	with := func(more ...string) []string { return append(labels[:len(labels):len(labels)], more...) }
	// Processor time and memory are those of the pod's group, which has no name.
	whole := []string{"", path.Dir(group), "", "", labels[4], labels[5]}
	if u := linux.Cpu; u != nil {
		f.cpu.at(time.Unix(0, u.Timestamp), out, float64(u.GetUsageCoreNanoSeconds().GetValue())/1e9, append(whole[:len(whole):len(whole)], "total")...)
	}
	if u := linux.Memory; u != nil {
		at := time.Unix(0, u.Timestamp)
		f.workingSet.at(at, out, float64(u.GetWorkingSetBytes().GetValue()), whole...)
		f.usage.at(at, out, float64(u.GetUsageBytes().GetValue()), whole...)
		f.rss.at(at, out, float64(u.GetRssBytes().GetValue()), whole...)
	}
	if i := linux.GetNetwork().GetDefaultInterface(); i != nil {
		at, names := time.Unix(0, linux.Network.Timestamp), with(i.Name)
		f.rx.at(at, out, float64(i.GetRxBytes().GetValue()), names...)
		f.rxErrors.at(at, out, float64(i.GetRxErrors().GetValue()), names...)
		f.tx.at(at, out, float64(i.GetTxBytes().GetValue()), names...)
		f.txErrors.at(at, out, float64(i.GetTxErrors().GetValue()), names...)
	}
}
