// SPDX-License-Identifier: Apache-2.0

package component

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	cliflag "k8s.io/component-base/cli/flag"

	"kaji/internal/controller/autoscaler"
	"kaji/internal/controller/endpointslice"
	"kaji/internal/controller/endpointslicemirroring"
	"kaji/internal/controller/legacytoken"
	"kaji/internal/controller/nodelifecycle"
	"kaji/internal/controller/volumebinder"
	"kaji/internal/scheduler/flags"
)

// ControllerOptions are kube-controller-manager's flags.
type ControllerOptions struct {
	Master, Kubeconfig string
	// Controllers selects what runs: names, "-name" for not that one, "*" for
	// all that run by default.
	Controllers           []string
	UseAccountCredentials bool
	AllocateNodeCIDRs     bool
	ClusterCIDRs          []string
	NodeMask              int
	NodeMaskIPv4          int
	NodeMaskIPv6          int
	RootCAFile            string
	ServiceAccountKeyFile string
	SigningCertFile       string
	SigningKeyFile        string
	SigningDuration       time.Duration
	// signers are the files of single signers, in place of SigningCertFile.
	signers           map[string]*signingFiles
	LegacyTokenPeriod time.Duration
	NoForceDetach     bool
	Autoscaling       autoscaler.Settings
	EndpointsPerSlice int
	MirroredPerSubset int
	EndpointsBatch    time.Duration
	SliceBatch        time.Duration
	MirrorBatch       time.Duration
	ServiceCIDRs      []string
	Provisioning      bool
	HostPath, NFS     recycling
	StartInterval     time.Duration
	ShutdownTimeout   time.Duration
	Contention        bool
	QuotaPeriod       time.Duration
	API               apiConnection
	EnableGC          bool
	Nodes             nodelifecycle.Config
	EndedPods         int
	Profiling         bool
	Verbosity         int
	LoggingFormat     string
	FeatureGates      map[string]bool
	given             *pflag.FlagSet // the flags, once they are defined

	Serving        flags.Serving
	Metrics        flags.Metrics
	Authentication flags.Authentication
	LeaderElection flags.LeaderElection
}

// signingFiles are an authority's files.
type signingFiles struct{ cert, key string }

// signerFlags names the signers in flags.
var signerFlags = map[string]string{
	"kube-apiserver-client": certificatesv1.KubeAPIServerClientSignerName, "kubelet-client": certificatesv1.KubeAPIServerClientKubeletSignerName,
	"kubelet-serving": certificatesv1.KubeletServingSignerName, "legacy-unknown": certificatesv1beta1.LegacyUnknownSignerName,
}

// signerFiles returns the files by signer, without any where flags were not
// given.
func (o *ControllerOptions) signerFiles() map[string]signingFiles {
	out := map[string]signingFiles{}
	for _, signer := range signerFlags {
		out[signer] = signingFiles{}
		if files := o.signers[signer]; files != nil {
			out[signer] = *files
		}
	}
	return out
}

// AddFlags defines every flag that upstream's binary takes.
func (o *ControllerOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Master, "master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig).")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "Path to kubeconfig file with authorization and master location information.")
	fs.StringSliceVar(&o.Controllers, "controllers", []string{"*"}, "Controllers to run: '*' is all that run by default, 'foo' runs foo, '-foo' does not.")
	fs.BoolVar(&o.UseAccountCredentials, "use-service-account-credentials", false, "Give each controller the credentials of its own service account.")
	fs.BoolVar(&o.AllocateNodeCIDRs, "allocate-node-cidrs", false, "Give nodes parts of --cluster-cidr for their pods.")
	fs.StringSliceVar(&o.ClusterCIDRs, "cluster-cidr", nil, "Ranges of pod addresses, one of each family at most; needs --allocate-node-cidrs.")
	fs.IntVar(&o.NodeMask, "node-cidr-mask-size", 0, "Mask size of a node's range; 24 for IPv4, 64 for IPv6 when zero.")
	fs.IntVar(&o.NodeMaskIPv4, "node-cidr-mask-size-ipv4", 0, "Mask size of a node's IPv4 range; 24 when zero.")
	fs.IntVar(&o.NodeMaskIPv6, "node-cidr-mask-size-ipv6", 0, "Mask size of a node's IPv6 range; 64 when zero.")
	fs.StringVar(&o.RootCAFile, "root-ca-file", "", "File with the authorities that pods trust the API server by.")
	fs.StringVar(&o.ServiceAccountKeyFile, "service-account-private-key-file", "", "File with the private key that signs service account tokens.")
	fs.StringVar(&o.SigningCertFile, "cluster-signing-cert-file", "", "File with the certificate of the authority that signs requests.")
	fs.StringVar(&o.SigningKeyFile, "cluster-signing-key-file", "", "File with the key of --cluster-signing-cert-file.")
	o.signers = map[string]*signingFiles{}
	for name, signer := range signerFlags {
		files := &signingFiles{}
		o.signers[signer] = files
		fs.StringVar(&files.cert, "cluster-signing-"+name+"-cert-file", "", "File with the certificate of the authority that signs for "+signer+".")
		fs.StringVar(&files.key, "cluster-signing-"+name+"-key-file", "", "File with the key of the authority that signs for "+signer+".")
	}
	fs.DurationVar(&o.SigningDuration, "cluster-signing-duration", 365*24*time.Hour, "The longest life of signed certificates.")
	fs.DurationVar(&o.LegacyTokenPeriod, "legacy-service-account-token-clean-up-period", legacytoken.DefaultPeriod, "How long a token that is kept in a Secret is not used before it becomes invalid, and then before it is deleted.")
	fs.BoolVar(&o.NoForceDetach, "disable-force-detach-on-timeout", false, "Keep volumes attached to nodes that are not ready and still have them mounted, instead of detaching them after six minutes.")
	a := &o.Autoscaling
	*a = autoscaler.Defaults()
	fs.DurationVar(&a.Period, "horizontal-pod-autoscaler-sync-period", a.Period, "How often autoscalers look at their metrics.")
	fs.Float64Var(&a.Tolerance, "horizontal-pod-autoscaler-tolerance", a.Tolerance, "How far a ratio may be from one without a change.")
	fs.DurationVar(&a.DownscaleStabilization, "horizontal-pod-autoscaler-downscale-stabilization", a.DownscaleStabilization, "How long a higher recommendation counts before a target shrinks.")
	fs.DurationVar(&a.CPUInitialization, "horizontal-pod-autoscaler-cpu-initialization-period", a.CPUInitialization, "How long a young pod's use of the processor counts only while it is ready.")
	fs.DurationVar(&a.InitialReadiness, "horizontal-pod-autoscaler-initial-readiness-delay", a.InitialReadiness, "How soon after its start a pod's first unreadiness is not yet a fact about it.")
	fs.IntVar(&o.EndpointsPerSlice, "max-endpoints-per-slice", endpointslice.DefaultMax, "How many endpoints an EndpointSlice holds, 1 to 1000.")
	fs.IntVar(&o.MirroredPerSubset, "mirroring-max-endpoints-per-subset", endpointslicemirroring.DefaultMax, "How many addresses of a subset of Endpoints are mirrored, 1 to 1000.")
	const batch = "How long changes wait for others before %s are written."
	fs.DurationVar(&o.EndpointsBatch, "endpoint-updates-batch-period", 0, fmt.Sprintf(batch, "Endpoints"))
	fs.DurationVar(&o.SliceBatch, "endpointslice-updates-batch-period", 0, fmt.Sprintf(batch, "EndpointSlices"))
	fs.DurationVar(&o.MirrorBatch, "mirroring-endpointslice-updates-batch-period", 0, fmt.Sprintf(batch, "mirrored EndpointSlices"))
	fs.StringSliceVar(&o.ServiceCIDRs, "service-cluster-ip-range", nil, "Ranges of Services' addresses, of which nodes get no part; needs --allocate-node-cidrs.")
	fs.BoolVar(&o.Provisioning, "enable-dynamic-provisioning", true, "Ask provisioners for volumes.")
	o.HostPath.addFlags(fs, "hostpath", "pv-recycler-timeout-increment-hostpath", volumebinder.DefaultHostPath)
	o.NFS.addFlags(fs, "nfs", "pv-recycler-increment-timeout-nfs", volumebinder.DefaultNFS)
	fs.DurationVar(&o.StartInterval, "controller-start-interval", 0, "How long to wait between the starts of two controllers.")
	fs.DurationVar(&o.ShutdownTimeout, "controller-shutdown-timeout", 10*time.Second, "How long to wait for the controllers to end before the process does.")
	fs.BoolVar(&o.Contention, "contention-profiling", false, "Profile who holds up whom, if --profiling serves profiles.")
	o.API.addFlags(fs)
	fs.DurationVar(&o.QuotaPeriod, "resource-quota-sync-period", 5*time.Minute, "How often all quotas are counted afresh.")
	fs.BoolVar(&o.EnableGC, "enable-garbage-collector", true, "Collect garbage; must be the API server's value of the same flag.")
	fs.DurationVar(&o.Nodes.MonitorPeriod, "node-monitor-period", 5*time.Second, "How often the nodes' health is looked at.")
	fs.DurationVar(&o.Nodes.MonitorGrace, "node-monitor-grace-period", 50*time.Second, "How long a running node may be silent before it is unhealthy.")
	fs.DurationVar(&o.Nodes.StartupGrace, "node-startup-grace-period", time.Minute, "How long a starting node may be silent before it is unhealthy.")
	fs.Float64Var(&o.Nodes.EvictionRate, "node-eviction-rate", 0.1, "Nodes a second whose pods are evicted in a healthy zone.")
	fs.Float64Var(&o.Nodes.SecondaryRate, "secondary-node-eviction-rate", 0.01, "Nodes a second whose pods are evicted in an unhealthy, large zone.")
	fs.IntVar(&o.Nodes.LargeZone, "large-cluster-size-threshold", 50, "More nodes than that make a zone large.")
	fs.Float64Var(&o.Nodes.UnhealthyZone, "unhealthy-zone-threshold", 0.55, "The part of not ready nodes, three at least, that makes a zone unhealthy.")
	fs.IntVar(&o.EndedPods, "terminated-pod-gc-threshold", 12500, "How many pods that ended are kept; all when not above zero.")
	fs.BoolVar(&o.Profiling, "profiling", true, "Serve /debug/pprof/.")
	fs.IntVarP(&o.Verbosity, "v", "v", 0, "Number for the log level verbosity.")
	fs.StringVar(&o.LoggingFormat, "logging-format", "text", "The log format: text or json.")
	o.Serving.AddFlags(fs, 10257)
	o.Authentication.AddFlags(fs)
	o.Metrics.AddFlags(fs)
	o.LeaderElection.AddFlags(fs, "kube-controller-manager")
	for _, w := range workerFlags {
		fs.Int(w.flag, w.upstream, "How many workers the controller has.")
	}
	fs.Var(cliflag.NewMapStringBool(&o.FeatureGates), "feature-gates", "Features by name, true or false: those with a controller of their own turn it off.")
	for _, f := range unused {
		define(fs, f.name, f.value)
	}
	o.given = fs
}

// workerFlags are the flags that say how many workers a controller has, with the
// names of their queues. Without the flag a controller has as many as suit it.
var workerFlags = []struct {
	flag, queue string
	upstream    int
}{
	{"concurrent-cron-job-syncs", "cronjob", 5},
	{"concurrent-daemonset-syncs", "daemonset", 2},
	{"concurrent-deployment-syncs", "deployment", 5},
	{"concurrent-device-taint-eviction-syncs", "device-taint-eviction-controller", 8},
	{"concurrent-disruption-syncs", "disruption", 1},
	{"concurrent-endpoint-syncs", "endpoint", 5},
	{"concurrent-ephemeralvolume-syncs", "ephemeral_volume", 5},
	{"concurrent-gc-syncs", "garbage_collector_attempt_to_delete", 20},
	{"concurrent-horizontal-pod-autoscaler-syncs", "horizontalpodautoscaler", 5},
	{"concurrent-job-syncs", "job", 5},
	{"concurrent-namespace-syncs", "namespace", 10},
	{"concurrent-rc-syncs", "replicationmanager", 5},
	{"concurrent-replicaset-syncs", "replicaset", 5},
	{"concurrent-resourceclaim-syncs", "resource_claim", 50},
	{"concurrent-resource-quota-syncs", "resourcequota_primary", 5},
	{"concurrent-service-endpoint-syncs", "endpoint_slice", 5},
	{"concurrent-service-syncs", "service", 1},
	{"concurrent-serviceaccount-token-syncs", "serviceaccount_tokens_service", 5},
	{"concurrent-statefulset-syncs", "statefulset", 5},
	{"concurrent-ttl-after-finished-syncs", "ttl_jobs_to_delete", 5},
	{"concurrent-validating-admission-policy-status-syncs", "validatingadmissionpolicy_status", 5},
	{"mirroring-concurrent-service-endpoint-syncs", "endpoint_slice_mirroring", 5},
}

// gates are the features that whole controllers stand behind.
var gates = map[string]string{
	"DRADeviceTaints": "device-taint-eviction-controller", "PodCertificateRequest": "podcertificaterequest-cleaner-controller",
	"ClusterTrustBundle": "kube-apiserver-serving-clustertrustbundle-publisher-controller", "VolumeAttributesClass": "volumeattributesclass-protection-controller",
	"SeparateTaintEvictionController": "taint-eviction-controller", "StorageVersionMigrator": "storage-version-migrator-controller",
}

// unused are flags that are taken, so that manifests written for upstream's
// binary work, and that change nothing: kaji's controllers are woken by events
// and need no periods of looking at everything again, the flag is without effect
// in upstream's, too, or what it is about (migration of leaders, emulation of
// other versions, plug-ins of former days) is not there.
var unused = []struct {
	name  string
	value any
}{
	{"attach-detach-reconcile-sync-period", time.Minute}, {"disable-attach-detach-reconcile-sync", false},
	{"allow-untagged-cloud", false}, {"node-sync-period", time.Duration(0)}, {"cidr-allocator-type", "RangeAllocator"}, {"cloud-config", ""}, {"cloud-provider", ""}, {"cluster-name", "kubernetes"}, {"configure-cloud-routes", true},

	{"emulated-version", ""}, {"enable-leader-migration", false}, {"leader-migration-config", ""},
	{"emulation-forward-compatible", false}, {"min-compatibility-version", ""}, {"coordinated-leader-election", false}, {"runtime-config-emulation-forward-compatible", false},
	{"enable-hostpath-provisioner", false},
	{"external-cloud-volume-plugin", ""}, {"flex-volume-plugin-dir", ""},

	{"log-flush-frequency", 5 * time.Second},
	{"log-json-info-buffer-size", ""}, {"log-json-split-stream", false}, {"log-text-info-buffer-size", ""}, {"log-text-split-stream", false}, {"vmodule", ""},
	{"min-resync-period", 12 * time.Hour},
	{"namespace-sync-period", 5 * time.Minute},
	{"pvclaimbinder-sync-period", 15 * time.Second}, {"route-reconciliation-period", 10 * time.Second},
}

func define(fs *pflag.FlagSet, name string, value any) {
	const usage = "Accepted and without effect."
	switch v := value.(type) {
	case string:
		fs.String(name, v, usage)
	case bool:
		fs.Bool(name, v, usage)
	case int:
		fs.Int(name, v, usage)
	case float64:
		fs.Float64(name, v, usage)
	case time.Duration:
		fs.Duration(name, v, usage)
	}
}
