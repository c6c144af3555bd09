// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"kaji/internal/kubelet/admit"
	"kaji/internal/kubelet/node"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/podworker"
	"kaji/internal/kubelet/probe"
	"kaji/internal/kubelet/stats"
)

func (k *Kubelet) countProbe(pod *corev1.Pod, container string, kind probe.Kind, result string, took time.Duration) {
	k.meter.ProbeTime.WithLabelValues(string(kind), container, pod.Name, pod.Namespace).Observe(took.Seconds())
	k.meter.ProbeRuns.WithLabelValues(string(kind), result, container, pod.Name, pod.Namespace, string(pod.UID)).Inc()
}

// countStart counts the start of a container, of a sandbox where kind is
// "podsandbox", and once more of a pod in a user namespace.
func (k *Kubelet) countStart(kind string, err error) {
	if kind == "user_namespace" {
		k.meter.UserNamespaces.Inc()
		if err != nil {
			k.meter.UserNamespaceErrors.Inc()
		}
		return
	}
	k.meter.Started.WithLabelValues(kind).Inc()
	if err != nil {
		k.meter.StartErrors.WithLabelValues(grpcstatus.Code(err).String(), kind).Inc()
	}
	if kind != "podsandbox" {
		return
	}
	k.meter.Sandboxes.Inc()
	if err != nil {
		k.meter.SandboxErrors.Inc()
	}
}

// countRunning counts a pod that has begun to run.
func (k *Kubelet) countRunning(pod *corev1.Pod, before, now *corev1.PodStatus) {
	if before.Phase != corev1.PodRunning && now.Phase == corev1.PodRunning {
		k.countStarted(pod, now)
	}
	if before.Phase != corev1.PodRunning && now.Phase == corev1.PodRunning && before.StartTime != nil && !before.StartTime.IsZero() {
		k.meter.PodStart.Observe(time.Since(before.StartTime.Time).Seconds())
	}
}

// countFirst counts a pod that a worker looks at for the first time.
func (k *Kubelet) countFirst(pod *corev1.Pod) {
	k.mu.Lock()
	seen, ok := k.mu.seen[pod.UID]
	k.mu.Unlock()
	if ok {
		k.meter.WorkerStart.Observe(time.Since(seen).Seconds())
	}
	k.meter.ContainersPerPod.Observe(float64(len(pod.Spec.Containers)))
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Image != nil {
			k.meter.ImageVolumes.Inc()
		}
	}
}

// countStarted counts a pod whose containers run, for the first time: from its
// creation on, and without what its images and init containers took.
func (k *Kubelet) countStarted(pod *corev1.Pod, s *corev1.PodStatus) {
	if pod.CreationTimestamp.IsZero() {
		return
	}
	took := time.Since(pod.CreationTimestamp.Time)
	k.meter.Start.Observe(took.Seconds())
	k.mu.Lock()
	took -= k.mu.pulls[pod.UID]
	k.mu.Unlock()
	for i := range s.InitContainerStatuses {
		if end := s.InitContainerStatuses[i].State.Terminated; end != nil {
			took -= end.FinishedAt.Sub(end.StartedAt.Time)
		}
	}
	took = max(took, 0)
	k.meter.StartSLI.Observe(took.Seconds())
	if !pod.Spec.HostNetwork && k.first.CompareAndSwap(false, true) {
		k.meter.FirstStart.Set(took.Seconds())
	}
}

// countPull counts the pull of an image.
func (k *Kubelet) countPull(pod *corev1.Pod, took time.Duration, bytes uint64) {
	k.meter.Pulled(took, bytes)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.pulls[pod.UID] += took
}

// countVolume counts that a volume was made ready or taken away.
func (k *Kubelet) countVolume(driver, operation string, took time.Duration, err error) {
	result := "success"
	if err != nil {
		result = "fail-unknown"
	}
	k.meter.Storage.WithLabelValues(driver, operation, result, "false").Observe(took.Seconds())
	if err == nil {
		k.meter.StorageTotal.WithLabelValues(driver, operation).Observe(took.Seconds())
	}
	if driver == "kubernetes.io/image" && operation == "volume_mount" {
		if err == nil {
			k.meter.ImageVolumesMounted.Inc()
		} else {
			k.meter.ImageVolumeErrs.Inc()
		}
	}
}

// countStreams counts how it went when the runtime was asked for events.
func (k *Kubelet) countStreams(err error) {
	if err != nil {
		k.meter.EventStreamErrors.Inc()
	} else {
		k.meter.EventStreams.Inc()
	}
}

// countResources counts a request to the socket of pod resources.
func (k *Kubelet) countResources(method string, err error) {
	const version = "v1"
	k.meter.PodResources.WithLabelValues(version).Inc()
	if c := k.meter.PodResourceRequests[method]; c != nil {
		c.WithLabelValues(version).Inc()
	}
	if c := k.meter.PodResourceErrors[method]; c != nil && err != nil {
		c.WithLabelValues(version).Inc()
	}
}

// countPods counts a request to the socket of pods.
func (k *Kubelet) countPods(method string, code codes.Code) {
	for _, m := range []string{"", method} {
		if c := k.meter.PodRequests[m]; c != nil {
			c.WithLabelValues("v1alpha1", code.String()).Inc()
		}
	}
}

// countClaims counts that drivers were asked about the claims of a pod that has some.
func (k *Kubelet) countClaims(operation string, pod *corev1.Pod, begun time.Time, err error) {
	if len(pod.Spec.ResourceClaims) > 0 {
		k.meter.Claims.WithLabelValues(operation, strconv.FormatBool(err != nil)).Observe(time.Since(begun).Seconds())
	}
}

// countStatic is how many pods are static, or are not.
func countStatic(pods []*corev1.Pod, static bool) int {
	n := 0
	for _, pod := range pods {
		if podspec.Static(pod) == static {
			n++
		}
	}
	return n
}

// ephemeral is how many ephemeral containers pods have.
func (k *Kubelet) ephemeral() float64 {
	n := 0
	for _, pod := range k.pool.Pods() {
		n += len(pod.Spec.EphemeralContainers)
	}
	return float64(n)
}

// Metrics is where others register what is served with the agent's own.
func (k *Kubelet) Metrics() prometheus.Registerer { return k.meter.Registerer() }

// moment tells of a Kubelet when it is asked: of its pods, of how full the volumes
// of claims are, of processors.
type moment struct{ *Kubelet }

var (
	volumeLabels = []string{"namespace", "persistentvolumeclaim"}
	volumeDescs  = []*prometheus.Desc{
		prometheus.NewDesc("kubelet_volume_stats_capacity_bytes", "[ALPHA] Capacity in bytes of the volume", volumeLabels, nil),
		prometheus.NewDesc("kubelet_volume_stats_available_bytes", "[ALPHA] Number of available bytes in the volume", volumeLabels, nil),
		prometheus.NewDesc("kubelet_volume_stats_used_bytes", "[ALPHA] Number of used bytes in the volume", volumeLabels, nil),
		prometheus.NewDesc("kubelet_volume_stats_inodes", "[ALPHA] Maximum number of inodes in the volume", volumeLabels, nil),
		prometheus.NewDesc("kubelet_volume_stats_inodes_free", "[ALPHA] Number of free inodes in the volume", volumeLabels, nil),
		prometheus.NewDesc("kubelet_volume_stats_inodes_used", "[ALPHA] Number of used inodes in the volume", volumeLabels, nil),
	}
	workingDesc   = prometheus.NewDesc("kubelet_working_pods", "[ALPHA] Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible.", []string{"lifecycle", "config", "static"}, nil)
	pendingDesc   = prometheus.NewDesc("kubelet_pod_pending_resizes", "[ALPHA] Number of pending resizes for pods. Label 'priority_bucket' classifies the pod priority.", []string{"reason", "priority_bucket"}, nil)
	resizingDesc  = prometheus.NewDesc("kubelet_pod_in_progress_resizes", "[ALPHA] Number of in-progress resizes for pods.", nil, nil)
	sharedDesc    = prometheus.NewDesc("kubelet_cpu_manager_shared_pool_size_millicores", "[ALPHA] The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.", nil, nil)
	exclusiveDesc = prometheus.NewDesc("kubelet_cpu_manager_exclusive_cpu_allocation_count", "[ALPHA] The total number of CPUs exclusively allocated to containers running on this node", nil, nil)
	nearDesc      = prometheus.NewDesc("kubelet_cpu_manager_allocation_per_numa", "[ALPHA] Number of CPUs allocated per NUMA node", []string{"numa_node"}, nil)
	volumesDesc   = prometheus.NewDesc("volume_manager_total_volumes", "[ALPHA] Number of volumes in Volume Manager", []string{"plugin_name", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (moment) Describe(to chan<- *prometheus.Desc) {
	for _, d := range append([]*prometheus.Desc{volumesDesc, workingDesc, pendingDesc, resizingDesc, sharedDesc, exclusiveDesc, nearDesc}, volumeDescs...) {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (v moment) Collect(to chan<- prometheus.Metric) {
	v.collectPods(to)
	if v.cpus.Active() {
		shared, exclusive := v.cpus.Shares()
		to <- prometheus.MustNewConstMetric(sharedDesc, prometheus.GaugeValue, float64(shared)*1000)
		to <- prometheus.MustNewConstMetric(exclusiveDesc, prometheus.GaugeValue, float64(exclusive))
		for node, n := range v.cpus.Near() {
			to <- prometheus.MustNewConstMetric(nearDesc, prometheus.GaugeValue, float64(n), strconv.Itoa(node))
		}
	}
	for driver, n := range v.volumes.Count() {
		for _, state := range []string{"actual_state_of_world", "desired_state_of_world"} {
			to <- prometheus.MustNewConstMetric(volumesDesc, prometheus.GaugeValue, float64(n), driver, state)
		}
	}
	told := map[[2]string]bool{}
	for _, pod := range v.pool.Pods() {
		for i := range pod.Spec.Volumes {
			volume := &pod.Spec.Volumes[i]
			claim := [2]string{pod.Namespace}
			switch {
			case volume.PersistentVolumeClaim != nil:
				claim[1] = volume.PersistentVolumeClaim.ClaimName
			case volume.Ephemeral != nil:
				claim[1] = pod.Name + "-" + volume.Name
			default:
				continue
			}
			mounted, ok := v.volumes.Mounted(pod.UID, volume.Name)
			if !ok || mounted.Block || told[claim] {
				continue
			}
			s, err := stats.SpaceOf(mounted.Path)
			if err != nil {
				continue
			}
			told[claim] = true
			for i, n := range []uint64{s.Capacity, s.Available, s.Used, s.Inodes, s.InodesFree, s.InodesUsed} {
				to <- prometheus.MustNewConstMetric(volumeDescs[i], prometheus.GaugeValue, float64(n), claim[0], claim[1])
			}
		}
	}
}

// collectPods tells of the pods with a worker, and of resizes.
func (v moment) collectPods(to chan<- prometheus.Metric) {
	type key struct{ lifecycle, config, static string }
	working, pending, resizing := map[key]int{}, map[[2]string]int{}, 0
	for _, state := range []string{"sync", "terminating", "terminated"} {
		for _, static := range []string{"", "true"} {
			working[key{state, "desired", static}] = 0
		}
	}
	for _, pod := range v.pool.Pods() {
		at := key{"sync", "desired", ""}
		if state, _ := v.pool.State(pod.UID); state == podworker.Terminating {
			at.lifecycle = "terminating"
		} else if state > podworker.Terminating {
			at.lifecycle = "terminated"
		}
		if podspec.Static(pod) {
			at.static = "true"
		}
		if len(pod.Spec.Containers) == 0 {
			at.config = "runtime_only" // known by the runtime alone, see adopt
		}
		working[at]++
		v.mu.Lock()
		why, waits := v.mu.pending[pod.UID]
		if v.mu.resizing[pod.UID] {
			resizing++
		}
		v.mu.Unlock()
		if waits {
			pending[[2]string{strings.ToLower(why.Reason), bucket(pod)}]++
		}
	}
	for k, n := range working {
		to <- prometheus.MustNewConstMetric(workingDesc, prometheus.GaugeValue, float64(n), k.lifecycle, k.config, k.static)
	}
	for k, n := range pending {
		to <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, float64(n), k[0], k[1])
	}
	to <- prometheus.MustNewConstMetric(resizingDesc, prometheus.GaugeValue, float64(resizing))
}

// bucket classifies the priority of a pod.
func bucket(pod *corev1.Pod) string {
	p := int32(0)
	if pod.Spec.Priority != nil {
		p = *pod.Spec.Priority
	}
	switch {
	case p >= systemCritical:
		return "system-critical"
	case p >= 100000:
		return "high"
	case p >= 1:
		return "medium"
	case p == 0:
		return "normal"
	case p >= -999:
		return "low"
	}
	return "very-low"
}

// countEnded counts containers that have ended, each end once.
func (k *Kubelet) countEnded(before, now *corev1.PodStatus) {
	count := func(kind string, before, now []corev1.ContainerStatus) {
		for i := range now {
			end := now[i].State.Terminated
			known := slices.ContainsFunc(before, func(b corev1.ContainerStatus) bool { return b.Name == now[i].Name && b.State.Terminated != nil })
			if end != nil && !known {
				k.meter.Ended.WithLabelValues(kind, strconv.Itoa(int(end.ExitCode)), end.Reason).Inc()
			}
		}
	}
	count("init_container", before.InitContainerStatuses, now.InitContainerStatuses)
	count("container", before.ContainerStatuses, now.ContainerStatuses)
	count("ephemeral_container", before.EphemeralContainerStatuses, now.EphemeralContainerStatuses)
}

// countList counts a listing of the runtime.
func (k *Kubelet) countList(took time.Duration) {
	k.meter.Relist.Observe(took.Seconds())
	k.meter.LastList.SetToCurrentTime()
	k.mu.Lock()
	last := k.mu.listedAt
	k.mu.listedAt = time.Now()
	k.mu.Unlock()
	if !last.IsZero() {
		k.meter.RelistInterval.Observe(time.Since(last).Seconds())
	}
}

// since is deferred to tell how long something took.
func since(o prometheus.Observer, begun time.Time) { o.Observe(time.Since(begun).Seconds()) }

// running adds up what count makes of pods that run; nil counts pods.
func (k *Kubelet) running(count func(*corev1.PodStatus) int) int {
	n := 0
	for _, pod := range k.pool.Pods() {
		s, ok := k.statuses.Get(pod.UID)
		switch {
		case !ok || s.Phase != corev1.PodRunning:
		case count == nil:
			n++
		default:
			n += count(&s)
		}
	}
	return n
}

func (k *Kubelet) runningContainers(s *corev1.PodStatus) int {
	n := 0
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].State.Running != nil {
				n++
			}
		}
	}
	return n
}

// countResizes counts what a pod asks for otherwise than before, and says whether it does.
func (k *Kubelet) countResizes(pod *corev1.Pod) (any bool) {
	now := admit.Allocate(pod)
	k.mu.Lock()
	before := k.mu.asked[pod.UID]
	k.mu.asked[pod.UID] = now
	k.mu.Unlock()
	for name, resources := range now {
		was, known := before[name]
		if !known || name == "" { // that of the pod is not counted
			continue
		}
		for _, what := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceCPU} {
			for requirement, list := range map[string][2]corev1.ResourceList{"requests": {was.Requests, resources.Requests}, "limits": {was.Limits, resources.Limits}} {
				if operation := change(list[0][what], list[1][what]); operation != "" {
					any = true
					k.meter.Resizes.WithLabelValues(string(what), requirement, operation).Inc()
				}
			}
		}
	}
	return any
}

// change names what became of an amount, "" for nothing.
func change(before, now resource.Quantity) string {
	switch {
	case now.IsZero() && !before.IsZero():
		return "remove"
	case before.IsZero() && !now.IsZero():
		return "add"
	}
	return map[int]string{-1: "decrease", 1: "increase"}[now.Cmp(before)]
}

// undefer notes how the wait of a resize for room ended, and says whether it waited. It
// is called with the lock held.
func (k *Kubelet) undefer(pod *corev1.Pod, how string) bool {
	since, waited := k.mu.deferred[pod.UID]
	if waited {
		delete(k.mu.deferred, pod.UID)
		k.meter.DeferredTime.WithLabelValues(how, bucket(pod)).Observe(time.Since(since).Seconds())
	}
	return waited
}

// countStartup tells how long the parts of a new node's start took.
func (k *Kubelet) countStartup(s node.Startup) {
	var now unix.Timespec
	up := time.Duration(0)
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) == nil {
		up = time.Duration(now.Nano()) - time.Since(k.began) // that of the machine when the agent began
	}
	k.meter.StartupBefore.Set(up.Seconds())
	k.meter.StartupAgent.Set(s.Attempt.Sub(k.began).Seconds())
	k.meter.StartupRegistration.Set(s.Registered.Sub(s.Attempt).Seconds())
	if !s.Ready.IsZero() {
		k.meter.StartupAfter.Set(s.Ready.Sub(s.Registered).Seconds())
		k.meter.Startup.Set((up + s.Ready.Sub(k.began)).Seconds())
	}
}
