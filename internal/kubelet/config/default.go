// SPDX-License-Identifier: Apache-2.0

package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
)

func fill[T any](field **T, v T) {
	if *field == nil {
		*field = ptr.To(v)
	}
}

func fillValue[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

// SetDefaults fills absent fields with upstream's defaults, but for one: that
// an agent refuses to run with control groups of version 1 must be asked for.
func SetDefaults(c *configv1beta1.KubeletConfiguration) {
	defaultServer(c)
	defaultNode(c)
	defaultPods(c)
	defaultImages(c)
	fillValue(&c.ContentType, "application/vnd.kubernetes.protobuf")
	fill(&c.KubeAPIQPS, 50)
	fillValue(&c.KubeAPIBurst, 100)
	fill(&c.EventRecordQPS, 50)
	fillValue(&c.EventBurst, 100)
	fillValue(&c.Logging.Format, "text")
	fill(&c.FailCgroupV1, false)
}

func defaultServer(c *configv1beta1.KubeletConfiguration) {
	fill(&c.EnableServer, true)
	fillValue(&c.Address, "0.0.0.0")
	fillValue(&c.Port, 10250)
	fill(&c.Authentication.Anonymous.Enabled, false)
	fill(&c.Authentication.Webhook.Enabled, true)
	fillValue(&c.Authentication.Webhook.CacheTTL.Duration, 2*time.Minute)
	fillValue(&c.Authorization.Mode, configv1beta1.KubeletAuthorizationModeWebhook)
	fillValue(&c.Authorization.Webhook.CacheAuthorizedTTL.Duration, 5*time.Minute)
	fillValue(&c.Authorization.Webhook.CacheUnauthorizedTTL.Duration, 30*time.Second)
	fill(&c.EnableDebuggingHandlers, true)
	fill(&c.HealthzPort, 10248)
	fillValue(&c.HealthzBindAddress, "127.0.0.1")
	fillValue(&c.StreamingConnectionIdleTimeout.Duration, 4*time.Hour)
	fill(&c.EnableSystemLogHandler, true)
	fill(&c.EnableProfilingHandler, true)
	fill(&c.EnableDebugFlagsHandler, true)
}

func defaultNode(c *configv1beta1.KubeletConfiguration) {
	// Whoever sets only the first means both, as before there was the second.
	if c.NodeStatusUpdateFrequency.Duration != 0 {
		fillValue(&c.NodeStatusReportFrequency, c.NodeStatusUpdateFrequency)
	}
	fillValue(&c.NodeStatusReportFrequency.Duration, 5*time.Minute)
	fillValue(&c.NodeStatusUpdateFrequency.Duration, 10*time.Second)
	fillValue(&c.NodeLeaseDurationSeconds, 40)
	fill(&c.NodeStatusMaxImages, 50)
	fill(&c.RegisterNode, true)
	fill(&c.OOMScoreAdj, -999)
	fillValue(&c.MaxOpenFiles, 1000000)
	fill(&c.FailSwapOn, true)
	fill(&c.EnableControllerAttachDetach, true)
	fill(&c.LocalStorageCapacityIsolation, true)
	fillValue(&c.EvictionPressureTransitionPeriod.Duration, 5*time.Minute)
	fill(&c.MergeDefaultEvictionSettings, false)
	if c.EnforceNodeAllocatable == nil {
		c.EnforceNodeAllocatable = []string{"pods"}
	}
	fill(&c.MakeIPTablesUtilChains, true)
	fill(&c.IPTablesMasqueradeBit, 14)
	fill(&c.IPTablesDropBit, 15)
	fillValue(&c.HairpinMode, configv1beta1.PromiscuousBridge)
}

func defaultPods(c *configv1beta1.KubeletConfiguration) {
	fillValue(&c.SyncFrequency.Duration, time.Minute)
	fillValue(&c.FileCheckFrequency.Duration, 20*time.Second)
	fillValue(&c.HTTPCheckFrequency.Duration, 20*time.Second)
	fillValue(&c.PodLogsDir, "/var/log/pods")
	fillValue(&c.VolumeStatsAggPeriod.Duration, time.Minute)
	fill(&c.CgroupsPerQOS, true)
	fillValue(&c.CgroupDriver, "cgroupfs")
	fillValue(&c.CPUManagerPolicy, "none")
	fillValue(&c.CPUManagerReconcilePeriod.Duration, 10*time.Second)
	fillValue(&c.MemoryManagerPolicy, configv1beta1.NoneMemoryManagerPolicy)
	fillValue(&c.TopologyManagerPolicy, configv1beta1.NoneTopologyManagerPolicy)
	fillValue(&c.TopologyManagerScope, configv1beta1.ContainerTopologyManagerScope)
	fillValue(&c.MemoryReservationPolicy, configv1beta1.NoneMemoryReservationPolicy)
	fillValue(&c.MaxPods, 110)
	if c.PodPidsLimit == nil || *c.PodPidsLimit < 0 {
		c.PodPidsLimit = ptr.To[int64](-1)
	}
	fill(&c.ResolverConfig, "/etc/resolv.conf")
	fill(&c.CPUCFSQuota, true)
	fill(&c.CPUCFSQuotaPeriod, metav1.Duration{Duration: 100 * time.Millisecond})
	fillValue(&c.ContainerLogMaxSize, "10Mi")
	fill(&c.ContainerLogMaxFiles, 5)
	fill(&c.ContainerLogMaxWorkers, 1)
	fill(&c.ContainerLogMonitorInterval, metav1.Duration{Duration: 10 * time.Second})
	fillValue(&c.ConfigMapAndSecretChangeDetectionStrategy, configv1beta1.WatchChangeDetectionStrategy)
	fillValue(&c.VolumePluginDir, "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")
	fill(&c.SeccompDefault, false)
	fill(&c.CrashLoopBackOff.MaxContainerRestartPeriod, metav1.Duration{Duration: 5 * time.Minute})
}

func defaultImages(c *configv1beta1.KubeletConfiguration) {
	fillValue(&c.ContainerRuntimeEndpoint, "unix:///run/containerd/containerd.sock")
	fillValue(&c.RuntimeRequestTimeout.Duration, 2*time.Minute)
	fill(&c.RegistryPullQPS, 5)
	fillValue(&c.RegistryBurst, 10)
	fillValue(&c.ImageMinimumGCAge.Duration, 2*time.Minute)
	fill(&c.ImageGCHighThresholdPercent, 85)
	fill(&c.ImageGCLowThresholdPercent, 80)
	// Who bounds parallel pulls wants them.
	fill(&c.SerializeImagePulls, c.MaxParallelImagePulls == nil || *c.MaxParallelImagePulls < 2)
	fillValue(&c.ImagePullCredentialsVerificationPolicy, configv1beta1.NeverVerifyPreloadedImages)
}
