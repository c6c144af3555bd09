// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"

	"kaji/internal/cloud"
	"kaji/internal/cloud/local"
	"kaji/internal/controller"
	"kaji/internal/controller/cloudnode"
	"kaji/internal/controller/cloudroute"
	"kaji/internal/controller/servicelb"
	"kaji/internal/featuregate"
	"kaji/internal/scheduler/flags"
)

// CloudOptions are cloud-controller-manager's flags.
type CloudOptions struct {
	Master, Kubeconfig    string
	Provider, ConfigFile  string
	Controllers           []string
	UseAccountCredentials bool
	ClusterName           string
	ClusterCIDRs          []string
	ConfigureRoutes       bool
	RoutePeriod           time.Duration
	Refresh               time.Duration
	MonitorPeriod         time.Duration
	// Pools are the addresses that Services get from the provider "local".
	Pools         []string
	Profiling     bool
	Verbosity     int
	LoggingFormat string
	// FeatureGates are known of and change nothing here.
	FeatureGates map[string]bool

	Serving        flags.Serving
	Metrics        flags.Metrics
	Authentication flags.Authentication
	LeaderElection flags.LeaderElection
}

// AddFlags defines every flag that upstream's binary takes.
func (o *CloudOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Master, "master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig).")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "Path to kubeconfig file with authorization and master location information.")
	fs.StringVar(&o.Provider, "cloud-provider", local.Name, "Where the machines come from: local.")
	fs.StringVar(&o.ConfigFile, "cloud-config", "", "File of the provider; for local, YAML with region, zone, type and machines.")
	fs.StringSliceVar(&o.Controllers, "controllers", []string{"*"}, "Controllers to run: '*' is all that run by default, 'foo' runs foo, '-foo' does not.")
	fs.BoolVar(&o.UseAccountCredentials, "use-service-account-credentials", false, "Give each controller the credentials of its own service account.")
	fs.StringVar(&o.ClusterName, "cluster-name", "kubernetes", "The cluster's name in the cloud.")
	fs.StringSliceVar(&o.ClusterCIDRs, "cluster-cidr", nil, "Ranges of pod addresses, whose routes the cloud gets.")
	fs.BoolVar(&o.ConfigureRoutes, "configure-cloud-routes", true, "Keep the cloud's routes to the nodes' pods, if it has routes.")
	fs.DurationVar(&o.RoutePeriod, "route-reconciliation-period", cloudroute.DefaultPeriod, "How often the cloud's routes are looked at.")
	fs.DurationVar(&o.Refresh, "node-status-update-frequency", cloudnode.DefaultRefresh, "How often the addresses of nodes are looked at.")
	fs.DurationVar(&o.MonitorPeriod, "node-monitor-period", 5*time.Second, "How often nodes that are not ready are looked for in the cloud.")
	fs.StringSliceVar(&o.Pools, "load-balancer-pool", nil, "Addresses for Services of type LoadBalancer, with the provider local; the nodes' own when empty.")
	fs.BoolVar(&o.Profiling, "profiling", true, "Serve /debug/pprof/.")
	fs.IntVarP(&o.Verbosity, "v", "v", 0, "Number for the log level verbosity.")
	fs.StringVar(&o.LoggingFormat, "logging-format", "text", "The log format: text or json.")
	fs.Var(cliflag.NewMapStringBool(&o.FeatureGates), "feature-gates", "Features by name, true or false. None of them changes these controllers.")
	o.Serving.AddFlags(fs, 10258)
	o.Authentication.AddFlags(fs)
	o.Metrics.AddFlags(fs)
	o.LeaderElection.AddFlags(fs, "cloud-controller-manager")
	for _, f := range cloudUnused {
		define(fs, f.name, f.value)
	}
}

// cloudUnused are flags that are taken and change nothing.
var cloudUnused = []struct {
	name  string
	value any
}{
	{"allocate-node-cidrs", false}, {"allow-untagged-cloud", false}, {"cidr-allocator-type", "RangeAllocator"}, {"concurrent-node-lifecycle-syncs", 1},
	{"concurrent-node-status-updates", 0}, {"concurrent-node-syncs", 1}, {"concurrent-service-syncs", 1}, {"contention-profiling", false},
	{"controller-start-interval", time.Duration(0)}, {"enable-leader-migration", false}, {"leader-migration-config", ""}, {"external-cloud-volume-plugin", ""},
	{"kube-api-burst", 30}, {"kube-api-content-type", "application/vnd.kubernetes.protobuf"}, {"kube-api-qps", 20.0}, {"min-resync-period", 12 * time.Hour},
	{"node-sync-period", time.Duration(0)}, {"webhooks", ""}, {"webhook-bind-address", "0.0.0.0"}, {"webhook-secure-port", 10260}, {"webhook-cert-dir", ""},
	{"webhook-tls-cert-file", ""}, {"webhook-tls-private-key-file", ""}, {"log-flush-frequency", 5 * time.Second}, {"log-json-info-buffer-size", ""}, {"log-json-split-stream", false},
	{"log-text-info-buffer-size", ""}, {"log-text-split-stream", false}, {"vmodule", ""}, {"emulated-version", ""}, {"emulation-forward-compatible", false}, {"min-compatibility-version", ""},
}

// Cloud runs the controllers that stand on a cloud until ctx ends or the
// leadership is lost, which is an error.
func Cloud(ctx context.Context, o *CloudOptions, log *slog.Logger) error {
	c, err := o.config()
	if err != nil {
		return err
	}
	features, err := featuregate.New(o.FeatureGates)
	if err != nil {
		return err
	}
	p := &process{name: "cloud-controller-manager", features: features, kubeconfig: o.Kubeconfig, master: o.Master, accounts: o.UseAccountCredentials,
		serving: &o.Serving, metrics: &o.Metrics, trust: &o.Authentication, election: &o.LeaderElection, make: controller.NewCloud, profiling: o.Profiling}
	return p.run(ctx, c, log)
}

// config turns the flags into what the controllers are told.
func (o *CloudOptions) config() (controller.Config, error) {
	c := controller.Config{Controllers: o.Controllers, CloudCluster: o.ClusterName, CloudRefresh: o.Refresh, RoutePeriod: o.RoutePeriod}
	c.Nodes.MonitorPeriod = o.MonitorPeriod
	var err error
	if c.Cloud, err = provider(o.Provider, o.ConfigFile); err != nil {
		return c, err
	}
	pools, err := servicelb.ParsePools(o.Pools)
	if err != nil {
		return c, fmt.Errorf("--load-balancer-pool: %w", err)
	}
	c.LoadBalancer = &servicelb.Config{Pools: pools}
	if !o.ConfigureRoutes {
		return c, nil
	}
	for _, text := range o.ClusterCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return c, fmt.Errorf("--cluster-cidr: %w", err)
		}
		c.ClusterCIDRs = append(c.ClusterCIDRs, prefix.Masked())
	}
	return c, nil
}

// provider opens a cloud.
func provider(name, path string) (cloud.Provider, error) {
	if name != local.Name {
		return nil, fmt.Errorf("unknown cloud provider %q, there is: %s", name, local.Name)
	}
	return local.New(path)
}
