// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// collector makes metrics at the moment they are asked for.
type collector func(out chan<- prometheus.Metric)

// Describe implements prometheus.Collector: what there is differs from time to
// time, so nothing is promised.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) { c(out) }

func handler(c collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// series is one metric with its labels' names.
type series struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) series {
	return series{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) series {
	return series{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

func (s series) at(t time.Time, out chan<- prometheus.Metric, value float64, labels ...string) {
	m, err := prometheus.NewConstMetric(s.desc, s.kind, value, labels...)
	if err != nil {
		out <- prometheus.NewInvalidMetric(s.desc, err)
		return
	}
	if !t.IsZero() {
		m = prometheus.NewMetricWithTimestamp(t, m)
	}
	out <- m
}

// Resource serves /metrics/resource, which the metrics server reads.
func (r *Reader) Resource() http.Handler {
	perContainer := []string{"container", "namespace", "pod"}
	perPod := []string{"namespace", "pod"}
	nodeCPU := counter("node_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the node in core-seconds")
	nodeMemory := gauge("node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes")
	containerCPU := counter("container_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the container in core-seconds", perContainer...)
	containerMemory := gauge("container_memory_working_set_bytes", "[STABLE] Current working set of the container in bytes", perContainer...)
	containerStart := gauge("container_start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", perContainer...)
	podCPU := counter("pod_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds", perPod...)
	podMemory := gauge("pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", perPod...)
	failed := gauge("resource_scrape_error", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise")
	seconds := func(c *statsapi.CPUStats) float64 { return float64(*c.UsageCoreNanoSeconds) / 1e9 }
	return handler(func(out chan<- prometheus.Metric) {
		summary, err := r.Summary(context.Background(), true)
		if err != nil {
			failed.at(time.Time{}, out, 1)
			return
		}
		failed.at(time.Time{}, out, 0)
		nodeCPU.at(summary.Node.CPU.Time.Time, out, seconds(summary.Node.CPU))
		nodeMemory.at(summary.Node.Memory.Time.Time, out, float64(*summary.Node.Memory.WorkingSetBytes))
		for _, p := range summary.Pods {
			for _, c := range p.Containers {
				labels := []string{c.Name, p.PodRef.Namespace, p.PodRef.Name}
				if c.CPU != nil {
					containerCPU.at(c.CPU.Time.Time, out, seconds(c.CPU), labels...)
				}
				if c.Memory != nil && c.Memory.WorkingSetBytes != nil {
					containerMemory.at(c.Memory.Time.Time, out, float64(*c.Memory.WorkingSetBytes), labels...)
				}
				if !c.StartTime.IsZero() {
					containerStart.at(time.Time{}, out, float64(c.StartTime.UnixNano())/1e9, labels...)
				}
			}
			podCPU.at(p.CPU.Time.Time, out, seconds(p.CPU), p.PodRef.Namespace, p.PodRef.Name)
			if p.Memory.WorkingSetBytes != nil {
				podMemory.at(p.Memory.Time.Time, out, float64(*p.Memory.WorkingSetBytes), p.PodRef.Namespace, p.PodRef.Name)
			}
		}
	})
}

// CAdvisor serves /metrics/cadvisor under the names that dashboards ask for.
func (r *Reader) CAdvisor() http.Handler {
	perContainer := []string{"container", "id", "image", "name", "namespace", "pod"}
	cpu := counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", append(perContainer, "cpu")...)
	usage := gauge("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", perContainer...)
	workingSet := gauge("container_memory_working_set_bytes", "Current working set in bytes.", perContainer...)
	rss := gauge("container_memory_rss", "Size of RSS in bytes.", perContainer...)
	limit := gauge("container_spec_memory_limit_bytes", "Memory limit for the container.", perContainer...)
	faults := counter("container_memory_failures_total", "Cumulative count of memory allocation failures.", append(perContainer, "failure_type", "scope")...)
	files := gauge("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", append(perContainer, "device")...)
	inodes := gauge("container_fs_inodes_total", "Number of Inodes", append(perContainer, "device")...)
	seen := gauge("container_last_seen", "Last time a container was seen by the exporter", perContainer...)
	perInterface := append(perContainer, "interface")
	rx := counter("container_network_receive_bytes_total", "Cumulative count of bytes received", perInterface...)
	rxErrors := counter("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", perInterface...)
	tx := counter("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", perInterface...)
	txErrors := counter("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", perInterface...)
	machine := []string{"boot_id", "machine_id", "system_uuid"}
	cores := gauge("machine_cpu_cores", "Number of logical CPU cores.", machine...)
	memory := gauge("machine_memory_bytes", "Amount of memory installed on the machine.", machine...)
	version := gauge("cadvisor_version_info", "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.",
		"cadvisorRevision", "cadvisorVersion", "dockerVersion", "kernelVersion", "osVersion")
	failed := gauge("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise")
	return handler(func(out chan<- prometheus.Metric) {
		m := r.cfg.Machine
		cores.at(time.Time{}, out, float64(m.MilliCPU)/1000, m.BootID, m.MachineID, m.SystemUUID)
		memory.at(time.Time{}, out, float64(m.Memory), m.BootID, m.MachineID, m.SystemUUID)
		version.at(time.Time{}, out, 1, "", "", "", m.Kernel, m.OSImage)
		now, err := r.read(context.Background())
		if err != nil {
			failed.at(time.Time{}, out, 1)
			return
		}
		failed.at(time.Time{}, out, 0)
		for _, c := range now.containers {
			l := c.GetAttributes().GetLabels()
			labels := []string{l[kubelettypes.KubernetesContainerNameLabel], c.GetAttributes().GetId(), "", c.GetAttributes().GetId(),
				l[kubelettypes.KubernetesPodNamespaceLabel], l[kubelettypes.KubernetesPodNameLabel]}
			with := func(more ...string) []string { return append(labels[:len(labels):len(labels)], more...) }
			seen.at(time.Time{}, out, float64(now.at.Unix()), labels...)
			if u := c.GetCpu(); u != nil {
				cpu.at(time.Unix(0, u.Timestamp), out, float64(u.GetUsageCoreNanoSeconds().GetValue())/1e9, with("total")...)
			}
			if u := c.GetMemory(); u != nil {
				at := time.Unix(0, u.Timestamp)
				usage.at(at, out, float64(u.GetUsageBytes().GetValue()), labels...)
				workingSet.at(at, out, float64(u.GetWorkingSetBytes().GetValue()), labels...)
				rss.at(at, out, float64(u.GetRssBytes().GetValue()), labels...)
				faults.at(at, out, float64(u.GetPageFaults().GetValue()), with("pgfault", "container")...)
				faults.at(at, out, float64(u.GetMajorPageFaults().GetValue()), with("pgmajfault", "container")...)
				if u.AvailableBytes != nil && u.WorkingSetBytes != nil && u.AvailableBytes.Value < 1<<60 {
					limit.at(at, out, float64(u.AvailableBytes.Value+u.WorkingSetBytes.Value), labels...)
				}
			}
			if w := c.GetWritableLayer(); w != nil {
				files.at(time.Unix(0, w.Timestamp), out, float64(w.GetUsedBytes().GetValue()), with("")...)
				inodes.at(time.Unix(0, w.Timestamp), out, float64(w.GetInodesUsed().GetValue()), with("")...)
			}
		}
		for _, s := range now.sandboxes {
			l := s.GetAttributes().GetLabels()
			labels := []string{"", s.GetAttributes().GetId(), "", s.GetAttributes().GetId(), l[kubelettypes.KubernetesPodNamespaceLabel], l[kubelettypes.KubernetesPodNameLabel]}
			if linux := s.GetLinux(); linux != nil {
				if u := linux.Cpu; u != nil {
					cpu.at(time.Unix(0, u.Timestamp), out, float64(u.GetUsageCoreNanoSeconds().GetValue())/1e9, append(labels[:6:6], "total")...)
				}
				if u := linux.Memory; u != nil {
					workingSet.at(time.Unix(0, u.Timestamp), out, float64(u.GetWorkingSetBytes().GetValue()), labels...)
				}
				if i := linux.GetNetwork().GetDefaultInterface(); i != nil {
					at, names := time.Unix(0, linux.Network.Timestamp), append(labels[:6:6], i.Name)
					rx.at(at, out, float64(i.GetRxBytes().GetValue()), names...)
					rxErrors.at(at, out, float64(i.GetRxErrors().GetValue()), names...)
					tx.at(at, out, float64(i.GetTxBytes().GetValue()), names...)
					txErrors.at(at, out, float64(i.GetTxErrors().GetValue()), names...)
				}
			}
		}
	})
}
