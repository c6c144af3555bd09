// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// told are the metrics that a family makes from a runtime's statistics, with
// more digits than the runtime's own metrics have.
var told = []string{"container_cpu_usage_seconds_total", "container_memory_usage_bytes", "container_memory_working_set_bytes", "container_memory_rss",
	"container_memory_failures_total", "container_spec_cpu_period", "container_spec_cpu_quota", "container_spec_cpu_shares",
	"container_spec_memory_limit_bytes", "container_fs_usage_bytes", "container_fs_inodes_total", "container_last_seen", "container_start_time_seconds",
	"container_network_receive_bytes_total", "container_network_receive_errors_total", "container_network_transmit_bytes_total",
	"container_network_transmit_errors_total", "container_scrape_error"}

func (r *Reader) group(pod *corev1.Pod, id string) string {
	if r.cfg.Group == nil || pod == nil {
		return id
	}
	return r.cfg.Group(pod, id)
}

// machine is the use of the whole node, under the name of the root group.
func (f *family) machine(out chan<- prometheus.Metric, n statsapi.NodeStats) {
	labels := []string{"", "/", "", "", "", ""}
	f.cpu.at(n.CPU.Time.Time, out, float64(*n.CPU.UsageCoreNanoSeconds)/1e9, append(labels[:len(labels):len(labels)], "total")...)
	f.usage.at(n.Memory.Time.Time, out, float64(*n.Memory.UsageBytes), labels...)
	f.workingSet.at(n.Memory.Time.Time, out, float64(*n.Memory.WorkingSetBytes), labels...)
	f.rss.at(n.Memory.Time.Time, out, float64(*n.Memory.RSSBytes), labels...)
}

// more passes on what the runtime measures besides: throttling, disks, packets.
func (r *Reader) more(out chan<- prometheus.Metric, pods map[string]*corev1.Pod) {
	if r.cfg.Metrics == nil {
		return
	}
	ctx := context.Background()
	list, err := r.cfg.Metrics.ListMetricDescriptors(ctx, &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		return // a runtime need not have any
	}
	listed, err := r.cfg.Metrics.ListPodSandboxMetrics(ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		r.cfg.Logger.Debug("the runtime's metrics were not read", "err", err)
		return
	}
	known := map[string]*described{}
	for _, d := range list.Descriptors {
		if !slices.Contains(told, d.Name) {
			known[d.Name] = &described{prometheus.NewDesc(d.Name, d.Help, d.LabelKeys, nil), len(d.LabelKeys),
				slices.Index(d.LabelKeys, "id"), slices.Index(d.LabelKeys, "namespace"), slices.Index(d.LabelKeys, "pod")}
		}
	}
	byName := map[[2]string]*corev1.Pod{}
	for _, p := range pods {
		byName[[2]string{p.Namespace, p.Name}] = p
	}
	for _, p := range listed.PodMetrics {
		for _, m := range p.Metrics {
			r.pass(out, known[m.Name], m, byName)
		}
		for _, c := range p.ContainerMetrics {
			for _, m := range c.Metrics {
				r.pass(out, known[m.Name], m, byName)
			}
		}
	}
}

// described is what is known of the metrics of one name: how many labels they
// have, and which of them say whose they are.
type described struct {
	desc               *prometheus.Desc
	labels             int
	id, namespace, pod int
}

func (r *Reader) pass(out chan<- prometheus.Metric, d *described, m *runtimeapi.Metric, pods map[[2]string]*corev1.Pod) {
	if d == nil || len(m.LabelValues) != d.labels {
		return // told already, or not as the runtime described it
	}
	values := slices.Clone(m.LabelValues)
	if d.id >= 0 && d.namespace >= 0 && d.pod >= 0 {
		values[d.id] = r.group(pods[[2]string{values[d.namespace], values[d.pod]}], values[d.id])
	}
	kind := prometheus.GaugeValue
	if m.MetricType == runtimeapi.MetricType_COUNTER {
		kind = prometheus.CounterValue
	}
	series{d.desc, kind}.at(time.Time{}, out, float64(m.GetValue().GetValue()), values...)
}
