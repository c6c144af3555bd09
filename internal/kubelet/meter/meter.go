// SPDX-License-Identifier: Apache-2.0

// Package meter counts what the node agent does, under upstream's names of
// metrics. A Meter belongs to one agent; nothing is global.
package meter

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Meter holds the metrics of one agent.
type Meter struct {
	registry, probes *prometheus.Registry

	// Probes counts runs of probes by kind and result.
	ProbeRuns *prometheus.CounterVec
	// PodStart is the time from the first sight of a pod to its running.
	PodStart prometheus.Histogram
	// PodWorker is the time of a step of a pod's worker, by operation.
	PodWorker *prometheus.HistogramVec
	// Evictions counts pods evicted, by the signal.
	Evictions *prometheus.CounterVec
	// Started counts containers started, by kind; StartErrors those that failed.
	Started     *prometheus.CounterVec
	StartErrors *prometheus.CounterVec
}

// Gauges are figures that are asked for when they are scraped.
type Gauges struct {
	// Pods and Containers are the numbers of those that run.
	Pods, Containers func() float64
	// DesiredPods is the number of pods that the node should run.
	DesiredPods func() float64
	NodeName    string
	Version     string
}

// New returns a Meter.
func New(g Gauges) *Meter {
	m := &Meter{registry: prometheus.NewRegistry(), probes: prometheus.NewRegistry()}
	m.ProbeRuns = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "prober_probe_total",
		Help: "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result."},
		[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"})
	m.PodStart = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubelet_pod_start_duration_seconds",
		Help:    "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
		Buckets: []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}})
	m.PodWorker = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_pod_worker_duration_seconds",
		Help: "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync"}, []string{"operation_type"})
	m.Evictions = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_evictions",
		Help: "[ALPHA] Cumulative number of pod evictions by eviction signal"}, []string{"eviction_signal"})
	m.Started = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_started_containers_total",
		Help: "[ALPHA] Cumulative number of containers started"}, []string{"container_type"})
	m.StartErrors = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_started_containers_errors_total",
		Help: "[ALPHA] Cumulative number of errors when starting containers"}, []string{"code", "container_type"})
	name := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_node_name", Help: "[ALPHA] The node's name. The count is always 1.",
		ConstLabels: prometheus.Labels{"node": g.NodeName}})
	name.Set(1)
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubernetes_build_info",
		Help:        "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
		ConstLabels: prometheus.Labels{"git_version": g.Version}})
	build.Set(1)
	pods := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_running_pods", Help: "[ALPHA] Number of pods that have a running pod sandbox"}, g.Pods)
	containers := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_running_containers", Help: "[ALPHA] Number of containers currently running",
		ConstLabels: prometheus.Labels{"container_state": "running"}}, g.Containers)
	desired := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_desired_pods", Help: "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
		ConstLabels: prometheus.Labels{"static": ""}}, g.DesiredPods)
	m.registry.MustRegister(m.PodStart, m.PodWorker, m.Evictions, m.Started, m.StartErrors, name, build, pods, containers, desired,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.probes.MustRegister(m.ProbeRuns)
	return m
}

// Handler serves /metrics.
func (m *Meter) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Probes serves /metrics/probes.
func (m *Meter) Probes() http.Handler {
	return promhttp.HandlerFor(m.probes, promhttp.HandlerOpts{})
}
