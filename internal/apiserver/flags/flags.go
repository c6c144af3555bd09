// SPDX-License-Identifier: Apache-2.0

// Package flags are kube-apiserver's command line: upstream's names, defaults
// and help, read into plain values. Package app turns those into the server's
// configuration; no file is opened here.
//
// Every flag of upstream is accepted. Those that tune what this server does
// not have say so in their help and change nothing.
package flags

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/apiserver/alloc"
)

// Options are the values of the flags.
type Options struct {
	Serving        Serving
	Store          Store
	Authentication Authentication
	Authorization  Authorization
	ServiceAccount ServiceAccount
	Admission      Admission
	Audit          Audit
	Kubelet        Kubelet
	Limits         Limits

	ServiceClusterIPRange string
	ServiceNodePortRange  string
	AllowPrivileged       bool
	RuntimeConfig         map[string]string
	FeatureGates          map[string]string
	Profiling             bool

	// ProxyClientCertFile and ProxyClientKeyFile show the server to aggregated
	// servers and webhooks.
	ProxyClientCertFile, ProxyClientKeyFile string
	EnableAggregatorRouting                 bool
}

// Serving is where and how the server listens.
type Serving struct {
	BindAddress, AdvertiseAddress net.IP
	SecurePort                    int
	CertDir                       string
	TLSCertFile, TLSKeyFile       string
	SNICertKeys                   []string
	TLSMinVersion                 string
	TLSCipherSuites               []string
	ExternalHostname              string
	HTTP2MaxStreams               int
	CORSAllowedOrigins            []string
	StrictTransportSecurity       []string
	GoawayChance                  float64
}

// Store is where the data is.
type Store struct {
	Backend                                  string
	EtcdServers                              []string
	EtcdCAFile, EtcdCertFile, EtcdKeyFile    string
	EtcdPrefix                               string
	EventTTL                                 time.Duration
	EncryptionProviderConfig                 string
	EncryptionProviderConfigAutomaticReload  bool
	CompactionInterval, HealthcheckTimeout   time.Duration
	StorageMediaType                         string
	WatchCache                               bool
	DeleteCollectionWorkers                  int
	ReadycheckTimeout, CountMetricPollPeriod time.Duration
}

// Authentication is who may be who.
type Authentication struct {
	Anonymous                bool
	ClientCAFile             string
	TokenFile                string
	ConfigFile               string
	BootstrapToken           bool
	APIAudiences             []string
	WebhookConfigFile        string
	WebhookVersion           string
	WebhookCacheTTL          time.Duration
	RequestHeaderCAFile      string
	RequestHeaderNames       []string
	RequestHeaderUsers       []string
	RequestHeaderUIDs        []string
	RequestHeaderGroups      []string
	RequestHeaderExtraPrefix []string
	OIDC                     OIDC
}

// OIDC is one OpenID Connect issuer.
type OIDC struct {
	IssuerURL, ClientID, CAFile   string
	UsernameClaim, UsernamePrefix string
	GroupsClaim, GroupsPrefix     string
	RequiredClaims                map[string]string
	SigningAlgorithms             []string
}

// Authorization is who may do what.
type Authorization struct {
	Modes                  []string
	PolicyFile             string
	ConfigFile             string
	WebhookConfigFile      string
	WebhookVersion         string
	WebhookAuthorizedTTL   time.Duration
	WebhookUnauthorizedTTL time.Duration
}

// ServiceAccount is how tokens are issued and checked.
type ServiceAccount struct {
	Issuers          []string
	KeyFiles         []string
	SigningKeyFile   string
	SigningEndpoint  string
	JWKSURI          string
	MaxExpiration    time.Duration
	ExtendExpiration bool
	Lookup           bool
}

// Admission is what judges writes.
type Admission struct {
	Enable, Disable              []string
	ConfigFile                   string
	NotReadyTolerationSeconds    int64
	UnreachableTolerationSeconds int64
}

// Audit is where requests are recorded.
type Audit struct {
	PolicyFile                        string
	LogPath, LogFormat                string
	LogMaxAge, LogMaxBackup, LogMaxMB int
	LogCompress                       bool
	WebhookConfigFile                 string
	WebhookInitialBackoff             time.Duration
	Log, Webhook                      AuditSink
}

// AuditSink is how events are handed to one back end.
type AuditSink struct {
	Mode, Version string

	BatchBuffer, BatchMax int
	BatchMaxWait          time.Duration
	Throttle              bool
	ThrottleQPS           float32
	ThrottleBurst         int

	Truncate                   bool
	MaxBatchSize, MaxEventSize int64
}

// Kubelet is how nodes are reached.
type Kubelet struct {
	ClientCertFile, ClientKeyFile, CAFile string
	PreferredAddressTypes                 []string
	Timeout                               time.Duration
	Port                                  int
}

// Limits bound requests.
type Limits struct {
	MaxRequestsInflight, MaxMutatingRequestsInflight int
	PriorityAndFairness                              bool
	RequestTimeout                                   time.Duration
	MinRequestTimeout                                int
	ShutdownDelay                                    time.Duration
	ShutdownSendRetryAfter                           bool
	ShutdownWatchTerminationGrace                    time.Duration
	LivezGracePeriod                                 time.Duration
	EnableGarbageCollector                           bool
	EndpointReconciler                               string
}

// Add defines all flags in fs and returns where their values go.
func Add(fs *pflag.FlagSet) *Options {
	o := &Options{}
	o.addServing(fs)
	o.addStore(fs)
	o.addAuthentication(fs)
	o.addAuthorization(fs)
	o.addAdmission(fs)
	o.addAudit(fs)
	o.addNetwork(fs)
	o.addLimits(fs)
	addIgnored(fs)
	return o
}

// Validate returns what cannot be right whatever the files say.
func (o *Options) Validate() []error {
	var errs []error
	if o.Serving.SecurePort < 1 || o.Serving.SecurePort > 65535 {
		errs = append(errs, fmt.Errorf("--secure-port %v must be between 1 and 65535, inclusive. It cannot be turned off with 0", o.Serving.SecurePort))
	}
	if _, err := o.ServiceRanges(); err != nil {
		errs = append(errs, err)
	}
	if _, err := o.NodePorts(); err != nil {
		errs = append(errs, err)
	}
	for _, mode := range o.Authorization.Modes {
		if !slices.Contains([]string{"AlwaysAllow", "AlwaysDeny", "ABAC", "Webhook", "RBAC", "Node"}, mode) {
			errs = append(errs, fmt.Errorf("authorization-mode %q is not a valid mode", mode))
		}
	}
	errs = append(errs, o.Audit.validate()...)
	errs = append(errs, o.Authentication.validate()...)
	errs = append(errs, o.Limits.validate()...)
	if o.Limits.RequestTimeout < 0 {
		errs = append(errs, fmt.Errorf("--request-timeout can not be negative value"))
	}
	if o.Limits.MinRequestTimeout < 0 {
		errs = append(errs, fmt.Errorf("--min-request-timeout can not be negative value"))
	}
	return errs
}

// validate returns what cannot be right about the ways to be recognised.
func (a *Authentication) validate() []error {
	var errs []error
	oidc := &a.OIDC
	if (oidc.IssuerURL != "") != (oidc.ClientID != "") {
		errs = append(errs, fmt.Errorf("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"))
	}
	if a.ConfigFile != "" && oidc.IssuerURL != "" {
		errs = append(errs, fmt.Errorf("authentication-config file and oidc-* flags are mutually exclusive"))
	}
	return errs
}

func (l *Limits) validate() []error {
	var errs []error
	if l.MaxRequestsInflight < 0 {
		errs = append(errs, errors.New("--max-requests-inflight can not be negative value"))
	}
	if l.MaxMutatingRequestsInflight < 0 {
		errs = append(errs, errors.New("--max-mutating-requests-inflight can not be negative value"))
	}
	if l.PriorityAndFairness && l.MaxRequestsInflight+l.MaxMutatingRequestsInflight <= 0 {
		errs = append(errs, fmt.Errorf("invalid configuration: MaxRequestsInFlight=%d and MaxMutatingRequestsInFlight=%d; they must add up to something positive",
			l.MaxRequestsInflight, l.MaxMutatingRequestsInflight))
	}
	return errs
}

// ServiceRanges returns the cluster IP ranges, at most one a family.
func (o *Options) ServiceRanges() ([]netip.Prefix, error) {
	var ranges []netip.Prefix
	for text := range strings.SplitSeq(o.ServiceClusterIPRange, ",") {
		if text == "" {
			continue
		}
		r, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("--service-cluster-ip-range: %w", err)
		}
		ranges = append(ranges, r.Masked())
	}
	if len(ranges) == 0 {
		ranges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	}
	if len(ranges) > 2 {
		return nil, fmt.Errorf("--service-cluster-ip-range must not contain more than two entries")
	}
	if len(ranges) == 2 && ranges[0].Addr().Is4() == ranges[1].Addr().Is4() {
		return nil, fmt.Errorf("--service-cluster-ip-range[0] and --service-cluster-ip-range[1] must be of different IP family")
	}
	return ranges, nil
}

// NodePorts returns the range of node ports, given as "first-last" or
// "first+size".
func (o *Options) NodePorts() (alloc.PortRange, error) {
	text := o.ServiceNodePortRange
	bad := fmt.Errorf("unable to parse port range: %s", text)
	from, to, ok := strings.Cut(text, "-")
	size := false
	if !ok {
		from, to, size = strings.Cut(text, "+")
	}
	first, err := strconv.Atoi(strings.TrimSpace(from))
	if err != nil {
		return alloc.PortRange{}, bad
	}
	last := first
	if ok || size {
		if last, err = strconv.Atoi(strings.TrimSpace(to)); err != nil {
			return alloc.PortRange{}, bad
		}
		if size {
			last += first
		}
	}
	if first < 0 || last > 65535 || last < first {
		return alloc.PortRange{}, fmt.Errorf("the port range %s is not valid", text)
	}
	return alloc.PortRange{First: first, Last: last}, nil
}

// AddressTypes returns the node addresses to dial, the preferred first.
func (o *Options) AddressTypes() []corev1.NodeAddressType {
	types := make([]corev1.NodeAddressType, len(o.Kubelet.PreferredAddressTypes))
	for i, t := range o.Kubelet.PreferredAddressTypes {
		types[i] = corev1.NodeAddressType(t)
	}
	return types
}
