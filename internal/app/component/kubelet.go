// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/flowcontrol"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/cpuset"
	"k8s.io/utils/ptr"

	"kaji/internal/app/zpages"
	"kaji/internal/client"
	"kaji/internal/client/remote"
	"kaji/internal/cri/socket"
	"kaji/internal/featuregate"
	"kaji/internal/kubelet"
	"kaji/internal/kubelet/cgroup"
	"kaji/internal/kubelet/config"
	"kaji/internal/kubelet/credentialprovider"
	"kaji/internal/kubelet/evict"
	"kaji/internal/kubelet/flags"
	"kaji/internal/kubelet/image"
	"kaji/internal/kubelet/shutdown"
	"kaji/internal/lifecycle"
)

// Kubelet runs the node agent alone, over the container runtime of a socket,
// until ctx ends. args are the command line that o was parsed from.
func Kubelet(ctx context.Context, o *flags.Options, args []string, log *slog.Logger) error {
	if err := SettleKubelet(o, args, log); err != nil {
		return err
	}
	ctx, unlock, err := lockFile(ctx, o, log)
	if err != nil {
		return err
	}
	defer unlock()
	a, err := newAgent(ctx, o, log)
	if err != nil {
		return err
	}
	defer a.close()
	if a.config.Pages, err = pages(args); err != nil {
		return err
	}
	k, err := kubelet.New(a.config)
	if err != nil {
		return err
	}
	a.measure(k)
	group := lifecycle.New(ctx, log)
	if err := a.serve(ctx, group, k); err != nil {
		group.Stop()
		return errors.Join(err, group.Wait())
	}
	if a.alone != nil {
		a.alone.start(ctx, group)
		log.Info("node agent runs without an API server", "node", a.config.NodeName)
	} else {
		group.Go("credentials", a.credentials.run)
		log.Info("node agent runs", "node", a.config.NodeName, "server", a.credentials.config.Host)
	}
	group.Go("kubelet", k.Run)
	err = group.Wait()
	if a.api != nil {
		a.api.Wait()
	}
	return err
}

// SettleKubelet reads the configuration, once: files, defaults, then flags. Kubelet
// does it unless it is done.
func SettleKubelet(o *flags.Options, args []string, log *slog.Logger) error {
	if o.Settled {
		return nil
	}
	o.Settled = true
	main, dropIns, err := configFiles(o)
	if err != nil {
		return err
	}
	if main != nil || len(dropIns) > 0 {
		c, lenient, err := config.Load(main, dropIns)
		if err != nil {
			return err
		}
		if lenient != nil {
			log.Warn("Using lenient decoding as strict decoding failed", "err", lenient)
		}
		config.SetDefaults(c)
		if err := o.Override(args, c); err != nil {
			return err
		}
	}
	if _, err := featuregate.New(o.Configuration.FeatureGates); err != nil {
		return fmt.Errorf("failed to set feature gates from initial flags-based config: %w", err)
	}
	if err := config.Validate(o.Configuration); err != nil {
		return fmt.Errorf("failed to validate kubelet configuration, error: %w, path: %s", err, o.ConfigFile)
	}
	return machineFits(o)
}

func configFiles(o *flags.Options) (main *config.File, dropIns []config.File, err error) {
	if o.ConfigFile != "" {
		data, err := os.ReadFile(o.ConfigFile)
		if err != nil {
			return nil, nil, fmt.Errorf("failed to load kubelet config file, path: %s, error: %w", o.ConfigFile, err)
		}
		main = &config.File{Path: o.ConfigFile, Data: data}
	}
	if o.ConfigDir == "" {
		return main, nil, nil
	}
	err = filepath.WalkDir(o.ConfigDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".conf" {
			return err
		}
		data, err := os.ReadFile(path)
		dropIns = append(dropIns, config.File{Path: path, Data: data})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("failed to walk through kubelet dropin directory %q: %w", o.ConfigDir, err)
	}
	return main, dropIns, nil
}

// machineFits refuses machines that the configuration does not want, and what
// the agent cannot do.
func machineFits(o *flags.Options) error {
	c := o.Configuration
	if *c.FailSwapOn {
		if swaps, err := os.ReadFile("/proc/swaps"); err == nil && strings.Count(strings.TrimSpace(string(swaps)), "\n") > 0 {
			return fmt.Errorf("running with swap on is not supported, please disable swap or set --fail-swap-on flag to false. /proc/swaps contained: %q", strings.TrimSpace(string(swaps)))
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); *c.FailCgroupV1 && errors.Is(err, fs.ErrNotExist) {
		return errors.New("kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release")
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); errors.Is(err, fs.ErrNotExist) && !ptr.Deref(c.SingleProcessOOMKill, true) {
		return errors.New("invalid configuration: singleProcessOOMKill must not be explicitly set to false when using cgroup v1")
	}
	switch o.CloudProvider {
	case "", "external":
		return nil
	}
	return fmt.Errorf("unknown cloud provider %q: in-tree ones are gone, \"external\" is left", o.CloudProvider)
}

// agent is what a Kubelet is made of here.
type agent struct {
	options     *flags.Options
	settings    *configv1beta1.KubeletConfiguration
	log         *slog.Logger
	credentials *credentials
	api         *remote.Client
	requests    *restMetrics // those to the API server
	alone       *alone       // in place of both, in standalone mode
	runtime     *socket.Client
	images      *socket.Client
	serving     certificate.Manager // nil unless the cluster signs the server's certificate
	config      kubelet.Config
}

func (a *agent) close() {
	for _, c := range []*socket.Client{a.runtime, a.images} {
		if c != nil {
			_ = c.Close() // it held nothing back
		}
	}
}

func newAgent(ctx context.Context, o *flags.Options, log *slog.Logger) (_ *agent, err error) {
	a := &agent{options: o, settings: o.Configuration, log: log}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	name := o.HostnameOverride
	if name == "" {
		name = strings.ToLower(hostname())
	}
	api, err := a.join(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := a.connect(); err != nil {
		return nil, err
	}
	c := a.settings
	a.config = kubelet.Config{NodeName: name, Client: api, Runtime: a.runtime, Images: a.images, RootDir: o.RootDir, LogDir: c.PodLogsDir,
		ClusterDomain: c.ClusterDomain, ResolvConf: *c.ResolverConfig, NodeLabels: o.NodeLabels, Taints: c.RegisterWithTaints, ProviderID: c.ProviderID,
		ExternalCloud: o.CloudProvider == "external", NoRegister: !*c.RegisterNode, Port: c.Port,
		Beat: c.NodeStatusUpdateFrequency.Duration, Report: c.NodeStatusReportFrequency.Duration, LeaseDuration: seconds(c.NodeLeaseDurationSeconds),
		StaticPodPath: c.StaticPodPath, StaticPodURL: c.StaticPodURL, StaticPodHeader: c.StaticPodURLHeader, StaticPodCheck: c.FileCheckFrequency.Duration,
		AllowedUnsafeSysctls: c.AllowedUnsafeSysctls, SeccompDefault: *c.SeccompDefault, NoCPUQuota: !*c.CPUCFSQuota, CPUPeriod: c.CPUCFSQuotaPeriod.Duration,
		LimitedSwap: c.MemorySwap.SwapBehavior == "LimitedSwap", KillOneProcess: ptr.Deref(c.SingleProcessOOMKill, false),
		SerialImagePulls: *c.SerializeImagePulls, MaxParallelImagePulls: int(ptr.Deref(c.MaxParallelImagePulls, 0)),
		MaxContainerBackOff: c.CrashLoopBackOff.MaxContainerRestartPeriod.Duration,
		ImageGC: image.Policy{High: int(*c.ImageGCHighThresholdPercent), Low: int(*c.ImageGCLowThresholdPercent),
			MinAge: c.ImageMinimumGCAge.Duration, MaxAge: c.ImageMaximumGCAge.Duration},
		CPUManagerPolicy: c.CPUManagerPolicy, CPUManagerOptions: c.CPUManagerPolicyOptions,
		MemoryManagerPolicy: c.MemoryManagerPolicy, ReservedMemory: c.ReservedMemory,
		TopologyPolicy: c.TopologyManagerPolicy, TopologyScope: c.TopologyManagerScope, TopologyOptions: c.TopologyManagerPolicyOptions,
		LogMaxFiles: int(*c.ContainerLogMaxFiles), EvictionMaxGrace: seconds(c.EvictionMaxPodGracePeriod), EvictionTransition: c.EvictionPressureTransitionPeriod.Duration,
		NoDebugHandlers: !*c.EnableDebuggingHandlers, NoSystemLogs: !*c.EnableSystemLogHandler,
		SystemLogQuery: ptr.Deref(c.EnableSystemLogQuery, false), Profiling: *c.EnableProfilingHandler, Settings: c, Logger: log}
	a.amounts()
	return a, errors.Join(a.process(), a.derive(ctx))
}

// pages are /flagz, with the flags of the command line, and /statusz.
func pages(args []string) (map[string]http.Handler, error) {
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	flags.New().AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return zpages.Agent(fs), nil
}

// measure adds to the agent's metrics what is counted here.
func (a *agent) measure(k *kubelet.Kubelet) {
	r := k.Metrics()
	gates, _ := featuregate.New(a.settings.FeatureGates) // judged by settle
	r.MustRegister(gates)
	if a.requests != nil {
		r.MustRegister(a.requests.requests, a.requests.took, a.requests.sent, a.requests.got)
	}
	left := func(kind, help string, m certificate.Manager) {
		if m == nil {
			return
		}
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_certificate_manager_" + kind + "_ttl_seconds", Help: "[ALPHA] " + help}, func() float64 {
			c := m.Current()
			if c == nil || c.Leaf == nil {
				return math.Inf(1)
			}
			return math.Trunc(time.Until(c.Leaf.NotAfter).Seconds())
		}))
	}
	const text = "Gauge of the shortest TTL (time-to-live) of the Kubelet's %s certificate. The value is in seconds until certificate expiry (negative if already expired). If %[1]s certificate is invalid or unused, the value will be +INF."
	if a.credentials != nil {
		left("client", fmt.Sprintf(text, "client"), a.credentials.manager)
	}
	left("server", fmt.Sprintf(text, "serving"), a.serving)
}

// amounts are how often, how many and how much at a time.
func (a *agent) amounts() {
	c, k := a.settings, &a.config
	k.StaticPodURLCheck, k.Rebind, k.VolumeCheck = c.HTTPCheckFrequency.Duration, c.CPUManagerReconcilePeriod.Duration, c.VolumeStatsAggPeriod.Duration
	k.LogCheck, k.LogWorkers = c.ContainerLogMonitorInterval.Duration, int(*c.ContainerLogMaxWorkers)
	k.RegistryQPS, k.RegistryBurst = float32(*c.RegistryPullQPS), int(c.RegistryBurst)
	k.EventQPS, k.EventBurst = float32(*c.EventRecordQPS), int(c.EventBurst)
	k.RuntimeTimeout = c.RuntimeRequestTimeout.Duration
	k.ImageVerification, k.ImageAllowlist = c.ImagePullCredentialsVerificationPolicy, c.PreloadedImagesVerificationAllowlist
	k.ListedImages = c.NodeStatusMaxImages
	if c.KernelMemcgNotification {
		k.EvictionCheck = memcgCheck
	}
	if c.UserNamespaces != nil && c.UserNamespaces.IDsPerPod != nil {
		k.IDsPerPod = uint32(*c.UserNamespaces.IDsPerPod) //nolint:gosec // judged by config.Validate
	}
	k.NoLocalStorage, k.DefaultSysctls = !*c.LocalStorageCapacityIsolation, c.DefaultPodSysctls
	if a.alone != nil {
		k.PodCIDR = c.PodCIDR
	}
	gates, _ := featuregate.New(c.FeatureGates) // judged by settle
	k.NoMemoryQoS, k.VolumeHealth = !gates.Enabled("MemoryQoS"), gates.Enabled("CSIVolumeHealth")
	if !k.NoMemoryQoS {
		k.MemoryQoS = cgroup.MemoryQoS{Reserve: c.MemoryReservationPolicy == configv1beta1.TieredReservationMemoryReservationPolicy, Throttle: ptr.Deref(c.MemoryThrottlingFactor, 0)}
	}
	k.KubeletCgroup, k.RuntimeCgroup, k.SystemCgroup = c.KubeletCgroups, a.options.RuntimeCgroups, c.SystemCgroups
}

// memcgCheck is how often the node's memory is looked at where the kernel is to
// tell when it is short: no later than it would be noticed.
const memcgCheck = time.Second

// process makes this process what the configuration wants it to be. What it has
// no right to is told and left, as upstream does.
func (a *agent) process() error {
	c := a.settings
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(int(*c.OOMScoreAdj))), 0o644); err != nil {
		a.log.Warn("Failed to ApplyOOMScoreAdj", "err", err)
	}
	files := uint64(c.MaxOpenFiles) //nolint:gosec // not negative
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}); err != nil {
		a.log.Error("Failed to set rlimit on max file handles", "err", err)
	}
	if c.EnableContentionProfiling && *c.EnableProfilingHandler {
		runtime.SetBlockProfileRate(1)
	}
	if c.ProtectKernelDefaults {
		if err := kernelDefaults(); err != nil {
			return err
		}
	}
	return a.place()
}

// place puts this process, and those of the system, into the control groups that
// are named for them.
func (a *agent) place() error {
	c := a.settings
	if c.KubeletCgroups == "" && c.SystemCgroups == "" {
		return nil
	}
	tree, err := cgroup.Open(cgroup.Config{Root: "/"})
	if err != nil {
		return err
	}
	if c.KubeletCgroups != "" {
		if err := tree.Place(c.KubeletCgroups, os.Getpid()); err != nil {
			return fmt.Errorf("put the node agent into the cgroup of kubeletCgroups: %w", err)
		}
	}
	if c.SystemCgroups != "" {
		if err := tree.Gather(c.SystemCgroups); err != nil {
			return fmt.Errorf("put processes into the cgroup of systemCgroups: %w", err)
		}
	}
	return nil
}

// kernelDefaults refuses a kernel that is not set up as pods want it.
func kernelDefaults() error {
	var errs []error
	for _, flag := range []struct {
		name string
		want int
	}{{"vm/overcommit_memory", 1}, {"vm/panic_on_oom", 0}, {"kernel/panic", 10}, {"kernel/panic_on_oops", 1}, {"kernel/keys/root_maxkeys", 1000000}, {"kernel/keys/root_maxbytes", 25000000}} {
		b, err := os.ReadFile("/proc/sys/" + flag.name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if have := strings.TrimSpace(string(b)); have != strconv.Itoa(flag.want) {
			errs = append(errs, fmt.Errorf("invalid kernel flag: %s, expected value: %d, actual value: %s", flag.name, flag.want, have))
		}
	}
	return errors.Join(errs...)
}

// join returns the client of the cluster's API server, or of the agent's own in
// standalone mode.
func (a *agent) join(ctx context.Context, name string) (_ client.Interface, err error) {
	if a.options.Kubeconfig == "" && a.options.BootstrapKubeconfig == "" {
		if err := fitsAlone(a.settings); err != nil {
			return nil, err
		}
		if a.alone, err = newAlone(a.log); err != nil {
			return nil, err
		}
		return a.alone.client, nil
	}
	if a.credentials, err = newCredentials(ctx, a.options, name, a.log); err != nil {
		return nil, err
	}
	c, from := a.settings, a.credentials.config
	if c.ContentType != kruntime.ContentTypeProtobuf {
		from.ContentType = c.ContentType
	}
	// The server's priority and fairness is the limit, unless another is named.
	if defaults := config.Default(); *c.KubeAPIQPS != *defaults.KubeAPIQPS || c.KubeAPIBurst != defaults.KubeAPIBurst {
		if *c.KubeAPIQPS > 0 {
			limit := flowcontrol.NewTokenBucketRateLimiter(float32(*c.KubeAPIQPS), int(c.KubeAPIBurst))
			from.Wrap(func(rt http.RoundTripper) http.RoundTripper { return &limited{rt, limit, nil} })
		}
	}
	a.requests = newRESTMetrics(prometheus.NewRegistry())
	from.Wrap(a.requests.wrap)
	a.api, err = remote.New(from)
	return a.api, err
}

// derive computes what the configuration says in words.
func (a *agent) derive(ctx context.Context) (err error) {
	c, k := a.settings, &a.config
	size := resource.MustParse(c.ContainerLogMaxSize) // validated
	k.LogMaxSize = size.Value()
	if k.Reserved, err = config.Reserved(c); err != nil {
		return err
	}
	if k.ReservedCPUs, err = cpuset.Parse(c.ReservedSystemCPUs); err != nil {
		return err
	}
	if k.Eviction, err = config.Eviction(c); err != nil {
		return err
	}
	if k.NoLocalStorage {
		k.Eviction = slices.DeleteFunc(k.Eviction, func(t evict.Threshold) bool { return t.Signal.Condition() == corev1.NodeDiskPressure })
	}
	if o := a.options; o.ImageCredentialProviderConfig != "" && o.ImageCredentialProviderBinDir != "" {
		k.CredentialProviderDir = o.ImageCredentialProviderBinDir
		if k.CredentialProviders, err = credentialprovider.Load(o.ImageCredentialProviderConfig, o.ImageCredentialProviderBinDir); err != nil {
			return fmt.Errorf("failed to register CRI auth plugins: %w", err)
		}
	}
	k.ShutdownGroups = kubelet.ShutdownGroups(c.ShutdownGracePeriod.Duration, c.ShutdownGracePeriodCriticalPods.Duration)
	for _, g := range c.ShutdownGracePeriodByPodPriority {
		k.ShutdownGroups = append(k.ShutdownGroups, shutdown.Group{Priority: g.Priority, Grace: time.Duration(g.ShutdownGracePeriodSeconds) * time.Second})
	}
	k.MaxPods = int(c.MaxPods)
	if c.PodsPerCore > 0 {
		k.MaxPods = min(k.MaxPods, int(c.PodsPerCore)*runtime.NumCPU())
	}
	for _, text := range c.ClusterDNS {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("invalid clusterDNS (--cluster-dns): %w", err)
		}
		k.ClusterDNS = append(k.ClusterDNS, addr)
	}
	if k.NodeIPs, err = nodeIPs(a.options.NodeIP); err != nil {
		return err
	}
	if *c.CgroupsPerQOS {
		k.Cgroups = &cgroup.Config{Root: c.CgroupRoot, Systemd: a.systemd(ctx), PodPids: max(0, *c.PodPidsLimit), Quota: *c.CPUCFSQuota, QuotaPeriod: c.CPUCFSQuotaPeriod.Duration}
		if k.Cgroups.Root == "" {
			k.Cgroups.Root = "/"
		}
	}
	if k.Reservations, err = reservations(c); err != nil {
		return err
	}
	k.Unbound = !slices.Contains(c.EnforceNodeAllocatable, "pods")
	return a.judge(ctx)
}

// reservations are the groups besides pods' that enforceNodeAllocatable names.
func reservations(c *configv1beta1.KubeletConfiguration) (out []kubelet.Reservation, err error) {
	for _, compressible := range []string{"", "-compressible"} {
		for _, r := range []struct {
			kind, group string
			list        map[string]string
		}{{"system", c.SystemReservedCgroup, c.SystemReserved}, {"kube", c.KubeReservedCgroup, c.KubeReserved}} {
			if !slices.Contains(c.EnforceNodeAllocatable, r.kind+"-reserved"+compressible) {
				continue
			}
			list, err := config.Reservation(r.list)
			if err != nil {
				return nil, err
			}
			out = append(out, kubelet.Reservation{Kind: r.kind, Group: r.group, Resources: list, Compressible: compressible != ""})
		}
	}
	return out, nil
}

// systemd says whether control groups are systemd's: as the runtime has it,
// where it tells, as the configuration else.
func (a *agent) systemd(ctx context.Context) bool {
	answer, err := a.runtime.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
	if err != nil || answer.GetLinux() == nil {
		return a.settings.CgroupDriver == "systemd"
	}
	return answer.Linux.CgroupDriver == runtimeapi.CgroupDriver_SYSTEMD
}

// connect opens the runtime's socket, and that of images if it is another.
func (a *agent) connect() (err error) {
	c := a.settings
	if a.runtime, err = socket.Dial(c.ContainerRuntimeEndpoint); err != nil {
		return err
	}
	a.images = a.runtime
	if c.ImageServiceEndpoint != "" && c.ImageServiceEndpoint != c.ContainerRuntimeEndpoint {
		a.images, err = socket.Dial(c.ImageServiceEndpoint)
	}
	return err
}
