// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
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
	ofContainer := []string{"container", "namespace", "pod"}
	perPod := []string{"namespace", "pod"}
	nodeCPU := counter("node_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the node in core-seconds")
	nodeMemory := gauge("node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes")
	containerCPU := counter("container_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the container in core-seconds", ofContainer...)
	containerMemory := gauge("container_memory_working_set_bytes", "[STABLE] Current working set of the container in bytes", ofContainer...)
	containerStart := gauge("container_start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", ofContainer...)
	podCPU := counter("pod_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds", perPod...)
	podMemory := gauge("pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", perPod...)
	nodeSwap := gauge("node_swap_usage_bytes", "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems")
	containerSwap := gauge("container_swap_usage_bytes", "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems", ofContainer...)
	containerSwapLimit := gauge("container_swap_limit_bytes", "[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems", ofContainer...)
	podSwap := gauge("pod_swap_usage_bytes", "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems", perPod...)
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
		nodeSwap.at(summary.Node.Swap.Time.Time, out, float64(*summary.Node.Swap.SwapUsageBytes))
		for _, p := range summary.Pods {
			if p.Swap != nil {
				podSwap.at(p.Swap.Time.Time, out, float64(*p.Swap.SwapUsageBytes), p.PodRef.Namespace, p.PodRef.Name)
			}
			for _, c := range p.Containers {
				labels := []string{c.Name, p.PodRef.Namespace, p.PodRef.Name}
				if c.Swap != nil && c.Swap.SwapUsageBytes != nil {
					containerSwap.at(c.Swap.Time.Time, out, float64(*c.Swap.SwapUsageBytes), labels...)
					if c.Swap.SwapAvailableBytes != nil {
						containerSwapLimit.at(c.Swap.Time.Time, out, float64(*c.Swap.SwapAvailableBytes+*c.Swap.SwapUsageBytes), labels...)
					}
				}
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
