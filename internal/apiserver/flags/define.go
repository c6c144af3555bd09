// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"net"
	"time"

	"github.com/spf13/pflag"
)

func (o *Options) addServing(fs *pflag.FlagSet) {
	s := &o.Serving
	fs.IPVar(&s.BindAddress, "bind-address", net.IPv4zero, "The IP address on which to listen for the --secure-port port.")
	fs.IPVar(&s.AdvertiseAddress, "advertise-address", nil, "The IP address on which to advertise the apiserver to members of the cluster; the host's default interface when empty.")
	fs.IntVar(&s.SecurePort, "secure-port", 6443, "The port on which to serve HTTPS with authentication and authorization.")
	fs.StringVar(&s.CertDir, "cert-dir", "", "The directory of the serving certificate; below the data directory when empty.")
	fs.StringVar(&s.TLSCertFile, "tls-cert-file", "", "File with the serving certificate and its chain; made in --cert-dir when empty.")
	fs.StringVar(&s.TLSKeyFile, "tls-private-key-file", "", "File with the key of --tls-cert-file.")
	fs.StringArrayVar(&s.SNICertKeys, "tls-sni-cert-key", nil, "A pair of certificate and key files, with the names they serve after a colon.")
	fs.StringVar(&s.TLSMinVersion, "tls-min-version", "", "Lowest TLS version: VersionTLS12 or VersionTLS13.")
	fs.StringSliceVar(&s.TLSCipherSuites, "tls-cipher-suites", nil, "Cipher suites of TLS 1.2; Go's choice when empty.")
	fs.StringVar(&s.ExternalHostname, "external-hostname", "", "The name clients reach the server by, shown in discovery.")
	fs.IntVar(&s.HTTP2MaxStreams, "http2-max-streams-per-connection", 0, "Streams a client may have in one HTTP/2 connection; zero means 100.")
	fs.StringSliceVar(&s.CORSAllowedOrigins, "cors-allowed-origins", nil, "Regular expressions of the origins that CORS allows.")
	fs.StringSliceVar(&s.StrictTransportSecurity, "strict-transport-security-directives", nil, "Directives of the Strict-Transport-Security header; the header is left out when empty.")
	fs.Float64Var(&s.GoawayChance, "goaway-chance", 0, "Share of HTTP/2 requests that are told to reconnect, at most 0.02.")
}

func (o *Options) addStore(fs *pflag.FlagSet) {
	s := &o.Store
	fs.StringVar(&s.Backend, "storage-backend", "", "Where the data is: etcd3 with --etcd-servers, otherwise the embedded store.")
	fs.StringSliceVar(&s.EtcdServers, "etcd-servers", nil, "The etcd servers to use (scheme://ip:port); the embedded store when empty.")
	fs.StringVar(&s.EtcdCAFile, "etcd-cafile", "", "File with the authority of etcd's certificates.")
	fs.StringVar(&s.EtcdCertFile, "etcd-certfile", "", "File with the client certificate for etcd.")
	fs.StringVar(&s.EtcdKeyFile, "etcd-keyfile", "", "File with the key of --etcd-certfile.")
	fs.StringVar(&s.EtcdPrefix, "etcd-prefix", "/registry", "The prefix of all keys.")
	fs.DurationVar(&s.EventTTL, "event-ttl", time.Hour, "How long events are kept.")
	fs.StringVar(&s.EncryptionProviderConfig, "encryption-provider-config", "", "File that says how secrets are encrypted at rest.")
	fs.BoolVar(&s.EncryptionProviderConfigAutomaticReload, "encryption-provider-config-automatic-reload", false, "Reload --encryption-provider-config when it changes.")
	fs.DurationVar(&s.CompactionInterval, "etcd-compaction-interval", 5*time.Minute, "How long history is kept; zero keeps it for ever.")
	fs.DurationVar(&s.HealthcheckTimeout, "etcd-healthcheck-timeout", 2*time.Second, "How long the store may take to answer a health check.")
	fs.DurationVar(&s.ReadycheckTimeout, "etcd-readycheck-timeout", 2*time.Second, "How long the store may take to answer a readiness check.")
	fs.DurationVar(&s.CountMetricPollPeriod, "etcd-count-metric-poll-period", time.Minute, "How often objects are counted for the metrics.")
	fs.StringVar(&s.StorageMediaType, "storage-media-type", "application/vnd.kubernetes.protobuf", "The form built-in objects are stored in.")
	fs.BoolVar(&s.WatchCache, "watch-cache", true, "Serve reads from memory. It is always on.")
	fs.IntVar(&s.DeleteCollectionWorkers, "delete-collection-workers", 1, "Workers of one deletecollection request.")
}

func (o *Options) addAuthentication(fs *pflag.FlagSet) {
	a := &o.Authentication
	fs.BoolVar(&a.Anonymous, "anonymous-auth", true, "Let requests without credentials in as system:anonymous.")
	fs.StringVar(&a.ClientCAFile, "client-ca-file", "", "File with the authorities of client certificates.")
	fs.StringVar(&a.TokenFile, "token-auth-file", "", "File with lines of token,user,uid[,\"group1,group2\"].")
	fs.StringVar(&a.ConfigFile, "authentication-config", "", "File with an AuthenticationConfiguration.")
	fs.BoolVar(&a.BootstrapToken, "enable-bootstrap-token-auth", false, "Accept the tokens of secrets of type bootstrap.kubernetes.io/token in kube-system.")
	fs.StringSliceVar(&a.APIAudiences, "api-audiences", nil, "The names of this API that tokens may be for; the issuer when empty.")
	fs.StringVar(&a.WebhookConfigFile, "authentication-token-webhook-config-file", "", "Kubeconfig of a webhook that reviews tokens.")
	fs.StringVar(&a.WebhookVersion, "authentication-token-webhook-version", "v1beta1", "Version of the TokenReview sent to the webhook.")
	fs.DurationVar(&a.WebhookCacheTTL, "authentication-token-webhook-cache-ttl", 2*time.Minute, "How long the webhook's answers are kept.")
	fs.StringVar(&a.RequestHeaderCAFile, "requestheader-client-ca-file", "", "File with the authorities of front proxies, whose headers name the user.")
	fs.StringSliceVar(&a.RequestHeaderNames, "requestheader-allowed-names", nil, "Common names of front proxies; any when empty.")
	fs.StringSliceVar(&a.RequestHeaderUsers, "requestheader-username-headers", nil, "Headers with the user's name, such as X-Remote-User.")
	fs.StringSliceVar(&a.RequestHeaderUIDs, "requestheader-uid-headers", nil, "Headers with the user's UID, such as X-Remote-Uid.")
	fs.StringSliceVar(&a.RequestHeaderGroups, "requestheader-group-headers", nil, "Headers with the user's groups, such as X-Remote-Group.")
	fs.StringSliceVar(&a.RequestHeaderExtraPrefix, "requestheader-extra-headers-prefix", nil, "Prefixes of headers with more about the user, such as X-Remote-Extra-.")

	oidc := &a.OIDC
	fs.StringVar(&oidc.IssuerURL, "oidc-issuer-url", "", "URL of the OpenID issuer, with the scheme https.")
	fs.StringVar(&oidc.ClientID, "oidc-client-id", "", "The client that OpenID tokens must be for.")
	fs.StringVar(&oidc.CAFile, "oidc-ca-file", "", "File with the authority of the issuer's certificate.")
	fs.StringVar(&oidc.UsernameClaim, "oidc-username-claim", "sub", "The claim with the user's name.")
	fs.StringVar(&oidc.UsernamePrefix, "oidc-username-prefix", "", "Prefix of user names; - means none.")
	fs.StringVar(&oidc.GroupsClaim, "oidc-groups-claim", "", "The claim with the user's groups.")
	fs.StringVar(&oidc.GroupsPrefix, "oidc-groups-prefix", "", "Prefix of groups.")
	fs.StringToStringVar(&oidc.RequiredClaims, "oidc-required-claim", nil, "Claims that a token must have, as key=value.")
	fs.StringSliceVar(&oidc.SigningAlgorithms, "oidc-signing-algs", []string{"RS256"}, "Signing algorithms that are accepted.")

	s := &o.ServiceAccount
	fs.StringArrayVar(&s.Issuers, "service-account-issuer", nil, "Identifier of the issuer of ServiceAccount tokens; the first is used for new ones.")
	fs.StringArrayVar(&s.KeyFiles, "service-account-key-file", nil, "File with public or private keys that ServiceAccount tokens may be signed with.")
	fs.StringVar(&s.SigningKeyFile, "service-account-signing-key-file", "", "File with the private key that signs ServiceAccount tokens.")
	fs.StringVar(&s.SigningEndpoint, "service-account-signing-endpoint", "", "Socket of an external signer of ServiceAccount tokens.")
	fs.StringVar(&s.JWKSURI, "service-account-jwks-uri", "", "Where the discovery document says that the keys are.")
	fs.DurationVar(&s.MaxExpiration, "service-account-max-token-expiration", 0, "Longest life of a token; zero means no limit.")
	fs.BoolVar(&s.ExtendExpiration, "service-account-extend-token-expiration", true, "Let tokens of pods live longer than asked, with a warning.")
	fs.BoolVar(&s.Lookup, "service-account-lookup", true, "Check that a token's ServiceAccount exists.")
}

func (o *Options) addAuthorization(fs *pflag.FlagSet) {
	a := &o.Authorization
	fs.StringSliceVar(&a.Modes, "authorization-mode", nil, "Authorizers in their order: AlwaysAllow, AlwaysDeny, ABAC, Webhook, RBAC, Node. AlwaysAllow when neither this nor --authorization-config is given.")
	fs.StringVar(&a.PolicyFile, "authorization-policy-file", "", "File with the policy of mode ABAC.")
	fs.StringVar(&a.ConfigFile, "authorization-config", "", "File with an AuthorizationConfiguration.")
	fs.StringVar(&a.WebhookConfigFile, "authorization-webhook-config-file", "", "Kubeconfig of the webhook of mode Webhook.")
	fs.StringVar(&a.WebhookVersion, "authorization-webhook-version", "v1beta1", "Version of the SubjectAccessReview sent to the webhook.")
	fs.DurationVar(&a.WebhookAuthorizedTTL, "authorization-webhook-cache-authorized-ttl", 5*time.Minute, "How long the webhook's allowances are kept.")
	fs.DurationVar(&a.WebhookUnauthorizedTTL, "authorization-webhook-cache-unauthorized-ttl", 30*time.Second, "How long the webhook's refusals are kept.")
}

func (o *Options) addAdmission(fs *pflag.FlagSet) {
	a := &o.Admission
	fs.StringSliceVar(&a.Enable, "enable-admission-plugins", nil, "Admission plug-ins to run besides those that are on by default.")
	fs.StringSliceVar(&a.Disable, "disable-admission-plugins", nil, "Admission plug-ins not to run although they are on by default.")
	fs.StringVar(&a.ConfigFile, "admission-control-config-file", "", "File with the configuration of admission plug-ins.")
	fs.Int64Var(&a.NotReadyTolerationSeconds, "default-not-ready-toleration-seconds", 300, "How long pods that do not say stay on a node that is not ready.")
	fs.Int64Var(&a.UnreachableTolerationSeconds, "default-unreachable-toleration-seconds", 300, "How long pods that do not say stay on a node that cannot be reached.")
	fs.BoolVar(&o.AllowPrivileged, "allow-privileged", false, "Allow privileged containers.")
	fs.StringToStringVar(&o.RuntimeConfig, "runtime-config", nil, "API versions to turn on or off, as group/version=true; api/legacy=true serves removed versions.")
	fs.StringToStringVar(&o.FeatureGates, "feature-gates", nil, "Features to turn on or off, as Name=true.")
}

func (o *Options) addNetwork(fs *pflag.FlagSet) {
	fs.StringVar(&o.ServiceClusterIPRange, "service-cluster-ip-range", "", "Ranges of cluster IPs, one or two with a comma, the default family first; 10.0.0.0/24 when empty.")
	fs.StringVar(&o.ServiceNodePortRange, "service-node-port-range", "30000-32767", "Range of node ports, both ends included.")
	k := &o.Kubelet
	fs.StringVar(&k.ClientCertFile, "kubelet-client-certificate", "", "File with the client certificate for kubelets.")
	fs.StringVar(&k.ClientKeyFile, "kubelet-client-key", "", "File with the key of --kubelet-client-certificate.")
	fs.StringVar(&k.CAFile, "kubelet-certificate-authority", "", "File with the authority of the kubelets' certificates.")
	fs.StringSliceVar(&k.PreferredAddressTypes, "kubelet-preferred-address-types",
		[]string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"}, "Types of node addresses to dial, the preferred first.")
	fs.DurationVar(&k.Timeout, "kubelet-timeout", 5*time.Second, "How long a connection to a kubelet may take.")
	fs.IntVar(&k.Port, "kubelet-port", 10250, "Port of kubelets that do not say theirs.")
	fs.StringVar(&o.ProxyClientCertFile, "proxy-client-cert-file", "", "File with the client certificate for aggregated servers and webhooks.")
	fs.StringVar(&o.ProxyClientKeyFile, "proxy-client-key-file", "", "File with the key of --proxy-client-cert-file.")
	fs.BoolVar(&o.EnableAggregatorRouting, "enable-aggregator-routing", false, "Dial the endpoints of aggregated servers, not their cluster IP.")
}

func (o *Options) addLimits(fs *pflag.FlagSet) {
	l := &o.Limits
	fs.IntVar(&l.MaxRequestsInflight, "max-requests-inflight", 400, "Read requests served at a time; with the next flag the total that priority and fairness shares out.")
	fs.IntVar(&l.MaxMutatingRequestsInflight, "max-mutating-requests-inflight", 200, "Writing requests served at a time.")
	fs.BoolVar(&l.PriorityAndFairness, "enable-priority-and-fairness", true, "Queue requests by priority level and flow.")
	fs.DurationVar(&l.RequestTimeout, "request-timeout", time.Minute, "How long a request may take that is no watch or stream.")
	fs.IntVar(&l.MinRequestTimeout, "min-request-timeout", 1800, "Least seconds before a watch is ended.")
	fs.DurationVar(&l.ShutdownDelay, "shutdown-delay-duration", 0, "How long to go on serving, not ready, before shutting down.")
	fs.BoolVar(&l.ShutdownSendRetryAfter, "shutdown-send-retry-after", false, "Answer new requests during shutdown with Retry-After.")
	fs.DurationVar(&l.ShutdownWatchTerminationGrace, "shutdown-watch-termination-grace-period", 0, "How long to wait for watches at shutdown.")
	fs.DurationVar(&l.LivezGracePeriod, "livez-grace-period", 0, "How long the server may take to start before /livez fails.")
	fs.BoolVar(&l.EnableGarbageCollector, "enable-garbage-collector", true, "Let deletions orphan or foreground their dependents; must match the controller manager's flag.")
	fs.StringVar(&l.EndpointReconciler, "endpoint-reconciler-type", "lease", "How the endpoints of the Service kubernetes are kept: lease or none.")
	fs.BoolVar(&o.Profiling, "profiling", true, "Serve /debug/pprof/.")
}
