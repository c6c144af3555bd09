// SPDX-License-Identifier: Apache-2.0

// Package kubelet is the node agent: it keeps this machine's Node object, runs
// the pods bound to it through a container runtime, and reports how they fare.
// It meets the rest of the cluster only at the API server.
//
// The way of a pod: source tells of it, admit decides whether the node takes
// it, podworker gives it a worker, whose steps (sync.go) make its volumes ready
// (volume), bring the runtime to what it asks for (podrun, with image and
// compose), have it probed (probe) and tell the API server (status). Events of
// the runtime (actual) and verdicts of probes wake the worker. Only what nobody
// tells of is looked for (housekeeping.go): logs, images, claims that have grown.
// Devices and processors are handed out by devicemanager and cpumanager, whose
// hints topologymanager brings together before a pod is admitted; dra has the
// drivers of claims prepare them.
package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfigv1 "k8s.io/kubelet/config/v1"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
	registrationv1 "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/cpuset"

	"kaji/internal/client"
	"kaji/internal/cri"
	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/admit"
	"kaji/internal/kubelet/cgroup"
	"kaji/internal/kubelet/compose"
	"kaji/internal/kubelet/cpumanager"
	"kaji/internal/kubelet/credentialprovider"
	"kaji/internal/kubelet/devicemanager"
	"kaji/internal/kubelet/dra"
	"kaji/internal/kubelet/evict"
	"kaji/internal/kubelet/image"
	"kaji/internal/kubelet/memorymanager"
	"kaji/internal/kubelet/meter"
	"kaji/internal/kubelet/node"
	"kaji/internal/kubelet/object"
	"kaji/internal/kubelet/oom"
	"kaji/internal/kubelet/plugin"
	"kaji/internal/kubelet/podcert"
	"kaji/internal/kubelet/podresources"
	"kaji/internal/kubelet/podrun"
	"kaji/internal/kubelet/podsapi"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/podworker"
	"kaji/internal/kubelet/probe"
	"kaji/internal/kubelet/shutdown"
	"kaji/internal/kubelet/source"
	"kaji/internal/kubelet/stats"
	"kaji/internal/kubelet/status"
	"kaji/internal/kubelet/topologymanager"
	"kaji/internal/kubelet/userns"
	"kaji/internal/kubelet/volume"
	"kaji/internal/kubelet/volume/csi"
	"kaji/internal/podnet"
)

// Config is what a Kubelet is made of. NodeName, Client, Runtime, Images and
// RootDir are required; the zero value of the others is upstream's default.
type Config struct {
	NodeName string
	Client   client.Interface
	Runtime  cri.Runtime
	Images   cri.Images
	// Network is told the node's pod address ranges; nil where the runtime
	// learns them by itself.
	Network podnet.Network
	// RootDir holds everything about pods: "/var/lib/kubelet".
	RootDir string
	// LogDir is where containers' logs go: "/var/log/pods". LegacyLogDir has
	// links with the old names, "/var/log/containers"; "-" means none.
	LogDir, LegacyLogDir string

	ClusterDNS    []netip.Addr
	ClusterDomain string
	// ResolvConf is the host's resolver configuration: "/etc/resolv.conf".
	ResolvConf string

	NodeIPs       []netip.Addr
	Hostname      string
	NodeLabels    map[string]string
	Taints        []corev1.Taint
	ProviderID    string
	ExternalCloud bool
	// Port is that of the server, as the Node object tells it.
	Port int32
	// Version is this program's, as the Node object tells it: "v1.37.2".
	Version string
	// MaxPods is 110 where it is zero.
	MaxPods int
	// Reserved is kept from pods, besides what the hard eviction thresholds keep.
	Reserved corev1.ResourceList
	// Unbound lets pods together use what is reserved, too, if they get hold of it.
	Unbound bool
	// Reservations are groups that are held to what is reserved for them.
	Reservations []Reservation
	// CPUManagerPolicy is "static" or "none", its options upstream's. No container
	// gets ReservedCPUs for itself; empty means as many as Reserved has.
	CPUManagerPolicy  string
	CPUManagerOptions map[string]string
	ReservedCPUs      cpuset.CPUSet
	// MemoryManagerPolicy is "Static" or "None"; ReservedMemory is what no container
	// gets, node by node.
	MemoryManagerPolicy string
	ReservedMemory      []configv1beta1.MemoryReservation
	// TopologyPolicy, TopologyScope and TopologyOptions are the topology manager's.
	TopologyPolicy, TopologyScope string
	TopologyOptions               map[string]string
	// ShutdownGroups are the times that pods get when the machine goes down, as
	// logind tells; none leaves pods to their fate.
	ShutdownGroups []shutdown.Group
	// NoRegister leaves it to others to make the Node object.
	NoRegister bool
	// Beat, Report and LeaseDuration are those of the Node's status and Lease;
	// zero means 10 s, 5 min and 40 s.
	Beat, Report, LeaseDuration time.Duration

	// StaticPodPath is a file or a directory of static pods, StaticPodURL where
	// they are asked for with StaticPodHeader.
	StaticPodPath, StaticPodURL string
	StaticPodHeader             http.Header
	// StaticPodCheck and StaticPodURLCheck are how often they are looked at even if
	// nothing tells of changes; zero means 20 s.
	StaticPodCheck, StaticPodURLCheck time.Duration

	// AllowedUnsafeSysctls are names or prefixes with a star.
	AllowedUnsafeSysctls []string
	SeccompDefault       bool
	NoCPUQuota           bool
	// CPUPeriod is the period of CPU quotas; zero means 100 ms.
	CPUPeriod time.Duration
	// LimitedSwap lets burstable pods swap; KillOneProcess lets single processes
	// of a container end when it is out of memory, which is the only way of
	// version 1 of control groups.
	LimitedSwap, KillOneProcess bool
	// MemoryQoS says how requests and limits of memory count with version 2 of
	// control groups; NoMemoryQoS that they do not.
	MemoryQoS   cgroup.MemoryQoS
	NoMemoryQoS bool
	// SerialImagePulls pulls one image at a time; MaxParallelImagePulls bounds
	// parallel ones, zero is no bound.
	SerialImagePulls      bool
	MaxParallelImagePulls int
	// RegistryQPS and RegistryBurst bound how many pulls begin a second, EventQPS and
	// EventBurst how many events are written; a QPS of zero is no bound.
	RegistryQPS, EventQPS     float32
	RegistryBurst, EventBurst int
	// ImageVerification says when pods show that they may have images that are there
	// (KEP-2535), ImageAllowlist names images that need no proof; empty is never.
	ImageVerification configv1beta1.ImagePullCredentialsVerificationPolicy
	ImageAllowlist    []string
	// ListedImages is how many images the Node object shows: nil means 50, a
	// negative number all.
	ListedImages *int32
	// MaxContainerBackOff caps the delay of restarts; zero means 5 min.
	MaxContainerBackOff time.Duration
	// ImageGC says when images are removed; zero is upstream's default.
	ImageGC image.Policy
	// LogMaxSize and LogMaxFiles bound the logs of a container; zero means
	// 10 MiB and 5.
	LogMaxSize  int64
	LogMaxFiles int
	// LogCheck is how often logs are looked at, LogWorkers how many at a time; zero
	// means 10 s and 1.
	LogCheck   time.Duration
	LogWorkers int
	// VolumeCheck is how long the size of a volume is taken to be what it was; zero
	// means a minute, a negative time leaves volumes unmeasured.
	VolumeCheck time.Duration
	// VolumeHealth has CSI drivers asked what is wrong with volumes, and pods' statuses
	// tell it, as often as VolumeCheck (CSIVolumeHealth).
	VolumeHealth bool
	// Rebind is how often containers are looked at that run on other processors than
	// they should; zero means 10 s.
	Rebind time.Duration
	// RuntimeTimeout bounds requests to the runtime but pulls and what runs in
	// containers; zero is no bound.
	RuntimeTimeout time.Duration
	// IDsPerPod is how many ids a pod with a user namespace has, a multiple of 65536;
	// zero means that.
	IDsPerPod uint32
	// NoLocalStorage leaves ephemeral storage out of what the node has to give and
	// of what pods are evicted for.
	NoLocalStorage bool
	// PodCIDR is the range of pods where no Node object tells of one.
	PodCIDR string
	// DefaultSysctls are those of pods that do not say otherwise.
	DefaultSysctls map[string]string
	// Eviction are the thresholds; nil means evict.Defaults, an empty list none.
	Eviction []evict.Threshold
	// EvictionCheck is how often the node is looked at; zero means 10 s.
	EvictionCheck time.Duration
	// EvictionMaxGrace bounds the grace of pods at soft thresholds,
	// EvictionTransition is how long pressure is shown after it ended.
	EvictionMaxGrace, EvictionTransition time.Duration
	// CredentialProviders are plug-ins that know logins at registries, tried after
	// the pod's own; their programs lie in CredentialProviderDir.
	CredentialProviders   []kubeletconfigv1.CredentialProvider
	CredentialProviderDir string

	// Listener is where the server answers, TLS included; nil serves nothing
	// (Handler is there for others to serve). Authenticator and Authorizer are
	// asked about each request; both nil lets everybody in.
	Listener net.Listener
	// NoSystemLogs leaves out /logs/; SystemLogQuery lets it be asked for the logs
	// of services.
	NoSystemLogs    bool
	SystemLogQuery  bool
	Authenticator   authenticator.Request
	Authorizer      authorizer.UnconditionalAuthorizer
	NoDebugHandlers bool
	Profiling       bool
	// Settings are what /configz shows; Pages are served besides, by their paths.
	Settings any
	Pages    map[string]http.Handler

	// Cgroups keeps the tree of control groups of pods; nil leaves groups to
	// the runtime.
	Cgroups *cgroup.Config
	// KubeletCgroup, RuntimeCgroup and SystemCgroup are groups whose use is told
	// besides that of pods; an empty KubeletCgroup is the agent's own, the others none.
	KubeletCgroup, RuntimeCgroup, SystemCgroup string

	Machine *node.Machine // read from the system where nil
	// Mounter is replaced in tests.
	Mounter volume.Mounter
	Logger  *slog.Logger
}

// Kubelet is a node agent.
type Kubelet struct {
	cfg      Config
	log      *slog.Logger
	recorder record.EventRecorder
	events   record.EventBroadcaster
	runtime  atomic.Pointer[runtimeFacts]
	stopping atomic.Bool
	complete atomic.Bool // all pods are known that the API server has
	first    atomic.Bool // a pod with a network of its own has started
	appArmor bool        // the kernel enforces profiles
	selinux  bool        // the machine labels files

	dns          *compose.DNS
	objects      *object.Cache
	logins       *credentialprovider.Providers
	images       *image.Store
	probes       *probe.Manager
	runner       *podrun.Runner
	statuses     *status.Manager
	volumes      *volume.Manager
	tokens       *tokens
	certificates *podcert.Manager
	ranges       *userns.Ranges
	csi          *csi.Registry
	devices      *devicemanager.Manager
	cpus         *cpumanager.Manager
	memories     *memorymanager.Manager
	topology     *topologymanager.Manager
	rebind       chan struct{}
	claims       *dra.Manager
	plugins      *plugin.Watcher
	pool         *podworker.Pool
	node         *node.Keeper
	meter        *meter.Meter
	stats        *stats.Reader
	cgroups      *cgroup.Tree
	reshare      chan struct{} // see share
	began        time.Time     // when the agent was made
	unbound      error         // why pods as a whole were not limited, see enforce
	evictor      *evict.Manager
	watcher      *actual.Watcher
	shown        *podsapi.Server
	checkpoints  cri.Checkpoints // nil where the runtime makes none

	services client.Typed[*corev1.Service]
	nodes    client.Typed[*corev1.Node]
	pods     client.Typed[*corev1.Pod]

	mu struct {
		sync.Mutex
		mirrors map[types.UID]*corev1.Pod // by the identity of the static pod
		retries map[types.UID]retry
		fails   map[types.UID]status.Reason
		// grants are what pods were given, rejected those that were not taken,
		// pending resizes that were not granted, resizing those under way.
		grants   map[types.UID]admit.Allocation
		rejected map[types.UID]admit.Rejection
		pending  map[types.UID]admit.Rejection
		resizing map[types.UID]bool
		// asked are what pods asked for last, deferred since when resizes wait for room.
		asked    map[types.UID]admit.Allocation
		deferred map[types.UID]time.Time
		// resized says that a resize was granted.
		resized bool
		// health is what is wrong with pods' volumes.
		health map[types.UID][]corev1.PodVolumeHealth
		cidrs  []string
		// seen is when pods were seen first, pulls how long their images took.
		seen  map[types.UID]time.Time
		pulls map[types.UID]time.Duration
		// listing is why the runtime's last listing failed, nil if it did not.
		listing error
		// listedAt is when it was listed last.
		listedAt time.Time
		locks    map[types.UID]*sync.Mutex
	}
}

// New returns a node agent that does nothing before Run.
func New(cfg Config) (*Kubelet, error) {
	if cfg.NodeName == "" || cfg.Client == nil || cfg.Runtime == nil || cfg.Images == nil || cfg.RootDir == "" {
		return nil, fmt.Errorf("kubelet: NodeName, Client, Runtime, Images and RootDir are required")
	}
	defaults(&cfg)
	if cfg.Machine == nil {
		if err := os.MkdirAll(cfg.RootDir, 0o750); err != nil {
			return nil, fmt.Errorf("make the root directory: %w", err)
		}
		machine, err := node.ReadMachine(cfg.RootDir)
		if err != nil {
			return nil, fmt.Errorf("read the machine: %w", err)
		}
		cfg.Machine = &machine
	}
	k := &Kubelet{cfg: cfg, log: cfg.Logger, appArmor: admit.AppArmor("/"), reshare: make(chan struct{}, 1), began: time.Now()}
	k.selinux = labels() != nil
	k.mu.mirrors = map[types.UID]*corev1.Pod{}
	k.mu.retries = map[types.UID]retry{}
	k.mu.fails = map[types.UID]status.Reason{}
	k.mu.grants = map[types.UID]admit.Allocation{}
	k.mu.rejected = map[types.UID]admit.Rejection{}
	k.mu.pending = map[types.UID]admit.Rejection{}
	k.mu.resizing = map[types.UID]bool{}
	k.mu.asked = map[types.UID]admit.Allocation{}
	k.mu.deferred = map[types.UID]time.Time{}
	k.mu.health = map[types.UID][]corev1.PodVolumeHealth{}
	k.mu.seen = map[types.UID]time.Time{}
	k.mu.pulls = map[types.UID]time.Duration{}
	k.mu.locks = map[types.UID]*sync.Mutex{}
	k.runtime.Store(&runtimeFacts{name: "unknown"})
	k.services = client.For[*corev1.Service](cfg.Client)
	k.nodes = client.For[*corev1.Node](cfg.Client).With(client.InformerOptions{FieldSelector: "metadata.name=" + cfg.NodeName})
	k.pods = source.Pods(cfg.Client, cfg.NodeName)

	k.events = record.NewBroadcaster()
	k.recorder = k.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: cfg.NodeName})
	k.meter = meter.New(meter.Gauges{NodeName: cfg.NodeName, Version: cfg.Version, CgroupVersion: cgroupVersion(),
		Pods: func() float64 { return float64(k.running(nil)) }, Containers: func() float64 { return float64(k.running(k.runningContainers)) },
		DesiredPods: func(static bool) float64 { return float64(countStatic(k.pool.Pods(), static)) },
		ActivePods:  func(static bool) float64 { return float64(countStatic(k.others(""), static)) },
		MirrorPods:  func() float64 { return float64(countStatic(k.others(""), true)) }, Ephemeral: k.ephemeral})
	k.meter.Register(moment{k})
	metrics, _ := cfg.Runtime.(cri.Metrics) // what else it may have is not counted
	k.checkpoints, _ = cfg.Runtime.(cri.Checkpoints)
	cfg.Runtime, cfg.Images = k.meter.Runtime(cfg.Runtime, cfg.RuntimeTimeout), k.meter.Images(cfg.Images)
	k.cfg.Runtime, k.cfg.Images = cfg.Runtime, cfg.Images
	k.dns = &compose.DNS{Cluster: cfg.ClusterDNS, Domain: cfg.ClusterDomain, NodeIPs: cfg.NodeIPs,
		HostConfig: func() (io.ReadCloser, error) { return os.Open(cfg.ResolvConf) }}
	k.objects = object.New(object.Config{Client: cfg.Client, Logger: k.log, Changed: func(uid types.UID) { k.pool.Wake(uid) }})
	k.logins = credentialprovider.New(credentialprovider.Config{Providers: cfg.CredentialProviders, Bin: cfg.CredentialProviderDir, Logger: k.log,
		Account: k.account, Token: k.registryToken})
	records, err := imageRecords(cfg)
	if err != nil {
		return nil, err
	}
	parallel := cfg.MaxParallelImagePulls
	if cfg.SerialImagePulls {
		parallel = 1
	}
	k.images = image.New(image.Config{Images: cfg.Images, Recorder: k.recorder, Logger: k.log, Credentials: k.credentials, MaxParallel: parallel,
		QPS: cfg.RegistryQPS, Burst: cfg.RegistryBurst, Listed: cfg.ListedImages, Records: records, Pulled: k.countPull,
		Ensured: func(policy corev1.PullPolicy, present, pulled string) {
			k.meter.ImageRequests.WithLabelValues(strings.ToLower(string(policy)), present, pulled).Inc()
		},
		Collected: func(reason string) { k.meter.ImagesCollected.WithLabelValues(reason).Inc() }})
	if cfg.Cgroups != nil {
		groups := *cfg.Cgroups
		groups.Allocatable, groups.HugePages = bound(cfg), hugePages("/sys/kernel/mm/hugepages")
		groups.Memory, groups.Exclusive = cfg.MemoryQoS, k.exclusive
		tree, err := cgroup.Open(groups)
		if err != nil {
			return nil, fmt.Errorf("control groups: %w", err)
		}
		k.cgroups = tree
	}
	memory := memory(cfg, k.cgroups)
	memory.Allocatable = func() int64 {
		amount := k.node.Allocatable()[corev1.ResourceMemory]
		return amount.Value()
	}
	k.probes = probe.New(probe.Config{Runtime: cfg.Runtime, Recorder: k.recorder, Logger: k.log, Changed: k.changed, Counted: k.countProbe})
	k.runner = podrun.New(podrun.Config{Runtime: cfg.Runtime, Host: (*host)(k), Probes: k.probes, Recorder: k.recorder, Logger: k.log,
		LogDir: cfg.LogDir, LegacyLogDir: cfg.LegacyLogDir, SeccompRoot: filepath.Join(cfg.RootDir, "seccomp"),
		SeccompDefault: cfg.SeccompDefault, Sysctls: cfg.DefaultSysctls, NoCPUQuota: cfg.NoCPUQuota, CPUPeriod: cfg.CPUPeriod, Memory: memory, MaxBackOff: cfg.MaxContainerBackOff, Counted: k.countStart, FellBack: k.meter.Fallbacks.Inc,
		Exclusive: func(pod types.UID, container string) bool { return len(k.cpus.Exclusive(pod, container)) > 0 }})
	k.shown = podsapi.New(podsapi.Config{Dir: filepath.Join(cfg.RootDir, "pods-api"), Pods: func() []*corev1.Pod { return (*served)(k).Pods() },
		Ready: k.complete.Load, Counted: k.countPods, Dropped: func() { k.meter.PodEventsDropped.Inc() }})
	k.statuses = status.NewManager(status.ManagerConfig{Client: cfg.Client, Logger: k.log, Pod: k.apiPod,
		Changed: func(pod *corev1.Pod, s corev1.PodStatus, first bool) {
			shown := *pod
			shown.Status = s
			k.shown.Changed(&shown, first)
		},
		Took: func(took time.Duration) { k.meter.StatusSync.Observe(took.Seconds()) }})
	k.tokens = newTokens(cfg.Client)
	k.certificates = podcert.New(podcert.Config{Client: cfg.Client, NodeName: cfg.NodeName, Recorder: k.recorder,
		NodeUID: func() (types.UID, error) {
			n, err := k.nodes.Cached("", cfg.NodeName)
			if err != nil {
				return "", err
			}
			return n.UID, nil
		}})
	k.ranges = userns.New(filepath.Join(cfg.RootDir, "pods"), cfg.MaxPods, cfg.IDsPerPod)
	k.csi = &csi.Registry{Client: cfg.Client, NodeName: cfg.NodeName, Took: func(driver, method, code string, took time.Duration) {
		k.meter.CSICalls.WithLabelValues(driver, method, code, "false").Observe(took.Seconds())
	}}
	k.plugins = &plugin.Watcher{Dir: filepath.Join(cfg.RootDir, "plugins_registry"), Logger: k.log,
		Handlers: map[string]plugin.Handler{registrationv1.CSIPlugin: k.csi}}
	k.volumes = volume.NewManager(volume.ManagerConfig{PodsDir: filepath.Join(cfg.RootDir, "pods"), Client: cfg.Client, Logger: k.log, Drivers: k.drivers(), Resized: k.resizedVolume,
		Label: labels(), Took: k.countVolume, Warn: func(pod *corev1.Pod, reason, message string) {
			k.recorder.Event(podrun.Reference(pod), corev1.EventTypeWarning, reason, message)
		}})
	if err := k.resources(); err != nil {
		return nil, err
	}
	k.plugins.Handlers[registrationv1.DevicePlugin] = k.devices
	k.claims = dra.New(dra.Config{Client: cfg.Client, Path: filepath.Join(cfg.RootDir, "dra_manager_state.json"), Logger: k.log,
		Took: func(driver, method, code string, took time.Duration) {
			k.meter.ClaimCalls.WithLabelValues(driver, method, code).Observe(took.Seconds())
		}})
	k.plugins.Handlers[registrationv1.DRAPlugin] = k.claims
	k.pool = podworker.New(podworker.Config{Syncer: (*syncer)(k), Logger: k.log, Back: func(pod *corev1.Pod) {
		static := ""
		if podspec.Static(pod) {
			static = "true"
		}
		k.meter.Restarted.WithLabelValues(static).Inc()
		(*sinkOf)(k).Add(pod)
	}})
	k.node = node.New(node.Config{
		Name: cfg.NodeName, Client: cfg.Client, Node: k.nodeObject, Recorder: k.recorder, Logger: k.log,
		Addresses: cfg.NodeIPs, Hostname: cfg.Hostname, Labels: cfg.NodeLabels, Taints: cfg.Taints, ProviderID: cfg.ProviderID,
		ExternalCloud: cfg.ExternalCloud, Port: cfg.Port, Machine: *cfg.Machine, Version: cfg.Version, Reserved: reserved(cfg),
		NoRegister: cfg.NoRegister, Beat: cfg.Beat, Report: cfg.Report, LeaseDuration: cfg.LeaseDuration,
		Registered: k.nodeChanged, Resources: k.capacity, Fresh: k.devices.Fresh(), Runtime: k.askRuntime, Images: k.images.List, Pressure: k.pressure,
		Notices: k.notices, Startup: k.countStartup,
	})
	k.stats = stats.New(stats.Config{NodeName: cfg.NodeName, Runtime: cfg.Runtime, Metrics: metrics, Group: k.groupOf, Images: cfg.Images, RootDir: cfg.RootDir, LogDir: cfg.LogDir, System: k.systemUse, DiskKeep: cfg.VolumeCheck,
		Machine: *cfg.Machine, Logger: k.log, Pods: func() []*corev1.Pod { return (*served)(k).Pods() },
		Volume: func(pod *corev1.Pod, name string) string {
			mounted, _ := k.volumes.Mounted(pod.UID, name)
			return mounted.Path
		}})
	k.evictor = evict.New(evict.Config{Thresholds: k.thresholds(), Observe: k.observe, Pods: k.activePods, Use: k.use, Evict: k.evict, Reclaim: k.reclaim, Met: k.thresholdMet,
		Changed: func() { k.node.Wake() }, Logger: k.log, Interval: cfg.EvictionCheck, Transition: cfg.EvictionTransition, MaxGrace: cfg.EvictionMaxGrace,
		NoLimits: cfg.NoLocalStorage, Aged: func(s evict.Signal, age time.Duration) {
			k.meter.EvictionAge.WithLabelValues(string(s)).Observe(age.Seconds())
		}})
	k.watcher = &actual.Watcher{Runtime: cfg.Runtime, Logger: k.log, Changed: k.changed, Listed: k.listed, Took: k.countList, Streams: k.countStreams}
	return k, nil
}

func cgroupVersion() float64 {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return 2
	}
	return 1
}

// groupOf is the control group of a container as dashboards know it.
func (k *Kubelet) groupOf(pod *corev1.Pod, id string) string {
	if k.cgroups == nil {
		return id
	}
	return k.cgroups.Path(pod, k.runtime.Load().name, id)
}

func defaults(cfg *Config) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.LogDir == "" {
		cfg.LogDir = "/var/log/pods"
	}
	switch cfg.LegacyLogDir {
	case "":
		cfg.LegacyLogDir = "/var/log/containers"
	case "-":
		cfg.LegacyLogDir = ""
	}
	if cfg.ClusterDomain == "" {
		cfg.ClusterDomain = "cluster.local"
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.Hostname == "" {
		cfg.Hostname = strings.ToLower(cfg.NodeName)
	}
	if cfg.Port == 0 {
		cfg.Port = 10250
	}
	if cfg.Version == "" {
		cfg.Version = "v1.37.2"
	}
	if cfg.MaxPods == 0 {
		cfg.MaxPods = 110
	}
	if cfg.ImageGC == (image.Policy{}) {
		cfg.ImageGC = image.Policy{High: 85, Low: 80, MinAge: 2 * time.Minute}
	}
	if cfg.LogMaxSize == 0 {
		cfg.LogMaxSize = 10 << 20
	}
	if cfg.LogMaxFiles == 0 {
		cfg.LogMaxFiles = 5
	}
	if cfg.Eviction == nil {
		cfg.Eviction = evict.Defaults()
	}
	if cfg.Mounter == nil {
		cfg.Mounter = volume.Kernel{}
	}
	cfg.LogCheck = cmp.Or(cfg.LogCheck, rotateEvery)
	cfg.LogWorkers = cmp.Or(cfg.LogWorkers, 1)
	cfg.Rebind = cmp.Or(cfg.Rebind, bindEvery)
	cfg.IDsPerPod = cmp.Or(cfg.IDsPerPod, userns.Length)
}

// setup makes what the agent works in.
func (k *Kubelet) setup(ctx context.Context) error {
	for _, dir := range []string{filepath.Join(k.cfg.RootDir, "pods"), filepath.Join(k.cfg.RootDir, "plugins"), k.cfg.LogDir, k.cfg.LegacyLogDir} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a directory of the node agent: %w", err)
		}
	}
	if answer, err := k.version(ctx); err == nil {
		k.runtime.Store(answer)
	}
	if k.cgroups != nil {
		if err := k.cgroups.Setup(); err != nil {
			return fmt.Errorf("control groups: %w", err)
		}
		if err := k.enforce(); err != nil {
			return err
		}
	}
	return nil
}

// Run works until ctx ends. Pods keep running after it.
func (k *Kubelet) Run(ctx context.Context) error {
	if err := k.setup(ctx); err != nil {
		k.setupFailed(ctx, err)
		return err
	}
	sink := k.events.StartRecordingToSink(newEventSink(ctx, k.cfg))
	defer k.events.Shutdown()
	defer sink.Stop()
	defer k.objects.Close()

	var parts sync.WaitGroup
	defer parts.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 8)
	part := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	k.nodes.AddHandler(client.Handler[*corev1.Node]{Add: k.nodeChanged, Update: func(_, n *corev1.Node) { k.nodeChanged(n) }})
	k.cfg.Client.Start(ctx)
	part("node", k.node.Run)
	part("status", k.statuses.Run)
	part("probe", k.probes.Run)
	part("watch", k.watcher.Run)
	part("housekeeping", k.housekeep)
	part("limits of all pods", k.rebound)
	part("shares of pods", k.share)
	part("eviction", k.evictor.Run)
	part("plug-ins", k.watchPlugins)
	part("lack of memory", k.optional("lack of the machine's memory is not told of", (&oom.Watcher{Killed: k.outOfMemory}).Run))
	part("limits of volumes", k.csi.Limits)
	if k.cfg.VolumeHealth {
		part("health of volumes", k.watchVolumes)
	}
	part("device plug-ins", k.optional("device plug-ins cannot register", k.devices.Run))
	part("processors", k.bind)
	if len(k.cfg.ShutdownGroups) > 0 {
		end := &shutdown.Watcher{Groups: k.cfg.ShutdownGroups, Cancel: k.cancelShutdown, Logger: k.log,
			Begin: func(ctx context.Context) { k.Shutdown(ctx, k.cfg.ShutdownGroups) }}
		part("shutdown", end.Run)
	}
	server := &podresources.Server{Dir: filepath.Join(k.cfg.RootDir, "pod-resources"), Host: (*allocated)(k), Counted: k.countResources}
	part("pod resources", k.optional("pod resources are not served", server.Run))
	part("pods API", k.optional("pods are not served to the machine's programs", k.shown.Run))
	if k.cfg.PodCIDR != "" {
		k.nodeChanged(&corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{k.cfg.PodCIDR}}})
	}
	if k.cfg.Listener != nil {
		part("server", func(ctx context.Context) error { return k.serve(ctx, k.cfg.Listener) })
	}
	part("pods", func(ctx context.Context) error {
		if !client.WaitForSync(ctx, k.services.Informer(), k.nodes.Informer()) {
			return nil
		}
		registration := source.API(k.cfg.Client, k.cfg.NodeName, (*sinkOf)(k))
		parts.Go(func() {
			for !registration.HasSynced() {
				select {
				case <-ctx.Done():
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
			k.complete.Store(true)
			k.adopt(ctx)
		})
		return k.pool.Run(ctx)
	})
	for _, static := range []source.Static{{Path: k.cfg.StaticPodPath, Check: k.cfg.StaticPodCheck}, {URL: k.cfg.StaticPodURL, Header: k.cfg.StaticPodHeader, Check: k.cfg.StaticPodURLCheck}} {
		if static.Path == "" && static.URL == "" {
			continue
		}
		static.NodeName, static.Sink, static.Logger = k.cfg.NodeName, (*sinkOf)(k), k.log
		part("static pods", static.Run)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// imageRecords are those of whose logins images were pulled with; nil where nobody asks.
func imageRecords(cfg Config) (*image.Records, error) {
	if cfg.ImageVerification == "" || cfg.ImageVerification == configv1beta1.NeverVerify {
		return nil, nil
	}
	return image.OpenRecords(image.RecordsConfig{Dir: filepath.Join(cfg.RootDir, "image_manager"), Policy: cfg.ImageVerification, Allowed: cfg.ImageAllowlist})
}

// optional makes a part whose failure does not end the agent: it is told instead.
func (k *Kubelet) optional(what string, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			k.log.Error(what, "err", err)
		}
		return nil
	}
}

// watchPlugins takes plug-ins once the node is there for them to write to.
func (k *Kubelet) watchPlugins(ctx context.Context) error {
	if !client.WaitForSync(ctx, k.nodes.Informer()) {
		return nil
	}
	for k.nodeObject() == nil || k.csi.Ensure(ctx) != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
	return k.plugins.Run(ctx)
}

// nodeObject is the informer's copy of this node, nil where there is none.
func (k *Kubelet) nodeObject() *corev1.Node {
	n, err := k.nodes.Cached("", k.cfg.NodeName)
	if err != nil {
		return nil
	}
	return n
}

// nodeChanged hands the pod address ranges to the network.
func (k *Kubelet) nodeChanged(n *corev1.Node) {
	if len(n.Spec.PodCIDRs) == 0 {
		return
	}
	k.mu.Lock()
	same := strings.Join(k.mu.cidrs, ",") == strings.Join(n.Spec.PodCIDRs, ",")
	k.mu.Unlock()
	if same {
		return
	}
	var cidrs []netip.Prefix
	for _, s := range n.Spec.PodCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			k.log.Error("the node's pod address range is not one", "cidr", s, "err", err)
			return
		}
		cidrs = append(cidrs, p)
	}
	if err := k.setPodCIDRs(cidrs, n.Spec.PodCIDRs); err != nil {
		k.log.Error("the network did not take the pod address ranges", "cidrs", n.Spec.PodCIDRs, "err", err)
		return
	}
	k.mu.Lock()
	k.mu.cidrs = n.Spec.PodCIDRs
	k.mu.Unlock()
	k.node.Wake()
	k.pool.WakeAll()
}

// setPodCIDRs tells the network, or where the runtime looks after it, that.
func (k *Kubelet) setPodCIDRs(cidrs []netip.Prefix, texts []string) error {
	ctx := context.Background()
	if k.cfg.Network != nil {
		return k.cfg.Network.SetPodCIDRs(ctx, cidrs)
	}
	_, err := k.cfg.Runtime.UpdateRuntimeConfig(ctx, &runtimeapi.UpdateRuntimeConfigRequest{RuntimeConfig: &runtimeapi.RuntimeConfig{
		NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: strings.Join(texts, ",")}}})
	return err
}

// apiPod is what the API server has of a pod, a mirror for a static one.
func (k *Kubelet) apiPod(uid types.UID) *corev1.Pod {
	k.mu.Lock()
	mirror := k.mu.mirrors[uid]
	k.mu.Unlock()
	if mirror != nil {
		return mirror
	}
	known := k.pool.Pod(uid)
	if known == nil {
		return nil
	}
	pod, err := k.pods.Cached(known.Namespace, known.Name)
	if err != nil || pod.UID != uid {
		return nil
	}
	return pod
}

// changed wakes the worker of a pod; one that is busy ending the pod does not
// look, so its status is brought up to date beside it.
func (k *Kubelet) changed(uid types.UID) {
	if state, ok := k.pool.State(uid); ok && state == podworker.Terminating {
		k.refresh(uid)
		return
	}
	k.pool.Wake(uid)
}

// capacity is what there is besides what the machine has by itself.
func (k *Kubelet) capacity() (capacity, allocatable corev1.ResourceList) {
	capacity, allocatable = k.devices.Resources()
	capacity[corev1.ResourcePods] = quantity(int64(k.cfg.MaxPods))
	allocatable[corev1.ResourcePods] = capacity[corev1.ResourcePods]
	return capacity, allocatable
}

// pressure are the conditions of pressure that hold.
func (k *Kubelet) pressure() map[corev1.NodeConditionType]bool { return k.evictor.Pressure() }
