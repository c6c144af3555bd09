// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Options are what an API server can be told; the flags carry upstream's names
// and defaults.
type Options struct {
	DataDir     string
	BindAddress net.IP
	SecurePort  int
	CertDir     string

	TLSCertFile, TLSKeyFile, ClientCAFile string
	RequestHeader                         RequestHeaderOptions
	TokenAuthFile                         string
	AnonymousAuth                         bool
	AuthorizationModes                    []string

	ServiceAccountIssuers    []string
	ServiceAccountKeyFiles   []string
	ServiceAccountSigningKey string
	APIAudiences             []string
	MaxTokenExpiration       time.Duration
	ExtendTokenExpiration    bool

	ServiceClusterIPRange string
	ServiceNodePortRange  string
	AdvertiseAddress      net.IP
	AllowPrivileged       bool

	EnableAdmission, DisableAdmission []string
	RuntimeConfig                     map[string]string
	FeatureGates                      map[string]string
	EventTTL                          time.Duration
	RequestTimeout                    time.Duration
	ShutdownDelay                     time.Duration

	EtcdServers                           []string
	EtcdCAFile, EtcdCertFile, EtcdKeyFile string

	KubeletClientCert, KubeletClientKey, KubeletCA string
}

// RequestHeaderOptions describe the trusted front proxy.
type RequestHeaderOptions struct {
	ClientCAFile                                                   string
	AllowedNames                                                   []string
	UsernameHeaders, UIDHeaders, GroupHeaders, ExtraHeaderPrefixes []string
}

// DefaultOptions are upstream's defaults, but for what a server needs that
// nobody configured: an issuer, and RBAC in place of AlwaysAllow.
func DefaultOptions() *Options {
	return &Options{
		BindAddress: net.IPv4zero, SecurePort: 6443,
		AnonymousAuth: true, AuthorizationModes: []string{"Node", "RBAC"},
		ServiceAccountIssuers: []string{"https://kubernetes.default.svc.cluster.local"}, ExtendTokenExpiration: true,
		ServiceClusterIPRange: "10.96.0.0/16", ServiceNodePortRange: "30000-32767",
		RequestHeader: RequestHeaderOptions{UsernameHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"},
			GroupHeaders: []string{"X-Remote-Group"}, ExtraHeaderPrefixes: []string{"X-Remote-Extra-"}},
		EventTTL: time.Hour, RequestTimeout: time.Minute,
	}
}

// AddFlags adds upstream's flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.DataDir, "data-dir", o.DataDir, "directory for the embedded store, and for keys and certificates that are not given")
	fs.IPVar(&o.BindAddress, "bind-address", o.BindAddress, "IP address to listen on")
	fs.IntVar(&o.SecurePort, "secure-port", o.SecurePort, "port to serve HTTPS on")
	fs.StringVar(&o.CertDir, "cert-dir", o.CertDir, "directory of certificates; <data-dir>/pki when empty")
	fs.StringVar(&o.TLSCertFile, "tls-cert-file", o.TLSCertFile, "serving certificate; made when empty")
	fs.StringVar(&o.TLSKeyFile, "tls-private-key-file", o.TLSKeyFile, "key of --tls-cert-file")
	fs.StringVar(&o.ClientCAFile, "client-ca-file", o.ClientCAFile, "authorities of client certificates; the self-made one when empty")
	fs.StringVar(&o.TokenAuthFile, "token-auth-file", o.TokenAuthFile, "CSV file of static tokens: token,user,uid,\"groups\"")
	fs.BoolVar(&o.AnonymousAuth, "anonymous-auth", o.AnonymousAuth, "let requests without credentials pass as system:anonymous")
	fs.StringSliceVar(&o.AuthorizationModes, "authorization-mode", o.AuthorizationModes, "authorizers in order: AlwaysAllow, AlwaysDeny, Node, RBAC, Webhook")
	fs.StringArrayVar(&o.ServiceAccountIssuers, "service-account-issuer", o.ServiceAccountIssuers, "issuer of service account tokens; the first signs, all are accepted")
	fs.StringArrayVar(&o.ServiceAccountKeyFiles, "service-account-key-file", o.ServiceAccountKeyFiles, "keys that verify service account tokens")
	fs.StringVar(&o.ServiceAccountSigningKey, "service-account-signing-key-file", o.ServiceAccountSigningKey, "key that signs service account tokens; made when empty")
	fs.StringSliceVar(&o.APIAudiences, "api-audiences", o.APIAudiences, "audiences of the API; the issuer when empty")
	fs.DurationVar(&o.MaxTokenExpiration, "service-account-max-token-expiration", o.MaxTokenExpiration, "longest lifetime of a service account token; 0 is no limit")
	fs.BoolVar(&o.ExtendTokenExpiration, "service-account-extend-token-expiration", o.ExtendTokenExpiration, "let pods' tokens live longer than asked for, with a warning")
	fs.StringVar(&o.ServiceClusterIPRange, "service-cluster-ip-range", o.ServiceClusterIPRange, "CIDRs of cluster IPs, at most one a family")
	fs.StringVar(&o.ServiceNodePortRange, "service-node-port-range", o.ServiceNodePortRange, "ports for Services of type NodePort")
	fs.IPVar(&o.AdvertiseAddress, "advertise-address", o.AdvertiseAddress, "address the members of the cluster reach the server at")
	fs.BoolVar(&o.AllowPrivileged, "allow-privileged", o.AllowPrivileged, "allow privileged containers")
	fs.StringSliceVar(&o.EnableAdmission, "enable-admission-plugins", o.EnableAdmission, "admission plug-ins to enable besides the default ones")
	fs.StringSliceVar(&o.DisableAdmission, "disable-admission-plugins", o.DisableAdmission, "admission plug-ins to disable")
	fs.StringToStringVar(&o.RuntimeConfig, "runtime-config", o.RuntimeConfig, "versions to serve or not, such as batch/v1=true; api/legacy=true serves removed versions by conversion")
	fs.StringToStringVar(&o.FeatureGates, "feature-gates", o.FeatureGates, "feature gates by name")
	fs.DurationVar(&o.EventTTL, "event-ttl", o.EventTTL, "how long Events are kept")
	fs.DurationVar(&o.RequestTimeout, "request-timeout", o.RequestTimeout, "how long a request that is no watch may take")
	fs.DurationVar(&o.ShutdownDelay, "shutdown-delay-duration", o.ShutdownDelay, "how long to go on serving, not ready, after the order to stop")
	fs.StringSliceVar(&o.EtcdServers, "etcd-servers", o.EtcdServers, "URLs of etcd; the embedded store when empty")
	fs.StringVar(&o.EtcdCAFile, "etcd-cafile", o.EtcdCAFile, "authority of etcd's certificates")
	fs.StringVar(&o.EtcdCertFile, "etcd-certfile", o.EtcdCertFile, "client certificate for etcd")
	fs.StringVar(&o.EtcdKeyFile, "etcd-keyfile", o.EtcdKeyFile, "key of --etcd-certfile")
	fs.StringVar(&o.KubeletClientCert, "kubelet-client-certificate", o.KubeletClientCert, "client certificate for kubelets; made when empty")
	fs.StringVar(&o.KubeletClientKey, "kubelet-client-key", o.KubeletClientKey, "key of --kubelet-client-certificate")
	fs.StringVar(&o.KubeletCA, "kubelet-certificate-authority", o.KubeletCA, "authority of kubelets' certificates")
	h := &o.RequestHeader
	fs.StringVar(&h.ClientCAFile, "requestheader-client-ca-file", h.ClientCAFile, "authority of the front proxy's certificate; made when empty")
	fs.StringSliceVar(&h.AllowedNames, "requestheader-allowed-names", h.AllowedNames, "common names of trusted front proxies; all when empty")
	fs.StringSliceVar(&h.UsernameHeaders, "requestheader-username-headers", h.UsernameHeaders, "headers with the user's name")
	fs.StringSliceVar(&h.UIDHeaders, "requestheader-uid-headers", h.UIDHeaders, "headers with the user's UID")
	fs.StringSliceVar(&h.GroupHeaders, "requestheader-group-headers", h.GroupHeaders, "headers with the user's groups")
	fs.StringSliceVar(&h.ExtraHeaderPrefixes, "requestheader-extra-headers-prefix", h.ExtraHeaderPrefixes, "prefixes of headers with further attributes")
	for _, name := range accepted {
		fs.String(name, "", "accepted for compatibility; has no effect here")
		fs.Lookup(name).NoOptDefVal = "true"
		fs.Lookup(name).Hidden = true
	}
}

// accepted are upstream's flags that have nothing to set here.
var accepted = []string{
	"apiserver-count", "contention-profiling", "profiling", "default-watch-cache-size", "delete-collection-workers", "endpoint-reconciler-type",
	"etcd-compaction-interval", "etcd-count-metric-poll-period", "etcd-db-metric-poll-interval", "etcd-healthcheck-timeout", "etcd-prefix",
	"etcd-readycheck-timeout", "etcd-servers-overrides", "goaway-chance", "http2-max-streams-per-connection", "kubelet-port", "kubelet-timeout",
	"kubernetes-service-node-port", "lease-reuse-duration-seconds", "livez-grace-period", "log-flush-frequency", "logging-format", "master-service-namespace",
	"max-connection-bytes-per-sec", "max-mutating-requests-inflight", "max-requests-inflight", "min-request-timeout", "peer-advertise-ip", "peer-advertise-port",
	"peer-ca-file", "permit-address-sharing", "permit-port-sharing", "shutdown-send-retry-after", "shutdown-watch-termination-grace-period", "storage-backend",
	"storage-initialization-timeout", "storage-media-type", "strict-transport-security-directives", "target-ram-mb", "tls-cipher-suites", "tls-min-version",
	"tls-sni-cert-key", "tracing-config-file", "vmodule", "watch-cache", "watch-cache-sizes", "cors-allowed-origins", "enable-aggregator-routing",
	"enable-garbage-collector", "enable-logs-handler", "enable-priority-and-fairness", "external-hostname", "egress-selector-config-file",
	"service-account-lookup", "service-account-jwks-uri", "kubelet-preferred-address-types", "proxy-client-cert-file", "proxy-client-key-file",
	"enable-bootstrap-token-auth", "emulated-version", "min-compatibility-version", "runtime-config-emulation-forward-compatible", "emulation-forward-compatible",
	"coordinated-leadership-lease-duration", "coordinated-leadership-renew-deadline", "coordinated-leadership-retry-period", "aggregator-reject-forwarding-redirects",
	"show-hidden-metrics-for-version", "disabled-metrics", "allow-metric-labels", "allow-metric-labels-manifest", "debug-socket-path", "encryption-provider-config-automatic-reload",
}

// Validate says in plain words what cannot be right.
func (o *Options) Validate() error {
	var errs []error
	if len(o.EtcdServers) == 0 && o.DataDir == "" {
		errs = append(errs, errors.New("--data-dir is needed: the embedded store lives there (or give --etcd-servers)"))
	}
	if o.SecurePort < 0 || o.SecurePort > 65535 {
		errs = append(errs, fmt.Errorf("--secure-port %d is not a port between 0 (any free one) and 65535", o.SecurePort))
	}
	if (o.TLSCertFile == "") != (o.TLSKeyFile == "") {
		errs = append(errs, errors.New("--tls-cert-file and --tls-private-key-file go together"))
	}
	for _, mode := range o.AuthorizationModes {
		switch mode {
		case "AlwaysAllow", "AlwaysDeny", "Node", "RBAC":
		default:
			errs = append(errs, fmt.Errorf("--authorization-mode %q is not one of AlwaysAllow, AlwaysDeny, Node, RBAC", mode))
		}
	}
	if _, err := o.ServiceCIDRs(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ServiceCIDRs parses --service-cluster-ip-range.
func (o *Options) ServiceCIDRs() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range strings.Split(o.ServiceClusterIPRange, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("--service-cluster-ip-range: %w", err)
		}
		out = append(out, prefix.Masked())
	}
	if len(out) > 2 || len(out) == 2 && out[0].Addr().Is6() == out[1].Addr().Is6() {
		return nil, errors.New("--service-cluster-ip-range takes one CIDR of each family at most")
	}
	return out, nil
}
