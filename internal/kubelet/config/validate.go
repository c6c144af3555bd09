// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/cpuset"
	"k8s.io/utils/ptr"

	"kaji/internal/featuregate"
	"kaji/internal/kubelet/image"
)

// verdict collects refusals in upstream's words.
type verdict []error

func (v *verdict) refuse(when bool, format string, args ...any) {
	if when {
		*v = append(*v, fmt.Errorf("invalid configuration: "+format, args...))
	}
}

// Validate says what a defaulted configuration may not ask for.
func Validate(c *configv1beta1.KubeletConfiguration) error {
	var v verdict
	v.server(c)
	v.node(c)
	v.pods(c)
	v.images(c)
	v.shutdown(c)
	v.reservedMemory(c)
	v.refused(c)
	return utilerrors.NewAggregate(v)
}

func badPort(port int32) bool { return validation.IsValidPortNum(int(port)) != nil }

func (v *verdict) server(c *configv1beta1.KubeletConfiguration) {
	v.refuse(badPort(c.Port), "port (--port) %v must be between 1 and 65535, inclusive", c.Port)
	v.refuse(c.ReadOnlyPort != 0 && badPort(c.ReadOnlyPort), "readOnlyPort (--read-only-port) %v must be between 0 and 65535, inclusive", c.ReadOnlyPort)
	v.refuse(*c.HealthzPort != 0 && badPort(*c.HealthzPort), "healthzPort (--healthz-port) %v must be between 1 and 65535, inclusive", *c.HealthzPort)
	modes := []configv1beta1.KubeletAuthorizationMode{configv1beta1.KubeletAuthorizationModeAlwaysAllow, configv1beta1.KubeletAuthorizationModeWebhook}
	v.refuse(!slices.Contains(modes, c.Authorization.Mode), "authorization.mode (--authorization-mode) %q must be one of: %q", c.Authorization.Mode, modes)
	v.refuse(ptr.Deref(c.EnableSystemLogQuery, false) && !*c.EnableSystemLogHandler, "enableSystemLogHandler is required for enableSystemLogQuery")
	v.refuse(c.RunOnce, "runOnce (--runOnce) %v, Runonce mode has been deprecated and should not be set", c.RunOnce)
}

func (v *verdict) node(c *configv1beta1.KubeletConfiguration) {
	v.refuse(c.NodeLeaseDurationSeconds <= 0, "nodeLeaseDurationSeconds must be greater than 0")
	v.refuse(c.SystemCgroups != "" && c.CgroupRoot == "", "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified")
	v.refuse(c.EventBurst < 0, "eventBurst (--event-burst) %v must not be a negative number", c.EventBurst)
	v.refuse(*c.EventRecordQPS < 0, "eventRecordQPS (--event-qps) %v must not be a negative number", *c.EventRecordQPS)
	v.refuse(c.KubeAPIBurst < 0, "kubeAPIBurst (--kube-api-burst) %v must not be a negative number", c.KubeAPIBurst)
	v.refuse(*c.KubeAPIQPS < 0, "kubeAPIQPS (--kube-api-qps) %v must not be a negative number", *c.KubeAPIQPS)
	v.refuse(*c.OOMScoreAdj < -1000 || *c.OOMScoreAdj > 1000, "oomScoreAdj (--oom-score-adj) %v must be between -1000 and 1000, inclusive", *c.OOMScoreAdj)
	v.refuse(*c.NodeStatusMaxImages < -1, "nodeStatusMaxImages (--node-status-max-images) must be -1 or greater")
	v.refuse(c.MaxOpenFiles < 0, "maxOpenFiles (--max-open-files) %v must not be a negative number", c.MaxOpenFiles)
	for _, t := range c.RegisterWithTaints {
		v.refuse(t.TimeAdded != nil, "taint.TimeAdded is not nil")
		if t.Key == "" || t.Effect == "" {
			*v = append(*v, fmt.Errorf("invalid taint: %v", t))
		}
	}
	for _, kind := range []string{"system-reserved", "kube-reserved"} {
		v.refuse(slices.Contains(c.EnforceNodeAllocatable, kind) && slices.Contains(c.EnforceNodeAllocatable, kind+"-compressible"),
			"both %q and %q cannot be specified together in enforceNodeAllocatable (--enforce-node-allocatable)", kind+"-compressible", kind)
	}
	for i, level := range c.EnforceNodeAllocatable {
		if slices.Contains(c.EnforceNodeAllocatable[:i], level) {
			v.refuse(true, "duplicated enforcements %q in enforceNodeAllocatable (--enforce-node-allocatable)", level)
			continue
		}
		switch level {
		case "none":
			v.refuse(len(c.EnforceNodeAllocatable) > 1, "enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional enforcements when %q is specified", level)
			continue
		case "pods":
		case "system-reserved", "system-reserved-compressible":
			v.refuse(c.SystemReservedCgroup == "", "systemReservedCgroup (--system-reserved-cgroup) must be specified when %q or %q included in enforceNodeAllocatable (--enforce-node-allocatable)", "system-reserved", "system-reserved-compressible")
		case "kube-reserved", "kube-reserved-compressible":
			v.refuse(c.KubeReservedCgroup == "", "kubeReservedCgroup (--kube-reserved-cgroup) must be specified when %q or %q included in enforceNodeAllocatable (--enforce-node-allocatable)", "kube-reserved", "kube-reserved-compressible")
		default:
			v.refuse(true, "option %q specified for enforceNodeAllocatable (--enforce-node-allocatable). Valid options are %q, %q, %q, %q, %q or %q",
				level, "pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none")
			continue
		}
		v.refuse(!*c.CgroupsPerQOS, "cgroupsPerQOS (--cgroups-per-qos) must be set to true when %q contained in enforceNodeAllocatable (--enforce-node-allocatable)", level)
	}
	if _, err := Reserved(c); err != nil {
		*v = append(*v, err)
	}
}

func (v *verdict) pods(c *configv1beta1.KubeletConfiguration) {
	if _, err := cpuset.Parse(c.ReservedSystemCPUs); err != nil {
		v.refuse(true, "unable to parse reservedSystemCPUs (--reserved-cpus) %v, error: %w", c.ReservedSystemCPUs, err)
	}
	v.refuse(c.ReservedSystemCPUs != "" && (c.SystemReservedCgroup != "" || c.KubeReservedCgroup != ""), "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)")
	v.refuse(c.MaxPods < 0, "maxPods (--max-pods) %v must not be a negative number", c.MaxPods)
	v.refuse(c.PodsPerCore < 0, "podsPerCore (--pods-per-core) %v must not be a negative number", c.PodsPerCore)
	gates, _ := featuregate.New(c.FeatureGates) // what is not known is refused before
	period := *c.CPUCFSQuotaPeriod
	v.refuse(period.Duration < time.Millisecond || period.Duration > time.Second, "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) %v must be between 1ms and 1sec, inclusive", period)
	v.refuse(period.Duration != 100*time.Millisecond && !gates.Enabled("CustomCPUCFSQuotaPeriod"), "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) %v requires feature gate CustomCPUCFSQuotaPeriod", period)
	policies := []string{configv1beta1.NoneTopologyManagerPolicy, configv1beta1.BestEffortTopologyManagerPolicy, configv1beta1.RestrictedTopologyManagerPolicy, configv1beta1.SingleNumaNodeTopologyManagerPolicy}
	v.refuse(!slices.Contains(policies, c.TopologyManagerPolicy), "topologyManagerPolicy (--topology-manager-policy) %q must be one of: %q", c.TopologyManagerPolicy, policies)
	scopes := []string{configv1beta1.ContainerTopologyManagerScope, configv1beta1.PodTopologyManagerScope}
	v.refuse(!slices.Contains(scopes, c.TopologyManagerScope), "topologyManagerScope (--topology-manager-scope) %q must be one of: %q, or %q", c.TopologyManagerScope, scopes[0], scopes[1])
	hairpins := []string{configv1beta1.HairpinNone, configv1beta1.HairpinVeth, configv1beta1.PromiscuousBridge}
	v.refuse(!slices.Contains(hairpins, c.HairpinMode), "option %q specified for hairpinMode (--hairpin-mode). Valid options are %q, %q or %q", c.HairpinMode, hairpins[0], hairpins[1], hairpins[2])
	longest := c.CrashLoopBackOff.MaxContainerRestartPeriod.Duration
	v.refuse(longest < time.Second || longest > 5*time.Minute, "CrashLoopBackOff.MaxContainerRestartPeriod (got: %v seconds) must be set between 1s and 300s", longest.Seconds())
	v.refuse(*c.ContainerLogMaxWorkers < 1, "containerLogMaxWorkers must be greater than or equal to 1")
	v.refuse(c.ContainerLogMonitorInterval.Duration < 3*time.Second, "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s")
	v.refuse(c.PodLogsDir == "", "podLogsDir was not specified")
	v.refuse(c.PodLogsDir != "" && !filepath.IsAbs(c.PodLogsDir), "pod logs path %q must be absolute path", c.PodLogsDir)
	v.refuse(c.PodLogsDir != "" && filepath.Clean(c.PodLogsDir) != c.PodLogsDir, "pod logs path %q must be normalized", c.PodLogsDir)
	if u := c.UserNamespaces; u != nil && u.IDsPerPod != nil {
		const unit = 65536
		v.refuse(*u.IDsPerPod < unit, "userNamespaces.idsPerPod must not be less than %d", unit)
		v.refuse(*u.IDsPerPod%unit != 0, "userNamespaces.idsPerPod must be a multiple of %d", unit)
		v.refuse(*u.IDsPerPod > math.MaxUint32, "userNamespaces.idsPerPod must not be more than %d", int64(math.MaxUint32))
	}
	v.memoryQoS(c, gates)
	v.refuse(*c.ContainerLogMaxFiles <= 1, "containerLogMaxFiles (--container-log-max-files) must be greater than 1")
	if _, err := resource.ParseQuantity(c.ContainerLogMaxSize); err != nil {
		v.refuse(true, "containerLogMaxSize (--container-log-max-size) %q: %w", c.ContainerLogMaxSize, err)
	}
	switch c.MemorySwap.SwapBehavior {
	case "", "NoSwap", "LimitedSwap":
	default:
		v.refuse(true, "memorySwap.swapBehavior %q must be one of: \"\", %q or %q", c.MemorySwap.SwapBehavior, "LimitedSwap", "NoSwap")
	}
}

func (v *verdict) images(c *configv1beta1.KubeletConfiguration) {
	high, low := *c.ImageGCHighThresholdPercent, *c.ImageGCLowThresholdPercent
	v.refuse(high < 0 || high > 100, "imageGCHighThresholdPercent (--image-gc-high-threshold) %v must be between 0 and 100, inclusive", high)
	v.refuse(low < 0 || low > 100, "imageGCLowThresholdPercent (--image-gc-low-threshold) %v must be between 0 and 100, inclusive", low)
	v.refuse(low >= high, "imageGCLowThresholdPercent (--image-gc-low-threshold) %v must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) %v", low, high)
	youngest, oldest := c.ImageMinimumGCAge.Duration, c.ImageMaximumGCAge.Duration
	v.refuse(youngest < 0, "imageMinimumGCAge %v must not be negative", youngest)
	v.refuse(oldest < 0, "imageMaximumGCAge %v must not be negative", oldest)
	v.refuse(oldest > 0 && oldest <= youngest, "imageMaximumGCAge %v must be greater than imageMinimumGCAge %v", oldest, youngest)
	modes := []configv1beta1.ImagePullCredentialsVerificationPolicy{configv1beta1.NeverVerify, configv1beta1.NeverVerifyPreloadedImages, configv1beta1.NeverVerifyAllowlistedImages, configv1beta1.AlwaysVerify}
	mode := c.ImagePullCredentialsVerificationPolicy
	v.refuse(!slices.Contains(modes, mode), "option %q specified for imagePullCredentialsVerificationPolicy. Valid options are %q, %q, %q or %q", mode, modes[0], modes[1], modes[2], modes[3])
	v.refuse(len(c.PreloadedImagesVerificationAllowlist) > 0 && mode != configv1beta1.NeverVerifyAllowlistedImages,
		"can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not \"NeverVerifyAllowlistedImages\"")
	for _, pattern := range c.PreloadedImagesVerificationAllowlist {
		if err := image.ValidPattern(pattern); err != nil {
			v.refuse(true, "invalid image pattern in `preloadedImagesVerificationAllowlist`: %w", err)
		}
	}
	v.refuse(c.RegistryBurst < 0, "registryBurst (--registry-burst) %v must not be a negative number", c.RegistryBurst)
	v.refuse(*c.RegistryPullQPS < 0, "registryPullQPS (--registry-qps) %v must not be a negative number", *c.RegistryPullQPS)
	parallel := ptr.Deref(c.MaxParallelImagePulls, 1)
	v.refuse(parallel < 1, "maxParallelImagePulls %v must be a positive number", parallel)
	v.refuse(*c.SerializeImagePulls && parallel > 1, "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false")
}

func (v *verdict) shutdown(c *configv1beta1.KubeletConfiguration) {
	all, critical := c.ShutdownGracePeriod.Duration, c.ShutdownGracePeriodCriticalPods.Duration
	v.refuse(critical > all, "shutdownGracePeriodCriticalPods %v must be <= shutdownGracePeriod %v", c.ShutdownGracePeriodCriticalPods, c.ShutdownGracePeriod)
	v.refuse(all < 0 || all > 0 && all < time.Second, "shutdownGracePeriod %v must be either zero or otherwise >= 1 sec", c.ShutdownGracePeriod)
	v.refuse(critical < 0 || critical > 0 && critical < time.Second, "shutdownGracePeriodCriticalPods %v must be either zero or otherwise >= 1 sec", c.ShutdownGracePeriodCriticalPods)
	v.refuse(len(c.ShutdownGracePeriodByPodPriority) > 0 && (all > 0 || critical > 0), "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time")
}

// reservedMemory refuses reservations that no NUMA node can have.
func (v *verdict) reservedMemory(c *configv1beta1.KubeletConfiguration) {
	seen := map[int32]map[corev1.ResourceName]bool{}
	for _, r := range c.ReservedMemory {
		if seen[r.NumaNode] == nil {
			seen[r.NumaNode] = map[corev1.ResourceName]bool{}
		}
		for name, quantity := range r.Limits {
			v.refuse(name != corev1.ResourceMemory && !strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix),
				"the limit type %q for NUMA node %d is not supported, only %v is accepted", name, r.NumaNode, []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceHugePagesPrefix + "<HugePageSize>"})
			v.refuse(quantity.IsZero(), "reserved memory may not be zero for NUMA node %d and resource %q", r.NumaNode, name)
			v.refuse(seen[r.NumaNode][name], "the reserved memory has a duplicate value for NUMA node %d and resource %q", r.NumaNode, name)
			seen[r.NumaNode][name] = true
		}
	}
}

// memoryQoS judges memoryThrottlingFactor and memoryReservationPolicy.
func (v *verdict) memoryQoS(c *configv1beta1.KubeletConfiguration, gates featuregate.Gates) {
	const former = 0.9 // a default of upstream's that files may still have
	on, tiers := gates.Enabled("MemoryQoS"), configv1beta1.TieredReservationMemoryReservationPolicy
	if f := c.MemoryThrottlingFactor; f != nil {
		v.refuse(!on && *f != former, "memoryThrottlingFactor must not be set when MemoryQoS feature gate is disabled")
		v.refuse(*f <= 0 || *f > 1, "memoryThrottlingFactor %v must be greater than 0 and less than or equal to 1.0", *f)
	}
	v.refuse(!on && c.MemoryReservationPolicy == tiers, "memoryReservationPolicy %q requires MemoryQoS feature gate to be enabled", tiers)
	none := configv1beta1.NoneMemoryReservationPolicy
	v.refuse(c.MemoryReservationPolicy != none && c.MemoryReservationPolicy != tiers,
		"option %q specified for memoryReservationPolicy. Valid options are %q or %q", c.MemoryReservationPolicy, none, tiers)
}

// refused says what is not done here, where it is asked for.
func (v *verdict) refused(c *configv1beta1.KubeletConfiguration) {
	v.refuse(!*c.EnableControllerAttachDetach, "enableControllerAttachDetach (--enable-controller-attach-detach) must be true: volumes are attached by the controller")
	v.refuse(len(c.QOSReserved) > 0, "qosReserved (--qos-reserved) is not supported: memoryReservationPolicy protects what pods request")
	v.refuse(c.Tracing != nil && (c.Tracing.Endpoint != nil || ptr.Deref(c.Tracing.SamplingRatePerMillion, 0) > 0), "tracing is not supported")
	strategies := []configv1beta1.ResourceChangeDetectionStrategy{configv1beta1.GetChangeDetectionStrategy, configv1beta1.TTLCacheChangeDetectionStrategy, configv1beta1.WatchChangeDetectionStrategy}
	v.refuse(!slices.Contains(strategies, c.ConfigMapAndSecretChangeDetectionStrategy), "unknown configmap and secret manager mode: %v", c.ConfigMapAndSecretChangeDetectionStrategy)
	gates, _ := featuregate.New(c.FeatureGates) // what is not known is refused before
	v.refuse(len(c.DefaultPodSysctls) > 0 && !gates.Enabled("DefaultPodSysctls"), "DefaultPodSysctls feature gate is required for Kubelet configuration option defaultPodSysctls")
	for _, bit := range []struct {
		name string
		n    int32
	}{{"iptablesDropBit (--iptables-drop-bit)", *c.IPTablesDropBit}, {"iptablesMasqueradeBit (--iptables-masquerade-bit)", *c.IPTablesMasqueradeBit}} {
		v.refuse(bit.n < 0 || bit.n > 31, "%s %v must be between 0 and 31, inclusive", bit.name, bit.n)
	}
	v.refuse(c.Logging.Format != "text" && c.Logging.Format != "json", "logging.format: Invalid value: %q: Unsupported log format", c.Logging.Format)
	for _, id := range c.TLSCurvePreferences {
		v.refuse(id <= 0 || id > math.MaxUint16, "tlsCurvePreferences: %d is no identifier of a curve", id)
	}
}
