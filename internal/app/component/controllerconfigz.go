// SPDX-License-Identifier: Apache-2.0

package component

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// configzFields says where upstream's KubeControllerManagerConfiguration has the
// values of flags: section, field (of a field, after a dot), flag.
const configzFields = `
Generic MinResyncPeriod min-resync-period
Generic ClientConnection.kubeconfig kubeconfig
Generic ClientConnection.contentType kube-api-content-type
Generic ClientConnection.qps kube-api-qps
Generic ClientConnection.burst kube-api-burst
Generic ControllerStartInterval controller-start-interval
Generic LeaderElection.leaderElect leader-elect
Generic LeaderElection.leaseDuration leader-elect-lease-duration
Generic LeaderElection.renewDeadline leader-elect-renew-deadline
Generic LeaderElection.retryPeriod leader-elect-retry-period
Generic LeaderElection.resourceLock leader-elect-resource-lock
Generic LeaderElection.resourceName leader-elect-resource-name
Generic LeaderElection.resourceNamespace leader-elect-resource-namespace
Generic Controllers controllers
Generic LeaderMigrationEnabled enable-leader-migration
Generic Debugging.enableProfiling profiling
Generic Debugging.enableContentionProfiling contention-profiling
KubeCloudShared CloudProvider.Name cloud-provider
KubeCloudShared CloudProvider.CloudConfigFile cloud-config
KubeCloudShared UseServiceAccountCredentials use-service-account-credentials
KubeCloudShared RouteReconciliationPeriod route-reconciliation-period
KubeCloudShared AllowUntaggedCloud allow-untagged-cloud
KubeCloudShared ExternalCloudVolumePlugin external-cloud-volume-plugin
KubeCloudShared NodeSyncPeriod node-sync-period
KubeCloudShared ClusterName cluster-name
KubeCloudShared ClusterCIDR cluster-cidr
KubeCloudShared AllocateNodeCIDRs allocate-node-cidrs
KubeCloudShared CIDRAllocatorType cidr-allocator-type
KubeCloudShared ConfigureCloudRoutes configure-cloud-routes
AttachDetachController DisableAttachDetachReconcilerSync disable-attach-detach-reconcile-sync
AttachDetachController ReconcilerSyncLoopPeriod attach-detach-reconcile-sync-period
AttachDetachController disableForceDetachOnTimeout disable-force-detach-on-timeout
CSRSigningController ClusterSigningCertFile cluster-signing-cert-file
CSRSigningController ClusterSigningKeyFile cluster-signing-key-file
CSRSigningController ClusterSigningDuration cluster-signing-duration
CSRSigningController KubeletServingSignerConfiguration.CertFile cluster-signing-kubelet-serving-cert-file
CSRSigningController KubeletServingSignerConfiguration.KeyFile cluster-signing-kubelet-serving-key-file
CSRSigningController KubeletClientSignerConfiguration.CertFile cluster-signing-kubelet-client-cert-file
CSRSigningController KubeletClientSignerConfiguration.KeyFile cluster-signing-kubelet-client-key-file
CSRSigningController KubeAPIServerClientSignerConfiguration.CertFile cluster-signing-kube-apiserver-client-cert-file
CSRSigningController KubeAPIServerClientSignerConfiguration.KeyFile cluster-signing-kube-apiserver-client-key-file
CSRSigningController LegacyUnknownSignerConfiguration.CertFile cluster-signing-legacy-unknown-cert-file
CSRSigningController LegacyUnknownSignerConfiguration.KeyFile cluster-signing-legacy-unknown-key-file
CronJobController ConcurrentCronJobSyncs concurrent-cron-job-syncs
DaemonSetController ConcurrentDaemonSetSyncs concurrent-daemonset-syncs
DeploymentController ConcurrentDeploymentSyncs concurrent-deployment-syncs
DisruptionController ConcurrentDisruptionSyncs concurrent-disruption-syncs
DeviceTaintEvictionController ConcurrentSyncs concurrent-device-taint-eviction-syncs
EndpointController ConcurrentEndpointSyncs concurrent-endpoint-syncs
EndpointController EndpointUpdatesBatchPeriod endpoint-updates-batch-period
EndpointSliceController ConcurrentServiceEndpointSyncs concurrent-service-endpoint-syncs
EndpointSliceController MaxEndpointsPerSlice max-endpoints-per-slice
EndpointSliceController EndpointUpdatesBatchPeriod endpointslice-updates-batch-period
EndpointSliceMirroringController MirroringConcurrentServiceEndpointSyncs mirroring-concurrent-service-endpoint-syncs
EndpointSliceMirroringController MirroringMaxEndpointsPerSubset mirroring-max-endpoints-per-subset
EndpointSliceMirroringController MirroringEndpointUpdatesBatchPeriod mirroring-endpointslice-updates-batch-period
EphemeralVolumeController ConcurrentEphemeralVolumeSyncs concurrent-ephemeralvolume-syncs
GarbageCollectorController EnableGarbageCollector enable-garbage-collector
GarbageCollectorController ConcurrentGCSyncs concurrent-gc-syncs
HPAController ConcurrentHorizontalPodAutoscalerSyncs concurrent-horizontal-pod-autoscaler-syncs
HPAController HorizontalPodAutoscalerSyncPeriod horizontal-pod-autoscaler-sync-period
HPAController HorizontalPodAutoscalerDownscaleStabilizationWindow horizontal-pod-autoscaler-downscale-stabilization
HPAController HorizontalPodAutoscalerTolerance horizontal-pod-autoscaler-tolerance
HPAController HorizontalPodAutoscalerCPUInitializationPeriod horizontal-pod-autoscaler-cpu-initialization-period
HPAController HorizontalPodAutoscalerInitialReadinessDelay horizontal-pod-autoscaler-initial-readiness-delay
JobController ConcurrentJobSyncs concurrent-job-syncs
LegacySATokenCleaner CleanUpPeriod legacy-service-account-token-clean-up-period
NamespaceController NamespaceSyncPeriod namespace-sync-period
NamespaceController ConcurrentNamespaceSyncs concurrent-namespace-syncs
NodeIPAMController ServiceCIDR service-cluster-ip-range
NodeIPAMController NodeCIDRMaskSize node-cidr-mask-size
NodeIPAMController NodeCIDRMaskSizeIPv4 node-cidr-mask-size-ipv4
NodeIPAMController NodeCIDRMaskSizeIPv6 node-cidr-mask-size-ipv6
NodeLifecycleController NodeMonitorPeriod node-monitor-period
NodeLifecycleController NodeEvictionRate node-eviction-rate
NodeLifecycleController SecondaryNodeEvictionRate secondary-node-eviction-rate
NodeLifecycleController NodeStartupGracePeriod node-startup-grace-period
NodeLifecycleController NodeMonitorGracePeriod node-monitor-grace-period
NodeLifecycleController LargeClusterSizeThreshold large-cluster-size-threshold
NodeLifecycleController UnhealthyZoneThreshold unhealthy-zone-threshold
PersistentVolumeBinderController PVClaimBinderSyncPeriod pvclaimbinder-sync-period
PersistentVolumeBinderController VolumeConfiguration.EnableDynamicProvisioning enable-dynamic-provisioning
PersistentVolumeBinderController VolumeConfiguration.FlexVolumePluginDir flex-volume-plugin-dir
PersistentVolumeBinderController VolumeConfiguration.EnableHostPathProvisioning enable-hostpath-provisioner
PodGCController TerminatedPodGCThreshold terminated-pod-gc-threshold
ReplicaSetController ConcurrentRSSyncs concurrent-replicaset-syncs
ReplicationController ConcurrentRCSyncs concurrent-rc-syncs
ResourceClaimController ConcurrentSyncs concurrent-resourceclaim-syncs
ResourceQuotaController ResourceQuotaSyncPeriod resource-quota-sync-period
ResourceQuotaController ConcurrentResourceQuotaSyncs concurrent-resource-quota-syncs
SAController ServiceAccountKeyFile service-account-private-key-file
SAController ConcurrentSATokenSyncs concurrent-serviceaccount-token-syncs
SAController RootCAFile root-ca-file
StatefulSetController ConcurrentStatefulSetSyncs concurrent-statefulset-syncs
TTLAfterFinishedController ConcurrentTTLSyncs concurrent-ttl-after-finished-syncs
ValidatingAdmissionPolicyStatusController ConcurrentPolicySyncs concurrent-validating-admission-policy-status-syncs
`

// controllerConfigz is the configuration as /configz shows it.
func controllerConfigz(fs *pflag.FlagSet) map[string]any {
	config := map[string]any{"kind": "KubeControllerManagerConfiguration", "apiVersion": "kubecontrollermanager.config.k8s.io/v1alpha1",
		// Not the flags' values, with upstream neither: these are of a port that is no more.
		"Generic": map[string]any{"Address": "0.0.0.0", "Port": 0}}
	for line := range strings.SplitSeq(strings.TrimSpace(configzFields), "\n") {
		words := strings.Fields(line)
		section, path, flag := words[0], strings.Split(words[1], "."), fs.Lookup(words[2])
		if flag == nil {
			continue
		}
		if config[section] == nil {
			config[section] = map[string]any{}
		}
		at := config[section].(map[string]any)
		for _, name := range path[:len(path)-1] {
			if at[name] == nil {
				at[name] = map[string]any{}
			}
			at = at[name].(map[string]any)
		}
		at[path[len(path)-1]] = flagValue(flag, words[2])
	}
	return map[string]any{"kubecontrollermanager.config.k8s.io": config}
}

// flagValue returns a flag's value as JSON has it.
func flagValue(f *pflag.Flag, name string) any {
	text := f.Value.String()
	if list, ok := f.Value.(pflag.SliceValue); ok {
		if name == "cluster-cidr" {
			return strings.Join(list.GetSlice(), ",")
		}
		return list.GetSlice()
	}
	switch f.Value.Type() {
	case "bool":
		return text == "true"
	case "int", "int32", "float64", "float32":
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return n
		}
	case "duration":
		if d, err := time.ParseDuration(text); err == nil {
			return d.String()
		}
	}
	return text
}

// serveConfigz answers with a configuration.
func serveConfigz(config map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(config) // a client that left is no concern
	}
}
