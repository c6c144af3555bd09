// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// startBuckets are those of the time that pods take to start, in seconds.
var startBuckets = []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}

// Parts are the metrics of single parts of the agent. The names of upstream's
// metrics say what they are.
type Parts struct {
	ContainersPerPod, WorkerStart, StatusSync, TopologyTime prometheus.Histogram
	// Start is the time from a pod's creation, StartSLI that without pulls and init
	// containers.
	Start, StartSLI                                                    prometheus.Histogram
	FirstStart, LastList, ShutdownBegan, ShutdownEnded                 prometheus.Gauge
	EventStreams, EventStreamErrors, Orphans, TopologyRequests         prometheus.Counter
	TopologyErrors, ImageVolumes, ImageVolumesMounted, ImageVolumeErrs prometheus.Counter
	Rejections, Preemptions, ImagesCollected, ImageRequests            *prometheus.CounterVec
	Plugins, PodResources, SandboxFailures                             *prometheus.CounterVec
	PodEventsDropped, Fallbacks                                        prometheus.Counter
	// OrphanVolumes is the number of pods that were gone and whose volumes were cleaned
	// when it was last looked for them, OrphanVolumeErrors that of failures.
	OrphanVolumes, OrphanVolumeErrors prometheus.Gauge
	// Resizes counts what pods asked for anew; Accepted what had to wait before.
	Resizes, Accepted, Restarted *prometheus.CounterVec
	// The steps of a node's start: before the agent, before its registration, during and
	// after it, and all of them.
	StartupBefore, StartupAgent, StartupRegistration, StartupAfter, Startup prometheus.Gauge
	DeferredTime                                                            *prometheus.HistogramVec
	EvictionAge, CSICalls, ClaimCalls                                       *prometheus.HistogramVec
	cpuPins, cpuErrors, memPins, memErrs                                    prometheus.Counter
	aligned, misaligned                                                     *prometheus.CounterVec
	// PodRequests are by the method, all of them under "".
	PodRequests map[string]*prometheus.CounterVec
	// PodResourceRequests and PodResourceErrors are by the method.
	PodResourceRequests, PodResourceErrors                    map[string]*prometheus.CounterVec
	SandboxTime, ImagePull, DeviceTime, Storage, StorageTotal *prometheus.HistogramVec
	Claims                                                    *prometheus.HistogramVec
	Requests                                                  *prometheus.CounterVec
	RequestTime                                               *prometheus.HistogramVec
	Inflight                                                  *prometheus.GaugeVec
}

func (m *Meter) parts() {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_" + name, Help: "[ALPHA] " + help})
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_" + name, Help: "[ALPHA] " + help})
		m.registry.MustRegister(g)
		return g
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "[ALPHA] " + help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	times := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: "[ALPHA] " + help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	one := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubelet_" + name, Help: "[ALPHA] " + help, Buckets: buckets})
		m.registry.MustRegister(h)
		return h
	}
	m.ContainersPerPod = one("containers_per_pod_count", "The number of containers per pod.", prometheus.ExponentialBuckets(1, 2, 5))
	m.WorkerStart = one("pod_worker_start_duration_seconds", "Duration in seconds from kubelet seeing a pod to starting a worker.", prometheus.DefBuckets)
	m.StatusSync = one("pod_status_sync_duration_seconds", "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod, even if multiple intevening changes to pod status occur.",
		[]float64{0.010, 0.050, 0.100, 0.500, 1, 5, 10, 20, 30, 45, 60})
	m.Start = one("pod_start_total_duration_seconds", "Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", startBuckets)
	m.StartSLI = one("pod_start_sli_duration_seconds", "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", startBuckets)
	m.FirstStart = gauge("first_network_pod_start_sli_duration_seconds", "Duration in seconds to start the first network pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch")
	m.LastList = gauge("pleg_last_seen_seconds", "Timestamp in seconds when PLEG was last seen active.")
	counter("pleg_discard_events", "The number of discard events in PLEG.") // none ever is
	m.EventStreams = counter("evented_pleg_connection_success_count", "The number of times a streaming client was obtained to receive CRI Events.")
	m.EventStreamErrors = counter("evented_pleg_connection_error_count", "The number of errors encountered during the establishment of streaming connection with the CRI runtime.")
	m.Orphans = counter("orphaned_runtime_pods_total", "Number of pods that have been detected in the container runtime without being already known to the pod worker. This typically indicates the kubelet was restarted while a pod was force deleted in the API or in the local configuration, which is unusual.")
	m.ShutdownBegan = gauge("graceful_shutdown_start_time_seconds", "Last graceful shutdown start time since unix epoch in seconds")
	m.ShutdownEnded = gauge("graceful_shutdown_end_time_seconds", "Last graceful shutdown end time since unix epoch in seconds")
	m.TopologyRequests = counter("topology_manager_admission_requests_total", "The number of admission requests where resources have to be aligned.")
	m.TopologyErrors = counter("topology_manager_admission_errors_total", "The number of admission request failures where resources could not be aligned.")
	m.TopologyTime = one("topology_manager_admission_duration_ms", "Duration in milliseconds to serve a pod admission request.", prometheus.ExponentialBuckets(.05, 2, 15))
	m.Fallbacks = counter("lifecycle_handler_http_fallbacks_total", "The number of times lifecycle handlers successfully fell back to http from https.")
	m.OrphanVolumes = gauge("orphan_pod_cleaned_volumes", "The total number of orphaned Pods whose volumes were cleaned in the last periodic sweep.")
	m.OrphanVolumeErrors = gauge("orphan_pod_cleaned_volumes_errors", "The number of orphaned Pods whose volumes failed to be cleaned in the last periodic sweep.")
	m.cpuPins = counter("cpu_manager_pinning_requests_total", "The number of cpu core allocations which required pinning.")
	m.cpuErrors = counter("cpu_manager_pinning_errors_total", "The number of cpu core allocations which required pinning failed.")
	m.memPins = counter("memory_manager_pinning_requests_total", "The number of memory pages allocations which required pinning.")
	m.memErrs = counter("memory_manager_pinning_errors_total", "The number of memory pages allocations which required pinning that failed.")
	m.aligned = counters("kubelet_container_aligned_compute_resources_count", "Cumulative number of aligned compute resources allocated to containers by alignment type.", "scope", "boundary")
	m.misaligned = counters("kubelet_container_aligned_compute_resources_failure_count", "Cumulative number of failures to allocate aligned compute resources to containers by alignment type.", "scope", "boundary")
	m.Resizes = counters("kubelet_container_requested_resizes_total", "Number of requested resizes, counted at the container level. Different resources on the same container are counted separately. The 'requirement' label refers to 'memory' or 'limits'; the 'operation' label can be one of 'add', 'remove', 'increase' or 'decrease'.", "resource", "requirement", "operation")
	m.Restarted = counters("kubelet_restarted_pods_total", "Number of pods that have been restarted because they were deleted and recreated with the same UID while the kubelet was watching them (common for static pods, extremely uncommon for API pods)", "static")
	m.Accepted = counters("kubelet_pod_deferred_accepted_resizes_total", "Cumulative number of resizes that were accepted after being deferred.", "retry_trigger")
	m.DeferredTime = times("kubelet_pod_deferred_resize_duration_seconds", "Duration in seconds that a pod resize remains deferred before completion. Label 'priority_bucket' classifies the pod priority.", []float64{5, 10, 15, 20, 30, 45, 60, 90, 120, 150, 180, 300, 600, 1200, 1800, 3600}, "resolution", "priority_bucket")
	m.StartupBefore = gauge("node_startup_pre_kubelet_duration_seconds", "Duration in seconds of node startup before kubelet starts.")
	m.StartupAgent = gauge("node_startup_pre_registration_duration_seconds", "Duration in seconds of node startup before registration.")
	m.StartupRegistration = gauge("node_startup_registration_duration_seconds", "Duration in seconds of node startup during registration.")
	m.StartupAfter = gauge("node_startup_post_registration_duration_seconds", "Duration in seconds of node startup after registration.")
	m.Startup = gauge("node_startup_duration_seconds", "Duration in seconds of node startup in total.")
	m.EvictionAge = times("kubelet_eviction_stats_age_seconds", "Time between when stats are collected, and when pod is evicted based on those stats by eviction signal", prometheus.DefBuckets, "eviction_signal")
	m.CSICalls = times("csi_operations_seconds", "Container Storage Interface operation duration with gRPC error code status total", []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}, "driver_name", "method_name", "grpc_status_code", "migrated")
	m.ClaimCalls = times("dra_grpc_operations_duration_seconds", "Duration in seconds of the DRA gRPC operations", prometheus.ExponentialBucketsRange(.1, 40, 15), "driver_name", "method_name", "grpc_status_code")
	m.ImageVolumes = counter("image_volume_requested_total", "Number of requested image volumes.")
	m.ImageVolumesMounted = counter("image_volume_mounted_succeed_total", "Number of successful image volume mounts.")
	m.ImageVolumeErrs = counter("image_volume_mounted_errors_total", "Number of failed image volume mounts.")
	m.Rejections = counters("kubelet_admission_rejections_total", "Cumulative number pod admission rejections by the Kubelet.", "reason")
	m.Preemptions = counters("kubelet_preemptions", "Cumulative number of pod preemptions by preemption resource", "preemption_signal")
	m.ImagesCollected = counters("kubelet_image_garbage_collected_total", "Total number of images garbage collected by the kubelet, whether through disk usage or image age.", "reason")
	m.ImageRequests = counters("kubelet_image_manager_ensure_image_requests_total", "Number of ensure-image requests processed by the kubelet.", "pull_policy", "present_locally", "pull_required")
	m.PodResources = counters("kubelet_pod_resources_endpoint_requests_total", "Cumulative number of requests to the PodResource endpoint. Broken down by server api version.", "server_api_version")
	m.PodResourceRequests, m.PodResourceErrors = map[string]*prometheus.CounterVec{}, map[string]*prometheus.CounterVec{}
	for method, name := range map[string]string{"List": "list", "GetAllocatableResources": "get_allocatable", "Get": "get"} {
		m.PodResourceRequests[method] = counters("kubelet_pod_resources_endpoint_requests_"+name, "Number of requests to the PodResource "+method+" endpoint. Broken down by server api version.", "server_api_version")
		m.PodResourceErrors[method] = counters("kubelet_pod_resources_endpoint_errors_"+name, "Number of requests to the PodResource "+method+" endpoint which returned error. Broken down by server api version.", "server_api_version")
	}
	m.PodEventsDropped = counter("pod_watch_events_dropped_total", "Cumulative number of pod watch events dropped.")
	m.PodRequests = map[string]*prometheus.CounterVec{}
	for method, name := range map[string]string{"": "", "ListPods": "_list", "GetPod": "_get", "WatchPods": "_watch"} {
		m.PodRequests[method] = counters("kubelet_pod_requests"+name+"_total", "Number of requests to the PodsAPI endpoint. Broken down by server api version and status code.", "server_api_version", "status_code")
	}
	m.Plugins = counters("kubelet_device_plugin_registration_total", "Cumulative number of device plugin registrations. Broken down by resource name.", "resource_name")
	m.DeviceTime = times("kubelet_device_plugin_alloc_duration_seconds", "Duration in seconds to serve a device plugin Allocation request. Broken down by resource name.", prometheus.DefBuckets, "resource_name")
	m.SandboxTime = times("kubelet_run_podsandbox_duration_seconds", "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.", prometheus.DefBuckets, "runtime_handler")
	m.SandboxFailures = counters("kubelet_run_podsandbox_errors_total", "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.", "runtime_handler")
	m.ImagePull = times("kubelet_image_pull_duration_seconds", "Duration in seconds to pull an image.", []float64{1, 5, 10, 20, 30, 60, 180, 300, 600, 900, 1200, 1800, 2700, 3600}, "image_size_in_bytes")
	m.Storage = times("storage_operation_duration_seconds", "Storage operation duration", []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}, "volume_plugin", "operation_name", "status", "migrated")
	m.StorageTotal = times("volume_operation_total_seconds", "Storage operation end to end duration in seconds", []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}, "plugin_name", "operation_name")
	m.Claims = times("dra_operations_duration_seconds", "Latency histogram in seconds for the duration of handling all ResourceClaims referenced by a pod when the pod starts or stops. Identified by the name of the operation (PrepareResources or UnprepareResources) and separated by the success of the operation. The number of failed operations is provided through the histogram's overall count.",
		[]float64{.1, .2, .3, .4, .5, 1, 2, 3, 4, 5, 10, 20, 40}, "operation_name", "is_error")
	m.Requests = counters("kubelet_http_requests_total", "Number of the http requests received since the server started", "method", "path", "server_type", "long_running")
	m.RequestTime = times("kubelet_http_requests_duration_seconds", "Duration in seconds to serve http requests", prometheus.DefBuckets, "method", "path", "server_type", "long_running")
	m.Inflight = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_http_inflight_requests", Help: "[ALPHA] Number of the inflight http requests"}, []string{"method", "path", "server_type", "long_running"})
	provider := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_metrics_provider", Help: "[ALPHA] The type of the pod and container metrics provider.", ConstLabels: prometheus.Labels{"provider": "cri"}})
	provider.Set(1)
	m.registry.MustRegister(m.Inflight, provider)
}

// Register adds metrics of others to those that are served.
func (m *Meter) Register(c ...prometheus.Collector) { m.registry.MustRegister(c...) }

// Registerer is for those that register by themselves.
func (m *Meter) Registerer() prometheus.Registerer { return m.registry }

// Pulled counts the pull of an image.
func (m *Meter) Pulled(took time.Duration, bytes uint64) {
	m.ImagePull.WithLabelValues(sizeLabel(bytes)).Observe(took.Seconds())
}

func sizeLabel(bytes uint64) string {
	const mega, giga = 1 << 20, 1 << 30
	if bytes == 0 {
		return "N/A"
	}
	label := "0-10MB"
	for _, bucket := range []struct {
		above uint64
		label string
	}{{10 * mega, "10MB-100MB"}, {100 * mega, "100MB-500MB"}, {500 * mega, "500MB-1GB"}, {giga, "1GB-5GB"}, {5 * giga, "5GB-10GB"},
		{10 * giga, "10GB-20GB"}, {20 * giga, "20GB-30GB"}, {30 * giga, "30GB-40GB"}, {40 * giga, "40GB-60GB"}, {60 * giga, "60GB-100GB"}, {100 * giga, "GT100GB"}} {
		if bytes > bucket.above {
			label = bucket.label
		}
	}
	return label
}

// known are the paths that requests are counted by; others are "other".
var known = []string{"metrics/cadvisor", "metrics/probes", "metrics/resource", "metrics", "healthz", "pods", "stats", "spec", "attach", "containerLogs", "exec", "portForward", "run",
	"runningpods", "logs", "debug", "configz", "checkpoint", "flagz", "statusz"}

// PinnedCPUs counts a container that is to have processors for itself.
func (m *Meter) PinnedCPUs(err error) { pinned(m.cpuPins, m.cpuErrors, err) }

// PinnedMemory counts a container that is to have memory of single NUMA nodes.
func (m *Meter) PinnedMemory(err error) { pinned(m.memPins, m.memErrs, err) }

func pinned(all, failed prometheus.Counter, err error) {
	all.Inc()
	if err != nil {
		failed.Inc()
	}
}

// Aligned counts a pod or a container (scope) that was to get what is near to each other.
func (m *Meter) Aligned(scope string, ok bool) {
	if ok {
		m.aligned.WithLabelValues(scope, "numa_node").Inc()
	} else {
		m.misaligned.WithLabelValues(scope, "numa_node").Inc()
	}
}

// Counted counts the requests to a handler; kind is "readwrite" or "readonly".
func (m *Meter) Counted(kind string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, long := "other", false
		asked := strings.Trim(r.URL.Path, "/")
		for _, k := range known {
			if asked == k || strings.HasPrefix(asked, k+"/") {
				path = k
				break
			}
		}
		switch path {
		case "exec", "attach", "portForward", "debug":
			long = true
		case "containerLogs":
			long = r.URL.Query().Get("follow") != ""
		}
		method := r.Method
		switch method {
		case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodHead, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		default:
			method = "other"
		}
		labels := []string{method, path, kind, strconv.FormatBool(long)}
		m.Requests.WithLabelValues(labels...).Inc()
		m.Inflight.WithLabelValues(labels...).Inc()
		begun := time.Now()
		defer func() {
			m.Inflight.WithLabelValues(labels...).Dec()
			m.RequestTime.WithLabelValues(labels...).Observe(time.Since(begun).Seconds())
		}()
		h.ServeHTTP(w, r)
	})
}
