// SPDX-License-Identifier: Apache-2.0

// Package flags holds kube-scheduler's command-line flags: every name that
// upstream's binary takes, with its default. The application reads the file
// of --config and hands it over; nothing here touches files or the network.
package flags

import (
	"net"
	"time"

	"github.com/spf13/pflag"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"kaji/internal/scheduler/config"
)

// Options are the values of the flags.
type Options struct {
	// ConfigFile is a KubeSchedulerConfiguration; when it is set, the flags
	// that the file has fields for are ignored.
	ConfigFile    string
	WriteConfigTo string
	Master        string
	Kubeconfig    string

	Serving        Serving
	Authentication Authentication
	LeaderElection LeaderElection

	KubeAPIContentType string
	KubeAPIQPS         float32
	KubeAPIBurst       int32

	MaxInUnschedulablePods time.Duration
	Profiling              bool
	ContentionProfiling    bool
	FeatureGates           map[string]string
	Verbosity              int
	LoggingFormat          string
	VModule                string
	LogFlushFrequency      time.Duration
	Metrics                Metrics
}

// Serving says where /metrics and the health checks are served.
type Serving struct {
	BindAddress        net.IP
	SecurePort         int
	CertDir            string
	CertFile, KeyFile  string
	SNICertKeys        []string
	CipherSuites       []string
	CurvePreferences   []int32
	MinVersion         string
	HTTP2MaxStreams    int
	PermitAddressReuse bool
	PermitPortReuse    bool
	DisableHTTP2       bool
}

// Authentication says who may read what is served.
type Authentication struct {
	Kubeconfig                 string
	AuthorizationKubeconfig    string
	AlwaysAllowPaths           []string
	ClientCAFile               string
	SkipLookup                 bool
	TolerateLookupFailure      bool
	TokenCacheTTL              time.Duration
	AuthorizedCacheTTL         time.Duration
	UnauthorizedCacheTTL       time.Duration
	RequestHeaderCAFile        string
	RequestHeaderNames         []string
	RequestHeaderUsers         []string
	RequestHeaderUIDs          []string
	RequestHeaderGroups        []string
	RequestHeaderExtraPrefixes []string
}

// LeaderElection are the flags that a configuration file replaces.
type LeaderElection struct {
	Elect                                     bool
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	ResourceLock                              string
	ResourceName, ResourceNamespace           string
}

// New returns the defaults.
func New() *Options { return &Options{} }

// AddFlags defines the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.ConfigFile, "config", "", "The path to the configuration file.")
	fs.StringVar(&o.WriteConfigTo, "write-config-to", "", "If set, write the configuration values to this file and exit.")
	fs.StringVar(&o.Master, "master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig).")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "Path to kubeconfig file with authorization and master location information; ignored with --config.")
	fs.StringVar(&o.KubeAPIContentType, "kube-api-content-type", "application/vnd.kubernetes.protobuf", "Content type of requests sent to the API server; ignored with --config.")
	fs.Float32Var(&o.KubeAPIQPS, "kube-api-qps", 50, "Requests per second to the API server; ignored with --config.")
	fs.Int32Var(&o.KubeAPIBurst, "kube-api-burst", 100, "Requests in a burst to the API server; ignored with --config.")
	fs.DurationVar(&o.MaxInUnschedulablePods, "pod-max-in-unschedulable-pods-duration", 5*time.Minute, "After what time an unschedulable pod is tried again without any event.")
	fs.BoolVar(&o.Profiling, "profiling", true, "Enable profiling via web interface host:port/debug/pprof/; ignored with --config.")
	fs.BoolVar(&o.ContentionProfiling, "contention-profiling", true, "Enable block profiling, if profiling is enabled; ignored with --config.")
	fs.StringToStringVar(&o.FeatureGates, "feature-gates", nil, "Features by name, true or false.")
	o.Serving.AddFlags(fs, 10259)
	o.Authentication.AddFlags(fs)
	o.LeaderElection.AddFlags(fs, "kube-scheduler")
	o.addLogging(fs)
}

// AddFlags defines the flags; port is the component's own.
func (s *Serving) AddFlags(fs *pflag.FlagSet, port int) {
	fs.IPVar(&s.BindAddress, "bind-address", net.IPv4zero, "The IP address on which to listen for the --secure-port port.")
	fs.IntVar(&s.SecurePort, "secure-port", port, "The port on which to serve HTTPS with authentication and authorization; 0 serves nothing.")
	fs.StringVar(&s.CertDir, "cert-dir", "", "The directory of the TLS certificate.")
	fs.StringVar(&s.CertFile, "tls-cert-file", "", "File with the serving certificate and its chain; self-signed when empty.")
	fs.StringVar(&s.KeyFile, "tls-private-key-file", "", "File with the key of --tls-cert-file.")
	fs.StringArrayVar(&s.SNICertKeys, "tls-sni-cert-key", nil, "A pair of certificate and key files, with the names they serve after a colon.")
	fs.StringSliceVar(&s.CipherSuites, "tls-cipher-suites", nil, "Cipher suites of TLS 1.2; Go's choice when empty.")
	fs.Int32SliceVar(&s.CurvePreferences, "tls-curve-preferences", nil, "Key exchange mechanisms by number; Go's choice when empty.")
	fs.StringVar(&s.MinVersion, "tls-min-version", "", "Lowest TLS version: VersionTLS12 or VersionTLS13.")
	fs.IntVar(&s.HTTP2MaxStreams, "http2-max-streams-per-connection", 0, "Streams a client may have in one HTTP/2 connection; zero means Go's default.")
	fs.BoolVar(&s.PermitAddressReuse, "permit-address-sharing", false, "Listen with SO_REUSEADDR.")
	fs.BoolVar(&s.PermitPortReuse, "permit-port-sharing", false, "Listen with SO_REUSEPORT.")
	fs.BoolVar(&s.DisableHTTP2, "disable-http2-serving", false, "Serve HTTP/1.1 only.")
}

// AddFlags defines the flags.
func (a *Authentication) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&a.Kubeconfig, "authentication-kubeconfig", "", "Kubeconfig of the server that reviews tokens; only anonymous requests when empty.")
	fs.StringVar(&a.AuthorizationKubeconfig, "authorization-kubeconfig", "", "Kubeconfig of the server that reviews access.")
	fs.StringSliceVar(&a.AlwaysAllowPaths, "authorization-always-allow-paths", []string{"/healthz", "/readyz", "/livez"}, "Paths that anybody may read.")
	fs.StringVar(&a.ClientCAFile, "client-ca-file", "", "File with the authorities of client certificates.")
	fs.BoolVar(&a.SkipLookup, "authentication-skip-lookup", false, "Do not look up authentication configuration in the cluster.")
	fs.BoolVar(&a.TolerateLookupFailure, "authentication-tolerate-lookup-failure", true, "Go on when that look-up fails; such requests are anonymous.")
	fs.DurationVar(&a.TokenCacheTTL, "authentication-token-webhook-cache-ttl", 10*time.Second, "How long reviews of tokens are kept.")
	fs.DurationVar(&a.AuthorizedCacheTTL, "authorization-webhook-cache-authorized-ttl", 10*time.Second, "How long permissions are kept.")
	fs.DurationVar(&a.UnauthorizedCacheTTL, "authorization-webhook-cache-unauthorized-ttl", 10*time.Second, "How long refusals are kept.")
	fs.StringVar(&a.RequestHeaderCAFile, "requestheader-client-ca-file", "", "File with the authorities of front proxies, whose headers name the user.")
	fs.StringSliceVar(&a.RequestHeaderNames, "requestheader-allowed-names", nil, "Common names of front proxies; any when empty.")
	fs.StringSliceVar(&a.RequestHeaderUsers, "requestheader-username-headers", []string{"x-remote-user"}, "Headers with the user's name.")
	fs.StringSliceVar(&a.RequestHeaderUIDs, "requestheader-uid-headers", nil, "Headers with the user's UID.")
	fs.StringSliceVar(&a.RequestHeaderGroups, "requestheader-group-headers", []string{"x-remote-group"}, "Headers with the user's groups.")
	fs.StringSliceVar(&a.RequestHeaderExtraPrefixes, "requestheader-extra-headers-prefix", []string{"x-remote-extra-"}, "Prefixes of headers with more about the user.")
}

// AddFlags defines the flags; name is that of the component's lease.
func (l *LeaderElection) AddFlags(fs *pflag.FlagSet, name string) {
	fs.BoolVar(&l.Elect, "leader-elect", true, "Work only while holding the leader's lease; ignored with --config.")
	fs.DurationVar(&l.LeaseDuration, "leader-elect-lease-duration", 15*time.Second, "How long a lease is good without renewal; ignored with --config.")
	fs.DurationVar(&l.RenewDeadline, "leader-elect-renew-deadline", 10*time.Second, "How long the leader tries to renew before it gives up; ignored with --config.")
	fs.DurationVar(&l.RetryPeriod, "leader-elect-retry-period", 2*time.Second, "How long to wait between attempts; ignored with --config.")
	fs.StringVar(&l.ResourceLock, "leader-elect-resource-lock", "leases", "The kind of object used as a lock; ignored with --config.")
	fs.StringVar(&l.ResourceName, "leader-elect-resource-name", name, "The name of the lock; ignored with --config.")
	fs.StringVar(&l.ResourceNamespace, "leader-elect-resource-namespace", "kube-system", "The namespace of the lock; ignored with --config.")
}

func (o *Options) addLogging(fs *pflag.FlagSet) {
	fs.IntVarP(&o.Verbosity, "v", "v", 0, "Number for the log level verbosity.")
	fs.StringVar(&o.LoggingFormat, "logging-format", "text", "The log format: text or json.")
	fs.StringVar(&o.VModule, "vmodule", "", "Accepted and without effect.")
	fs.DurationVar(&o.LogFlushFrequency, "log-flush-frequency", 5*time.Second, "Accepted and without effect: logs are not held back.")
	o.Metrics.AddFlags(fs)
}

// Configuration returns what the scheduler runs with: file, the contents of
// --config when that was given, or else the defaults with the flags laid over.
func (o *Options) Configuration(file []byte) (*configv1.KubeSchedulerConfiguration, error) {
	if o.ConfigFile != "" {
		return config.Load(file)
	}
	c := &configv1.KubeSchedulerConfiguration{}
	c.ClientConnection.Kubeconfig = o.Kubeconfig
	c.ClientConnection.ContentType = o.KubeAPIContentType
	c.ClientConnection.QPS = o.KubeAPIQPS
	c.ClientConnection.Burst = o.KubeAPIBurst
	c.EnableProfiling, c.EnableContentionProfiling = &o.Profiling, &o.ContentionProfiling
	l, le := &o.LeaderElection, &c.LeaderElection
	le.LeaderElect = &l.Elect
	le.LeaseDuration.Duration, le.RenewDeadline.Duration, le.RetryPeriod.Duration = l.LeaseDuration, l.RenewDeadline, l.RetryPeriod
	le.ResourceLock, le.ResourceName, le.ResourceNamespace = l.ResourceLock, l.ResourceName, l.ResourceNamespace
	config.SetDefaults(c)
	if errs := config.Validate(c); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	return c, nil
}
