// SPDX-License-Identifier: Apache-2.0

// Package meter counts what the node agent does, under upstream's names of
// metrics. A Meter belongs to one agent; nothing is global.
package meter

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/component-base/version"
)

// Meter holds the metrics of one agent.
type Meter struct {
	registry, probes *prometheus.Registry

	// ProbeRuns counts runs of probes by kind and result, ProbeTime is how long they took.
	ProbeRuns *prometheus.CounterVec
	ProbeTime *prometheus.HistogramVec
	// PodStart is the time from the first sight of a pod to its running.
	PodStart prometheus.Histogram
	// PodWorker is the time of a step of a pod's worker, by operation.
	PodWorker *prometheus.HistogramVec
	// Evictions counts pods evicted, by the signal.
	Evictions *prometheus.CounterVec
	// Started counts containers started, by kind; StartErrors those that failed.
	Started     *prometheus.CounterVec
	StartErrors *prometheus.CounterVec
	// Ended counts containers that ended, by kind, exit code and reason.
	Ended *prometheus.CounterVec
	// Sandboxes counts sandboxes started, SandboxErrors those that failed.
	Sandboxes, SandboxErrors prometheus.Counter
	// UserNamespaces counts pods started in user namespaces, UserNamespaceErrors
	// those that failed.
	UserNamespaces, UserNamespaceErrors prometheus.Counter
	// Operations of the runtime, those that failed, and their time in seconds.
	Operations, OperationErrors *prometheus.CounterVec
	OperationTime               *prometheus.HistogramVec
	// Relist is the time that a listing of the runtime takes, RelistInterval that
	// between listings.
	Relist, RelistInterval prometheus.Histogram
	// Groups is the time that changes of control groups take, by operation.
	Groups *prometheus.HistogramVec
	Parts
}

// Gauges are figures that are asked for when they are scraped.
type Gauges struct {
	// Pods and Containers are the numbers of those that run.
	Pods, Containers func() float64
	// DesiredPods and ActivePods are the numbers of pods that the node should run, and
	// that count when another is to be taken; MirrorPods those of static pods.
	DesiredPods, ActivePods func(static bool) float64
	MirrorPods              func() float64
	// Ephemeral is the number of ephemeral containers.
	Ephemeral func() float64
	NodeName  string
	Version   string
	// CgroupVersion is 1 or 2.
	CgroupVersion float64
}

// New returns a Meter.
func New(g Gauges) *Meter {
	m := &Meter{registry: prometheus.NewRegistry(), probes: prometheus.NewRegistry()}
	m.ProbeRuns = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "prober_probe_total",
		Help: "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result."},
		[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"})
	m.PodStart = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubelet_pod_start_duration_seconds",
		Help:    "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
		Buckets: startBuckets})
	m.PodWorker = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_pod_worker_duration_seconds",
		Help: "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync"}, []string{"operation_type"})
	m.Evictions = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_evictions",
		Help: "[ALPHA] Cumulative number of pod evictions by eviction signal"}, []string{"eviction_signal"})
	m.Started = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_started_containers_total",
		Help: "[ALPHA] Cumulative number of containers started"}, []string{"container_type"})
	m.StartErrors = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_started_containers_errors_total",
		Help: "[ALPHA] Cumulative number of errors when starting containers"}, []string{"code", "container_type"})
	m.Ended = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_terminated_containers_total",
		Help: "[ALPHA] Cumulative number of container terminations."}, []string{"container_type", "exit_code", "reason"})
	m.operations()
	name := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_node_name", Help: "[ALPHA] The node's name. The count is always 1.",
		ConstLabels: prometheus.Labels{"node": g.NodeName}})
	name.Set(1)
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubernetes_build_info",
		Help:        "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
		ConstLabels: buildLabels(g.Version)})
	build.Set(1)
	pods := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_running_pods", Help: "[ALPHA] Number of pods that have a running pod sandbox"}, g.Pods)
	containers := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_running_containers", Help: "[ALPHA] Number of containers currently running",
		ConstLabels: prometheus.Labels{"container_state": "running"}}, g.Containers)
	for label, static := range map[string]bool{"": false, "true": true} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_desired_pods", Help: "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
			ConstLabels: prometheus.Labels{"static": label}}, func() float64 { return g.DesiredPods(static) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_active_pods", Help: "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.",
				ConstLabels: prometheus.Labels{"static": label}}, func() float64 { return g.ActivePods(static) }))
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_mirror_pods", Help: "[ALPHA] The number of mirror pods the kubelet will try to create (one per admitted static pod)"}, g.MirrorPods),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_managed_ephemeral_containers", Help: "[ALPHA] Current number of ephemeral containers in pods managed by this kubelet."}, g.Ephemeral))
	m.parts()
	groups := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_cgroup_version", Help: "[ALPHA] cgroup version on the hosts."})
	groups.Set(g.CgroupVersion)
	m.registry.MustRegister(m.UserNamespaces, m.UserNamespaceErrors, m.Sandboxes, m.SandboxErrors, m.Operations, m.OperationErrors, m.OperationTime, m.Relist, m.RelistInterval, m.Groups, groups)
	m.registry.MustRegister(m.PodStart, m.PodWorker, m.Evictions, m.Started, m.StartErrors, m.Ended, name, build, pods, containers,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.probes.MustRegister(m.ProbeRuns, m.ProbeTime)
	return m
}

// operations makes the metrics of what the agent asks of others.
func (m *Meter) operations() {
	slow := prometheus.ExponentialBuckets(.005, 2.5, 14)
	m.ProbeTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "prober_probe_duration_seconds",
		Help: "[ALPHA] Duration in seconds for a probe response."}, []string{"probe_type", "container", "pod", "namespace"})
	m.Sandboxes = prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_started_pods_total", Help: "[ALPHA] Cumulative number of pods started"})
	m.SandboxErrors = prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_started_pods_errors_total", Help: "[ALPHA] Cumulative number of errors when starting pods"})
	m.UserNamespaces = prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_started_user_namespaced_pods_total",
		Help: "[ALPHA] Cumulative number of pods with user namespaces started. This metric will only be collected on Linux."})
	m.UserNamespaceErrors = prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_started_user_namespaced_pods_errors_total",
		Help: "[ALPHA] Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux."})
	m.Operations = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_runtime_operations_total",
		Help: "[ALPHA] Cumulative number of runtime operations by operation type."}, []string{"operation_type"})
	m.OperationErrors = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_runtime_operations_errors_total",
		Help: "[ALPHA] Cumulative number of runtime operation errors by operation type."}, []string{"operation_type"})
	m.OperationTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_runtime_operations_duration_seconds",
		Help: "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.", Buckets: slow}, []string{"operation_type"})
	m.Relist = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubelet_pleg_relist_duration_seconds", Help: "[ALPHA] Duration in seconds for relisting pods in PLEG."})
	m.RelistInterval = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubelet_pleg_relist_interval_seconds", Help: "[ALPHA] Interval in seconds between relisting in PLEG."})
	m.Groups = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_cgroup_manager_duration_seconds",
		Help: "[ALPHA] Duration in seconds for cgroup manager operations. Broken down by method."}, []string{"operation_type"})
}

// buildLabels are those of kubernetes_build_info.
func buildLabels(gitVersion string) prometheus.Labels {
	v := version.Get()
	return prometheus.Labels{"major": v.Major, "minor": v.Minor, "git_version": gitVersion, "git_commit": v.GitCommit,
		"git_tree_state": v.GitTreeState, "build_date": v.BuildDate, "go_version": v.GoVersion, "compiler": v.Compiler, "platform": v.Platform}
}

// Handler serves /metrics.
func (m *Meter) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Probes serves /metrics/probes.
func (m *Meter) Probes() http.Handler {
	return promhttp.HandlerFor(m.probes, promhttp.HandlerOpts{})
}
