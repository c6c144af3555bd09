// SPDX-License-Identifier: Apache-2.0

// Package flags holds kube-proxy's command-line flags: every name that upstream's
// binary takes on Linux, with its default. A configuration file takes the place
// of all but a few of them, as upstream has it. Package app reads the file.
package flags

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	configv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"

	"kaji/internal/proxy/config"
)

// Options are the values of the flags.
type Options struct {
	// ConfigFile is a KubeProxyConfiguration; when it is set, only it and the
	// fields here count.
	ConfigFile       string
	WriteConfigTo    string
	Cleanup          bool
	InitOnly         bool
	Master           string
	HostnameOverride string
	Verbosity        uint32
	// Configuration is what the flags say where there is no file.
	Configuration *configv1alpha1.KubeProxyConfiguration

	// healthzPort and metricsPort are upstream's older way to say it.
	healthzPort, metricsPort int32
	flags                    *pflag.FlagSet

	ignored struct {
		vmodule, sizes string
		split          bool
		flush          time.Duration
	}
}

// Shown are the flags and their values, a line each, for people.
func (o *Options) Shown() string {
	var b strings.Builder
	o.flags.VisitAll(func(f *pflag.Flag) { fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value) })
	return b.String()
}

// Complete applies the flags that say where ports are only.
func (o *Options) Complete() {
	c := o.Configuration
	for _, one := range []struct {
		flag    string
		port    int32
		address *string
	}{{"healthz-port", o.healthzPort, &c.HealthzBindAddress}, {"metrics-port", o.metricsPort, &c.MetricsBindAddress}} {
		if net.ParseIP(*one.address) != nil {
			*one.address = net.JoinHostPort(*one.address, strconv.Itoa(int(one.port)))
		}
		if !o.flags.Changed(one.flag) {
			continue
		}
		if one.port == 0 {
			*one.address = ""
		} else if host, _, err := net.SplitHostPort(*one.address); err == nil {
			*one.address = net.JoinHostPort(host, strconv.Itoa(int(one.port)))
		}
	}
	c.IPTables.MasqueradeAll = c.NFTables.MasqueradeAll
	config.SetModeDefaults(c)
}

// New returns the defaults.
func New() *Options { return &Options{Configuration: config.Default()} }

// AddFlags defines the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	c := o.Configuration
	o.flags = fs
	fs.StringVar(&o.ConfigFile, "config", "", "The path to the configuration file.")
	fs.StringVar(&o.WriteConfigTo, "write-config-to", "", "If set, write the configuration to this file and exit.")
	fs.BoolVar(&o.Cleanup, "cleanup", false, "Remove the rules that a proxy left, and exit.")
	fs.BoolVar(&o.InitOnly, "init-only", false, "Exit once everything that needs all privileges is done: nothing here outlasts the process.")
	fs.StringVar(&o.Master, "master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig).")
	fs.StringVar(&o.HostnameOverride, "hostname-override", "", "The node's name, instead of the host name.")
	fs.Uint32VarP(&o.Verbosity, "v", "v", 0, "Number for the log level verbosity.")
	fs.StringVar(&c.ClientConnection.Kubeconfig, "kubeconfig", "", "Path to kubeconfig file with authorization information; ignored with --config.")
	fs.StringVar(&c.ClientConnection.ContentType, "kube-api-content-type", c.ClientConnection.ContentType, "Content type of requests sent to the API server; ignored with --config.")
	fs.Int32Var(&c.ClientConnection.Burst, "kube-api-burst", c.ClientConnection.Burst, "Requests in a burst to the API server; ignored with --config.")
	fs.Float32Var(&c.ClientConnection.QPS, "kube-api-qps", c.ClientConnection.QPS, "Requests per second to the API server; ignored with --config.")
	fs.Var((*address)(&c.BindAddress), "bind-address", "An address of the family that is preferred; ignored with --config.")
	fs.Var((*endpoint)(&c.HealthzBindAddress), "healthz-bind-address", "Where health checks are answered; ignored with --config.")
	fs.Var((*endpoint)(&c.MetricsBindAddress), "metrics-bind-address", "Where metrics are served; ignored with --config.")
	fs.BoolVar(&c.BindAddressHardFail, "bind-address-hard-fail", false, "Fail when a port cannot be bound; ignored with --config.")
	fs.BoolVar(&c.EnableProfiling, "profiling", false, "Serve /debug/pprof beside the metrics; ignored with --config.")
	fs.StringVar((*string)(&c.Mode), "proxy-mode", "", "nftables, whatever is asked for: iptables and ipvs are taken for it; ignored with --config.")
	fs.StringVar((*string)(&c.DetectLocalMode), "detect-local-mode", string(c.DetectLocalMode), "How packets of pods are told from others: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix; ignored with --config.")
	fs.StringVar(&c.DetectLocal.BridgeInterface, "pod-bridge-interface", "", "The bridge that packets of pods come over, with --detect-local-mode=BridgeInterface.")
	fs.StringVar(&c.DetectLocal.InterfaceNamePrefix, "pod-interface-name-prefix", "", "How the links begin that packets of pods come over, with --detect-local-mode=InterfaceNamePrefix.")
	fs.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "The pods' ranges, one a family, separated by commas; ignored with --config.")
	fs.StringSliceVar(&c.NodePortAddresses, "nodeport-addresses", nil, "Ranges of the node's addresses that node ports answer at, or primary; ignored with --config.")
	fs.BoolVar(c.IPTables.LocalhostNodePorts, "iptables-localhost-nodeports", *c.IPTables.LocalhostNodePorts, "Let node ports answer at 127.0.0.1 too; ignored with --config.")
	fs.BoolVar(&c.NFTables.MasqueradeAll, "masquerade-all", false, "Masquerade all packets to ClusterIPs, those of pods, too; ignored with --config.")
	fs.Var(cliflag.NewMapStringBool(&c.FeatureGates), "feature-gates", "Features by name, true or false; ignored with --config.")
	fs.StringVar(&c.Logging.Format, "logging-format", c.Logging.Format, "The log format: text or json; ignored with --config.")
	fs.DurationVar(&c.Conntrack.TCPEstablishedTimeout.Duration, "conntrack-tcp-timeout-established", c.Conntrack.TCPEstablishedTimeout.Duration, "How long idle TCP connections are remembered, 0 for the kernel's choice; ignored with --config.")
	fs.DurationVar(&c.Conntrack.TCPCloseWaitTimeout.Duration, "conntrack-tcp-timeout-close-wait", c.Conntrack.TCPCloseWaitTimeout.Duration, "How long TCP connections in CLOSE_WAIT are remembered; ignored with --config.")
	fs.BoolVar(&c.Conntrack.TCPBeLiberal, "conntrack-tcp-be-liberal", false, "Take packets outside of the window for the connection's; ignored with --config.")
	fs.DurationVar(&c.Conntrack.UDPTimeout.Duration, "conntrack-udp-timeout", 0, "How long UDP flows without an answer are remembered, 0 for the kernel's choice; ignored with --config.")
	fs.DurationVar(&c.Conntrack.UDPStreamTimeout.Duration, "conntrack-udp-timeout-stream", 0, "How long UDP flows with answers are remembered, 0 for the kernel's choice; ignored with --config.")
	fs.Int32Var(c.Conntrack.MaxPerCore, "conntrack-max-per-core", *c.Conntrack.MaxPerCore, "Connections remembered at most for each processor, 0 for the kernel's choice; ignored with --config.")
	fs.Int32Var(c.Conntrack.Min, "conntrack-min", *c.Conntrack.Min, "Connections remembered at least, whatever the number of processors; ignored with --config.")
	fs.Int32Var(&o.healthzPort, "healthz-port", 10256, "The port of --healthz-bind-address, 0 for none; deprecated.")
	fs.Int32Var(&o.metricsPort, "metrics-port", 10249, "The port of --metrics-bind-address, 0 for none; deprecated.")
	o.addIgnored(fs)
}

// addIgnored defines flags about what other modes of upstream's do.
func (o *Options) addIgnored(fs *pflag.FlagSet) {
	const none = "Accepted and without effect."
	c := o.Configuration
	fs.StringVar(&c.ShowHiddenMetricsForVersion, "show-hidden-metrics-for-version", "", none)
	fs.Int32Var(c.IPTables.MasqueradeBit, "iptables-masquerade-bit", *c.IPTables.MasqueradeBit, none)
	fs.DurationVar(&c.IPTables.SyncPeriod.Duration, "iptables-sync-period", c.IPTables.SyncPeriod.Duration, none)
	fs.DurationVar(&c.IPTables.MinSyncPeriod.Duration, "iptables-min-sync-period", c.IPTables.MinSyncPeriod.Duration, none)
	fs.DurationVar(&c.IPVS.SyncPeriod.Duration, "ipvs-sync-period", c.IPVS.SyncPeriod.Duration, none)
	fs.DurationVar(&c.IPVS.MinSyncPeriod.Duration, "ipvs-min-sync-period", 0, none)
	fs.StringVar(&c.IPVS.Scheduler, "ipvs-scheduler", "", none)
	fs.StringSliceVar(&c.IPVS.ExcludeCIDRs, "ipvs-exclude-cidrs", nil, none)
	fs.BoolVar(&c.IPVS.StrictARP, "ipvs-strict-arp", false, none)
	fs.DurationVar(&c.IPVS.TCPTimeout.Duration, "ipvs-tcp-timeout", 0, none)
	fs.DurationVar(&c.IPVS.TCPFinTimeout.Duration, "ipvs-tcpfin-timeout", 0, none)
	fs.DurationVar(&c.IPVS.UDPTimeout.Duration, "ipvs-udp-timeout", 0, none)
	fs.Int32Var(c.OOMScoreAdj, "oom-score-adj", *c.OOMScoreAdj, none)
	fs.DurationVar(&c.ConfigSyncPeriod.Duration, "config-sync-period", c.ConfigSyncPeriod.Duration, none)
	for _, format := range []string{"text", "json"} {
		fs.StringVar(&o.ignored.sizes, "log-"+format+"-info-buffer-size", "0", none)
		fs.BoolVar(&o.ignored.split, "log-"+format+"-split-stream", false, none)
	}
	fs.StringVar(&o.ignored.vmodule, "vmodule", "", none)
	fs.DurationVar(&o.ignored.flush, "log-flush-frequency", 5*time.Second, none)
}
