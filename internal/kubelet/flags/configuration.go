// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	cliflag "k8s.io/component-base/cli/flag"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// addConfiguration defines the flags of the fields of a defaulted configuration.
func addConfiguration(fs *pflag.FlagSet, c *configv1beta1.KubeletConfiguration) {
	before := map[string]bool{}
	fs.VisitAll(func(f *pflag.Flag) { before[f.Name] = true })
	addServer(fs, c)
	addNode(fs, c)
	addPods(fs, c)
	addRuntime(fs, c)
	addReservations(fs, c)
	fs.VisitAll(func(f *pflag.Flag) {
		if !before[f.Name] && f.Usage == "" {
			f.Usage = "The configuration file's field of this name."
		}
	})
}

func addServer(fs *pflag.FlagSet, c *configv1beta1.KubeletConfiguration) {
	boolean(fs, c.EnableServer, "enable-server")
	text(fs, &c.Address, "address")
	number(fs, &c.Port, "port")
	number(fs, &c.ReadOnlyPort, "read-only-port")
	boolean(fs, c.Authentication.Anonymous.Enabled, "anonymous-auth")
	boolean(fs, c.Authentication.Webhook.Enabled, "authentication-token-webhook")
	fs.DurationVar(&c.Authentication.Webhook.CacheTTL.Duration, "authentication-token-webhook-cache-ttl", c.Authentication.Webhook.CacheTTL.Duration, "")
	text(fs, &c.Authentication.X509.ClientCAFile, "client-ca-file")
	text(fs, (*string)(&c.Authorization.Mode), "authorization-mode")
	fs.DurationVar(&c.Authorization.Webhook.CacheAuthorizedTTL.Duration, "authorization-webhook-cache-authorized-ttl", c.Authorization.Webhook.CacheAuthorizedTTL.Duration, "")
	fs.DurationVar(&c.Authorization.Webhook.CacheUnauthorizedTTL.Duration, "authorization-webhook-cache-unauthorized-ttl", c.Authorization.Webhook.CacheUnauthorizedTTL.Duration, "")
	text(fs, &c.TLSCertFile, "tls-cert-file")
	text(fs, &c.TLSPrivateKeyFile, "tls-private-key-file")
	fs.StringSliceVar(&c.TLSCipherSuites, "tls-cipher-suites", c.TLSCipherSuites, "")
	text(fs, &c.TLSMinVersion, "tls-min-version")
	boolean(fs, &c.RotateCertificates, "rotate-certificates")
	boolean(fs, &c.ServerTLSBootstrap, "rotate-server-certificates")
	boolean(fs, c.EnableDebuggingHandlers, "enable-debugging-handlers")
	boolean(fs, &c.EnableContentionProfiling, "contention-profiling")
	number(fs, c.HealthzPort, "healthz-port")
	text(fs, &c.HealthzBindAddress, "healthz-bind-address")
	fs.DurationVar(&c.StreamingConnectionIdleTimeout.Duration, "streaming-connection-idle-timeout", c.StreamingConnectionIdleTimeout.Duration, "")
}

func addNode(fs *pflag.FlagSet, c *configv1beta1.KubeletConfiguration) {
	boolean(fs, c.FailSwapOn, "fail-swap-on")
	boolean(fs, c.FailCgroupV1, "fail-cgroupv1")
	number(fs, c.OOMScoreAdj, "oom-score-adj")
	text(fs, &c.ProviderID, "provider-id")
	boolean(fs, c.RegisterNode, "register-node")
	fs.Var(&taints{&c.RegisterWithTaints}, "register-with-taints", "")
	fs.DurationVar(&c.NodeStatusUpdateFrequency.Duration, "node-status-update-frequency", c.NodeStatusUpdateFrequency.Duration, "")
	number(fs, c.NodeStatusMaxImages, "node-status-max-images")
	text(fs, &c.ContentType, "kube-api-content-type")
	number(fs, c.KubeAPIQPS, "kube-api-qps")
	number(fs, &c.KubeAPIBurst, "kube-api-burst")
	number(fs, c.EventRecordQPS, "event-qps")
	number(fs, &c.EventBurst, "event-burst")
	fs.Var(cliflag.NewMapStringBool(&c.FeatureGates), "feature-gates", "")
	boolean(fs, c.EnableControllerAttachDetach, "enable-controller-attach-detach")
	boolean(fs, c.MakeIPTablesUtilChains, "make-iptables-util-chains")
	boolean(fs, &c.ProtectKernelDefaults, "protect-kernel-defaults")
	fs.Int64Var(&c.MaxOpenFiles, "max-open-files", c.MaxOpenFiles, "")
	text(fs, &c.Logging.Format, "logging-format")
}

func addPods(fs *pflag.FlagSet, c *configv1beta1.KubeletConfiguration) {
	text(fs, &c.StaticPodPath, "pod-manifest-path")
	text(fs, &c.StaticPodURL, "manifest-url")
	fs.Var(cliflag.NewColonSeparatedMultimapStringString(&c.StaticPodURLHeader), "manifest-url-header", "")
	fs.DurationVar(&c.SyncFrequency.Duration, "sync-frequency", c.SyncFrequency.Duration, "")
	fs.DurationVar(&c.FileCheckFrequency.Duration, "file-check-frequency", c.FileCheckFrequency.Duration, "")
	fs.DurationVar(&c.HTTPCheckFrequency.Duration, "http-check-frequency", c.HTTPCheckFrequency.Duration, "")
	text(fs, &c.ClusterDomain, "cluster-domain")
	fs.StringSliceVar(&c.ClusterDNS, "cluster-dns", c.ClusterDNS, "")
	text(fs, c.ResolverConfig, "resolv-conf")
	text(fs, &c.VolumePluginDir, "volume-plugin-dir")
	fs.DurationVar(&c.VolumeStatsAggPeriod.Duration, "volume-stats-agg-period", c.VolumeStatsAggPeriod.Duration, "")
	number(fs, &c.MaxPods, "max-pods")
	number(fs, &c.PodsPerCore, "pods-per-core")
	text(fs, &c.PodCIDR, "pod-cidr")
	fs.Int64Var(c.PodPidsLimit, "pod-max-pids", *c.PodPidsLimit, "")
	text(fs, &c.HairpinMode, "hairpin-mode")
	boolean(fs, &c.RunOnce, "runonce")
	boolean(fs, c.CPUCFSQuota, "cpu-cfs-quota")
	fs.DurationVar(&c.CPUCFSQuotaPeriod.Duration, "cpu-cfs-quota-period", c.CPUCFSQuotaPeriod.Duration, "")
	fs.StringSliceVar(&c.AllowedUnsafeSysctls, "allowed-unsafe-sysctls", c.AllowedUnsafeSysctls, "")
	boolean(fs, c.SeccompDefault, "seccomp-default")
	boolean(fs, c.LocalStorageCapacityIsolation, "local-storage-capacity-isolation")
}

func addRuntime(fs *pflag.FlagSet, c *configv1beta1.KubeletConfiguration) {
	text(fs, &c.ContainerRuntimeEndpoint, "container-runtime-endpoint")
	text(fs, &c.ImageServiceEndpoint, "image-service-endpoint")
	fs.DurationVar(&c.RuntimeRequestTimeout.Duration, "runtime-request-timeout", c.RuntimeRequestTimeout.Duration, "")
	number(fs, c.RegistryPullQPS, "registry-qps")
	number(fs, &c.RegistryBurst, "registry-burst")
	boolean(fs, c.SerializeImagePulls, "serialize-image-pulls")
	fs.DurationVar(&c.ImageMinimumGCAge.Duration, "minimum-image-ttl-duration", c.ImageMinimumGCAge.Duration, "")
	number(fs, c.ImageGCHighThresholdPercent, "image-gc-high-threshold")
	number(fs, c.ImageGCLowThresholdPercent, "image-gc-low-threshold")
	text(fs, &c.ContainerLogMaxSize, "container-log-max-size")
	number(fs, c.ContainerLogMaxFiles, "container-log-max-files")
	text(fs, &c.KubeletCgroups, "kubelet-cgroups")
	text(fs, &c.SystemCgroups, "system-cgroups")
	text(fs, &c.CgroupRoot, "cgroup-root")
	text(fs, &c.CgroupDriver, "cgroup-driver")
	boolean(fs, c.CgroupsPerQOS, "cgroups-per-qos")
	fs.Var(cliflag.NewMapStringString(&c.QOSReserved), "qos-reserved", "")
	text(fs, &c.CPUManagerPolicy, "cpu-manager-policy")
	fs.Var(cliflag.NewMapStringStringNoSplit(&c.CPUManagerPolicyOptions), "cpu-manager-policy-options", "")
	fs.DurationVar(&c.CPUManagerReconcilePeriod.Duration, "cpu-manager-reconcile-period", c.CPUManagerReconcilePeriod.Duration, "")
	text(fs, &c.MemoryManagerPolicy, "memory-manager-policy")
	text(fs, &c.TopologyManagerPolicy, "topology-manager-policy")
	text(fs, &c.TopologyManagerScope, "topology-manager-scope")
	fs.Var(cliflag.NewMapStringString(&c.TopologyManagerPolicyOptions), "topology-manager-policy-options", "")
}

func addReservations(fs *pflag.FlagSet, c *configv1beta1.KubeletConfiguration) {
	fs.Var(cliflag.NewLangleSeparatedMapStringString(&c.EvictionHard), "eviction-hard", "")
	fs.Var(cliflag.NewLangleSeparatedMapStringString(&c.EvictionSoft), "eviction-soft", "")
	fs.Var(cliflag.NewMapStringString(&c.EvictionSoftGracePeriod), "eviction-soft-grace-period", "")
	fs.Var(cliflag.NewMapStringString(&c.EvictionMinimumReclaim), "eviction-minimum-reclaim", "")
	fs.DurationVar(&c.EvictionPressureTransitionPeriod.Duration, "eviction-pressure-transition-period", c.EvictionPressureTransitionPeriod.Duration, "")
	number(fs, &c.EvictionMaxPodGracePeriod, "eviction-max-pod-grace-period")
	boolean(fs, &c.KernelMemcgNotification, "kernel-memcg-notification")
	text(fs, &c.ReservedSystemCPUs, "reserved-cpus")
	fs.Var(&memory{&c.ReservedMemory}, "reserved-memory", "")
	fs.Var(cliflag.NewMapStringString(&c.SystemReserved), "system-reserved", "")
	fs.Var(cliflag.NewMapStringString(&c.KubeReserved), "kube-reserved", "")
	fs.StringSliceVar(&c.EnforceNodeAllocatable, "enforce-node-allocatable", c.EnforceNodeAllocatable, "")
	text(fs, &c.SystemReservedCgroup, "system-reserved-cgroup")
	text(fs, &c.KubeReservedCgroup, "kube-reserved-cgroup")
}

func boolean(fs *pflag.FlagSet, p *bool, name string) { fs.BoolVar(p, name, *p, "") }
func text(fs *pflag.FlagSet, p *string, name string)  { fs.StringVar(p, name, *p, "") }
func number(fs *pflag.FlagSet, p *int32, name string) { fs.Int32Var(p, name, *p, "") }

// taints is a flag of taints, key=value:effect.
type taints struct{ to *[]corev1.Taint }

// Type implements pflag.Value.
func (*taints) Type() string { return "[]corev1.Taint" }

// String implements pflag.Value.
func (t *taints) String() string {
	var out []string
	if t.to != nil {
		for _, one := range *t.to {
			out = append(out, one.ToString())
		}
	}
	return strings.Join(out, ",")
}

// Set implements pflag.Value.
func (t *taints) Set(s string) error {
	var all []corev1.Taint
	for _, one := range strings.Split(s, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		pair, effect, ok := strings.Cut(one, ":")
		key, value, _ := strings.Cut(pair, "=")
		switch corev1.TaintEffect(effect) {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		default:
			ok = false
		}
		if !ok || key == "" {
			return fmt.Errorf("invalid taint spec: %v", one)
		}
		all = append(all, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	*t.to = all
	return nil
}

// memory is a flag of memory reserved a NUMA node: node:type=amount,…
type memory struct {
	to *[]configv1beta1.MemoryReservation
}

// Type implements pflag.Value.
func (*memory) Type() string { return "reserved-memory" }

// String implements pflag.Value.
func (m *memory) String() string {
	if m.to == nil || len(*m.to) == 0 {
		return ""
	}
	return fmt.Sprint(*m.to)
}

// Set implements pflag.Value. The flag may be given for each node.
func (m *memory) Set(s string) error {
	node, list, ok := strings.Cut(s, ":")
	one := configv1beta1.MemoryReservation{Limits: corev1.ResourceList{}}
	if _, err := fmt.Sscanf(node, "%d", &one.NumaNode); err != nil || !ok {
		return fmt.Errorf("failed to parse the NUMA node ID: %q", node)
	}
	for _, pair := range strings.Split(list, ",") {
		name, amount, ok := strings.Cut(pair, "=")
		q, err := resource.ParseQuantity(amount)
		if err != nil || !ok {
			return fmt.Errorf("could not parse resource %q", pair)
		}
		one.Limits[corev1.ResourceName(name)] = q
	}
	*m.to = append(*m.to, one)
	return nil
}
