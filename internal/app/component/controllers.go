// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/version"

	"kaji/internal/apiserver/metrics"
	"kaji/internal/app/zpages"
	"kaji/internal/client"
	"kaji/internal/client/lease"
	"kaji/internal/client/remote"
	"kaji/internal/controller"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/featuregate"
	"kaji/internal/lifecycle"
	"kaji/internal/pki"
	"kaji/internal/scheduler/flags"
)

// Controllers runs the controllers alone until ctx ends or the leadership is
// lost, which is an error.
func Controllers(ctx context.Context, o *ControllerOptions, log *slog.Logger) error {
	c, err := o.config()
	if err != nil {
		return err
	}
	features, err := featuregate.New(o.FeatureGates)
	if err != nil {
		return err
	}
	p := &process{name: "kube-controller-manager", features: features, kubeconfig: o.Kubeconfig, master: o.Master, accounts: o.UseAccountCredentials,
		serving: &o.Serving, metrics: &o.Metrics, trust: &o.Authentication, election: &o.LeaderElection, make: controller.New, configz: controllerConfigz(o.given), flags: o.given, profiling: o.Profiling, contention: o.Contention,
		api: &o.API, shutdown: o.ShutdownTimeout}
	return p.run(ctx, c, log)
}

// process is a manager of controllers in a process of its own.
type process struct {
	name, kubeconfig, master string
	features                 featuregate.Gates
	// accounts gives each controller the credentials of its own account.
	accounts bool
	serving  *flags.Serving
	metrics  *flags.Metrics
	trust    *flags.Authentication
	election *flags.LeaderElection
	make     func(controller.Config) (*controller.Manager, error)
	configz  map[string]any // nil is not served
	flags    *pflag.FlagSet // as given, for /flagz; nil is not served
	// profiling serves /debug/pprof/; contention has who holds up whom in it.
	profiling, contention bool
	api                   *apiConnection
	// shutdown is how long the controllers have to end.
	shutdown time.Duration
}

func (p *process) run(ctx context.Context, c controller.Config, log *slog.Logger) error {
	config, err := restConfig(p.kubeconfig, p.master, p.name)
	if err != nil {
		return err
	}
	set := newProcessMetrics()
	set.controllers.Registry().MustRegister(p.features)
	c.Metrics = set.controllers
	config.Wrap(set.rest.wrap)
	p.api.apply(config, set.controllers.Registry())
	if p.profiling && p.contention {
		goruntime.SetBlockProfileRate(1)
	}
	root, err := remote.New(config)
	if err != nil {
		return err
	}
	if err := root.Observe(p.name, newInformerMetrics(set.controllers.Registry())); err != nil {
		return err
	}
	served, err := expose(p.metrics, set.controllers.Registry())
	if err != nil {
		return err
	}
	c.Logger = log
	c.Client = func(string) (client.Interface, error) { return root, nil }
	if p.accounts {
		c.Client = accounts{root, config}.client
	}
	manager, err := p.make(c)
	if err != nil {
		return err
	}
	checks := manager.Names()
	if p.election.Elect {
		checks = append([]string{"leaderElection"}, checks...)
	}
	w := &web{name: p.name, serving: p.serving, trust: p.trust, counts: set.trust, handler: controllerHandler(served, p, checks), log: log}
	if err := w.listen(); err != nil {
		return err
	}
	log.Info("running controllers", "server", config.Host, "leaderElection", p.election.Elect)
	group := lifecycle.New(ctx, log)
	group.Go("web", w.run)
	group.Go("controllers", func(ctx context.Context) error {
		if !p.election.Elect {
			return p.bounded(ctx, manager.Run)
		}
		return p.lead(ctx, root, log, set.leading, func(ctx context.Context) error { return p.bounded(ctx, manager.Run) })
	})
	err = group.Wait()
	root.Wait()
	return err
}

// bounded runs f; when ctx has ended it waits for f only so long.
func (p *process) bounded(ctx context.Context, f func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if p.shutdown <= 0 {
		return <-done
	}
	select {
	case err := <-done:
		return err
	case <-time.After(p.shutdown):
		return fmt.Errorf("the controllers have not ended within %v", p.shutdown)
	}
}

// lead runs f while this instance holds the lease.
func (p *process) lead(ctx context.Context, api client.Interface, log *slog.Logger, leading *prometheus.GaugeVec, f func(context.Context) error) error {
	l, events := p.election, event.New(api, p.name, log)
	gauge := leading.WithLabelValues(l.ResourceName)
	return lease.Lead(ctx, lease.Config{
		Client: api, Namespace: l.ResourceNamespace, Name: l.ResourceName, Hostname: hostname(),
		LeaseDuration: l.LeaseDuration, RenewDeadline: l.RenewDeadline, RetryPeriod: l.RetryPeriod,
		Event: func(about *coordinationv1.Lease, message string) {
			events.Record(ctx, about, coordinationv1.SchemeGroupVersion.WithKind("Lease"), corev1.EventTypeNormal, "LeaderElection", "%s", message)
		},
	}, func(ctx context.Context) error {
		gauge.Set(1)
		defer gauge.Set(0)
		return f(ctx)
	})
}

// config turns the flags into what the controllers are told, reading files.
func (o *ControllerOptions) config() (controller.Config, error) {
	c := controller.Config{Controllers: o.Controllers, NodeMaskIPv4: o.NodeMaskIPv4, NodeMaskIPv6: o.NodeMaskIPv6, SigningDuration: o.SigningDuration, LegacyTokenPeriod: o.LegacyTokenPeriod, NoForceDetach: o.NoForceDetach, EndpointsPerSlice: o.EndpointsPerSlice, Autoscaling: &o.Autoscaling, Nodes: o.Nodes, EndedPods: o.EndedPods,
		MirroredPerSubset: o.MirroredPerSubset, EndpointsBatch: o.EndpointsBatch, SliceBatch: o.SliceBatch, MirrorBatch: o.MirrorBatch, NoProvisioning: !o.Provisioning, StartInterval: o.StartInterval,
		QuotaPeriod: o.QuotaPeriod}
	if c.EndedPods <= 0 {
		c.EndedPods = -1
	}
	for _, rate := range []*float64{&c.Nodes.EvictionRate, &c.Nodes.SecondaryRate} {
		if *rate == 0 { // said so: no evictions
			*rate = -1
		}
	}
	if o.Autoscaling.Period <= 0 {
		return c, fmt.Errorf("--horizontal-pod-autoscaler-sync-period must be greater than 0, not %v", o.Autoscaling.Period)
	}
	if c.EndpointsPerSlice < 1 || c.EndpointsPerSlice > 1000 {
		return c, fmt.Errorf("--max-endpoints-per-slice must be between 1 and 1000, not %d", c.EndpointsPerSlice)
	}
	if c.MirroredPerSubset < 1 || c.MirroredPerSubset > 1000 {
		return c, fmt.Errorf("--mirroring-max-endpoints-per-subset must be between 1 and 1000, not %d", c.MirroredPerSubset)
	}
	var err error
	if c.HostPathRecycling, err = o.HostPath.config(); err != nil {
		return c, err
	}
	if c.NFSRecycling, err = o.NFS.config(); err != nil {
		return c, err
	}
	features, err := featuregate.New(o.FeatureGates)
	if err != nil {
		return c, err
	}
	for name, of := range gates {
		if !features.Enabled(name) {
			c.Controllers = append([]string{"-" + of}, c.Controllers...)
		}
	}
	if features.Enabled("GenericWorkload") {
		c.Controllers = append(slices.Clip(c.Controllers), "podgroup-protection-controller")
	}
	if err := o.workers(&c); err != nil {
		return c, err
	}
	if !o.EnableGC {
		c.Controllers = append([]string{"-garbage-collector-controller"}, c.Controllers...)
	}
	if err := o.keys(&c); err != nil {
		return c, err
	}
	if !o.AllocateNodeCIDRs {
		return c, nil
	}
	if len(o.ClusterCIDRs) == 0 {
		return c, errors.New("--cluster-cidr is needed with --allocate-node-cidrs")
	}
	for _, text := range o.ServiceCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return c, fmt.Errorf("--service-cluster-ip-range: %w", err)
		}
		c.ServiceCIDRs = append(c.ServiceCIDRs, prefix.Masked())
	}
	for _, text := range o.ClusterCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return c, fmt.Errorf("--cluster-cidr: %w", err)
		}
		if o.NodeMask != 0 && prefix.Addr().Is4() && c.NodeMaskIPv4 == 0 {
			c.NodeMaskIPv4 = o.NodeMask
		} else if o.NodeMask != 0 && prefix.Addr().Is6() && c.NodeMaskIPv6 == 0 {
			c.NodeMaskIPv6 = o.NodeMask
		}
		c.ClusterCIDRs = append(c.ClusterCIDRs, prefix.Masked())
	}
	return c, nil
}

// workers takes over the numbers of workers that were given.
func (o *ControllerOptions) workers(c *controller.Config) error {
	c.Workers = map[string]int{}
	for _, w := range workerFlags {
		if f := o.given.Lookup(w.flag); f == nil || !f.Changed {
			continue
		}
		n, err := o.given.GetInt(w.flag)
		if err != nil || n < 1 {
			return fmt.Errorf("--%s must be greater than 0, but got %d", w.flag, n)
		}
		c.Workers[w.queue] = n
	}
	return nil
}

// keys reads the files with keys and certificates.
func (o *ControllerOptions) keys(c *controller.Config) (err error) {
	if o.RootCAFile != "" {
		if c.RootCA, err = os.ReadFile(o.RootCAFile); err != nil {
			return err
		}
	}
	if o.ServiceAccountKeyFile != "" {
		data, err := os.ReadFile(o.ServiceAccountKeyFile)
		if err != nil {
			return err
		}
		key, err := pki.ParseKey(data)
		if err != nil {
			return fmt.Errorf("--service-account-private-key-file: %w", err)
		}
		c.TokenKey = func() (crypto.Signer, error) { return key, nil }
	}
	c.Signers = map[string]*pki.CA{}
	for signer, files := range o.signerFiles() {
		if files.cert == "" && files.key == "" {
			files = signingFiles{o.SigningCertFile, o.SigningKeyFile}
		} else if o.SigningCertFile != "" || o.SigningKeyFile != "" {
			return errors.New("cannot specify --cluster-signing-{cert,key}-file and other --cluster-signing-*-file flags at the same time")
		}
		if files.cert == "" && files.key == "" {
			continue
		}
		var pair pki.Pair
		if pair.Cert, err = os.ReadFile(files.cert); err != nil {
			return err
		}
		if pair.Key, err = os.ReadFile(files.key); err != nil {
			return err
		}
		if c.Signers[signer], err = pki.ParseCA(pair); err != nil {
			return fmt.Errorf("%s: %w", signer, err)
		}
	}
	return nil
}

// processMetrics are the metrics of a manager of controllers.
type processMetrics struct {
	controllers *meter.Set
	rest        *restMetrics
	leading     *prometheus.GaugeVec
	trust       *metrics.Trust
}

func newProcessMetrics() *processMetrics {
	m := &processMetrics{controllers: meter.New()}
	r := m.controllers.Registry()
	m.rest = newRESTMetrics(r)
	m.leading = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "leader_election_master_status",
		Help: "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master."}, []string{"name"})
	m.trust = metrics.NewTrust()
	r.MustRegister(append(m.trust.Collectors(), m.leading)...)
	registerProcess(r)
	return m
}

// registerProcess adds what upstream's components say of themselves: version,
// all of Go's runtime, and what the kernel knows.
func registerProcess(r *prometheus.Registry) {
	r.MustRegister(versionInfo(), buildInfo(), collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// versionInfo says which release a component is compatible with.
func versionInfo() prometheus.Collector {
	v := version.Get()
	release := v.Major + "." + v.Minor
	about := prometheus.NewGauge(prometheus.GaugeOpts{Name: "version_info", Help: "Provides the compatibility version info of the component.",
		ConstLabels: prometheus.Labels{"binary": release, "component": "kube", "emulation": release, "min_compat": release}})
	about.Set(1)
	return about
}

// buildInfo is what every component says about itself.
func buildInfo() prometheus.Collector {
	v := version.Get()
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubernetes_build_info",
		Help: "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
		ConstLabels: prometheus.Labels{"major": v.Major, "minor": v.Minor, "git_version": v.GitVersion, "git_commit": v.GitCommit, "git_tree_state": v.GitTreeState,
			"build_date": v.BuildDate, "go_version": v.GoVersion, "compiler": v.Compiler, "platform": v.Platform}})
	build.Set(1)
	return build
}

// controllerHandler serves what upstream serves at port 10257.
func controllerHandler(metrics prometheus.Gatherer, p *process, checks []string) http.Handler {
	mux, health := http.NewServeMux(), newHealthMetrics()
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { writeHealth(w, r, checks, health) })
	}
	if p.configz != nil {
		mux.HandleFunc("/configz", serveConfigz(p.configz))
	}
	if p.flags != nil {
		z := zpages.New(p.name, p.flags, "/configz", "/flagz", "/healthz", "/metrics")
		mux.HandleFunc("/flagz", z.Flagz)
		mux.HandleFunc("/statusz", z.Statusz)
	}
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle("/metrics/slis", health)
	if p.profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// writeHealth says that all is well; asked for more, it names what was checked. A
// controller that fails, or a lost lease, ends the process.
func writeHealth(w http.ResponseWriter, r *http.Request, checks []string, counts *healthMetrics) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	for _, name := range checks {
		counts.passed(name, path)
	}
	if _, verbose := r.URL.Query()["verbose"]; !verbose {
		fmt.Fprint(w, "ok")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, name := range checks {
		fmt.Fprintf(w, "[+]%s ok\n", name)
	}
	fmt.Fprintf(w, "%s check passed\n", path)
}
