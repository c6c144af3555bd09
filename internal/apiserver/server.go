// SPDX-License-Identifier: Apache-2.0

// Package apiserver is the Kubernetes API server: it authenticates, audits,
// throttles and authorizes requests, and answers those for resources from its
// cache and store. Its children are the stations of a request; this package
// puts them in order and serves them.
//
// Package app constructs it; components in the same process call it through
// Direct, everything else over HTTPS. It reads no files and knows no flags.
package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/api"
	"kaji/internal/apiserver/adminaccess"
	"kaji/internal/apiserver/admission"
	"kaji/internal/apiserver/admission/defaulttolerationseconds"
	"kaji/internal/apiserver/admission/dynamic"
	"kaji/internal/apiserver/aggregate"
	"kaji/internal/apiserver/alloc"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/crd"
	"kaji/internal/apiserver/discovery"
	"kaji/internal/apiserver/flow"
	"kaji/internal/apiserver/h2"
	"kaji/internal/apiserver/metrics"
	"kaji/internal/apiserver/object"
	"kaji/internal/apiserver/openapi"
	"kaji/internal/apiserver/proxy"
	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
	"kaji/internal/client/direct"
	"kaji/internal/store"
)

// Config configures a Server. Store and Kinds are needed, and an Authorizer or
// AlwaysAllow; everything else has a useful zero value.
type Config struct {
	Store store.Store
	// Kinds are served from the start; AddKind adds more.
	Kinds []*api.Kind

	// Listener and TLS serve the API; without a Listener only Direct does.
	Listener net.Listener
	TLS      *tls.Config

	// Authenticator says who asks; nil makes everybody anonymous.
	Authenticator authenticator.Request
	// Authorizer judges every request; nil refuses all but with AlwaysAllow.
	Authorizer  authorizer.Authorizer
	AlwaysAllow bool
	// Audit records requests, those of components in this process as well; nil
	// records none.
	Audit *audit.Audit
	// Impersonate wraps what comes after it; nil leaves the station out.
	Impersonate func(http.Handler) http.Handler
	// Flow bounds the requests that are served at a time; nil serves all.
	Flow *flow.Limits
	// Admission are plug-ins before the built-in ones, in their order.
	Admission []admission.Plugin
	// EnabledAdmission and DisabledAdmission name built-in plug-ins to add to
	// those that are on by default, and to leave out, webhooks and policies
	// included. AdmissionConfiguration are their configurations by name.
	EnabledAdmission, DisabledAdmission []string
	AdmissionConfiguration              map[string][]byte
	// TolerationSeconds is how long pods stay on nodes that fail, by default.
	TolerationSeconds defaulttolerationseconds.Config

	// Escalation judges writes of roles and bindings behind all plug-ins; nil
	// allows them.
	Escalation admission.Mutator

	// Virtual answers resources that are not stored.
	Virtual map[schema.GroupResource]verb.Virtual
	// Subresources are served besides the kinds' own.
	Subresources []verb.Subresource
	// Tokens issues tokens of ServiceAccounts; nil leaves their subresource out.
	Tokens verb.TokenIssuer
	// Hooks take part in the writes of resources.
	Hooks map[schema.GroupResource]object.Hook
	// ServiceRanges are the cluster IP ranges, one a family, the default
	// family first; NodePorts is the range of node ports, upstream's when zero.
	ServiceRanges []netip.Prefix
	NodePorts     alloc.PortRange
	// RouteToEndpoints lets webhooks and aggregated servers be reached at the
	// endpoints of their Services, where cluster IPs lead nowhere.
	RouteToEndpoints bool
	// Advertise is where other members of the cluster reach the server: the
	// endpoint of the Service "kubernetes". Without it the Service has none.
	Advertise netip.AddrPort
	// Identity names this server among those of the cluster: that of its Lease
	// in kube-system. Without it there is none.
	Identity string
	// Sealer encrypts stored values; nil stores them plainly.
	Sealer object.Sealer

	// KubeletTLS is how the server shows itself to kubelets and which of them
	// it trusts; KubeletAddressTypes are the node addresses to dial, the
	// preferred first.
	KubeletTLS          *tls.Config
	KubeletAddressTypes []corev1.NodeAddressType

	// FrontProxy returns what is shown to aggregated API servers, which are
	// told who asks; without it they cannot trust that.
	FrontProxy func() *tls.Certificate
	// ExternalAddress is what discovery names as the server's address; empty
	// means what the request says.
	ExternalAddress string

	// Routes serve paths that are no resources, by prefix (ending in "/") or
	// exactly; the longest match wins.
	Routes map[string]http.Handler
	// Delegate serves resources that are not among the kinds (aggregated
	// ones); nil answers 404.
	Delegate http.Handler
	// Checks are shown by /healthz, /livez and /readyz.
	Checks []Check

	// Collectors are metrics of what was handed over.
	Collectors []prometheus.Collector
	// Flags are shown by /flagz; Profiling serves /debug/pprof/.
	Flags     map[string]string
	Profiling bool

	// MaxStreams bounds the streams of one HTTP/2 connection; 100 when zero.
	MaxStreams int
	// RequestTimeout bounds requests that are not watches or streams; 60 s
	// when zero. MinWatchTimeout bounds watches that name no timeout.
	RequestTimeout, MinWatchTimeout time.Duration
	// ShutdownGrace is how long requests in flight may take at shutdown; 60 s
	// when zero.
	ShutdownGrace time.Duration
	Logger        *slog.Logger
}

// Server is an API server. All methods are safe for concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	kinds   *request.Kinds
	cache   *cache.Cache
	objects *object.Objects
	verbs   *verb.Verbs
	handler http.Handler

	metrics   *metrics.Metrics
	started   time.Time
	allocator *alloc.Allocator
	discovery *discovery.Discovery
	openapi   *openapi.OpenAPI
	slim      *crd.Slim
	custom    *crd.Controller // nil without definitions of custom resources
	dynamic   *dynamic.Plugins
	aggregate *aggregate.Aggregator // nil without APIServices
	flow      *flow.Flow            // nil when nothing bounds requests
	self      *direct.Client        // the server under its own identity

	// stopping ends when the server shuts down, and watches with it.
	stopping context.Context //nolint:containedctx // of the server, not of a call
	stop     context.CancelFunc
	// booted is closed when everything that must exist was created.
	booted chan struct{}
}

// New returns a server that serves once Run is called.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil {
		return nil, errors.New("apiserver: no store")
	}
	if cfg.Authorizer == nil && !cfg.AlwaysAllow {
		return nil, errors.New("apiserver: no authorizer")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 100
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = time.Minute
	}
	if cfg.ShutdownGrace == 0 {
		cfg.ShutdownGrace = time.Minute
	}
	s := &Server{cfg: cfg, log: cfg.Logger, kinds: request.NewKinds(cfg.Kinds...), booted: make(chan struct{})}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.started = time.Now()
	s.slim = crd.NewSlim()
	s.metrics = metrics.New(metrics.Config{Version: Version(), Sizes: s.sizes})
	s.metrics.Register(cfg.Collectors...)
	s.discovery = discovery.New(discovery.Config{Kinds: s.kinds, Remote: s.remote, ServerAddress: s.address})
	s.metrics.Register(s.discovery.Metrics())
	s.openapi = openapi.New(openapi.Config{Kinds: s.kinds, Custom: s.customSchema, Remote: s.remoteSchemas})
	s.cache = cache.New(cache.Config{
		Store: cfg.Store,
		Decode: func(kind *api.Kind, kv store.KeyValue) (api.Object, error) {
			return object.Decode(cfg.Sealer, kind, kv)
		},
		Slim:   s.slim.Hold,
		Logger: cfg.Logger,
	})
	for _, kind := range cfg.Kinds {
		if kind.Prefix != "" {
			s.cache.Add(kind)
		}
	}
	s.self = direct.New(s.Self(), nil)
	builtIn, err := s.builtIn()
	if err != nil {
		return nil, err
	}
	if err := dynamic.Check(cfg.AdmissionConfiguration); err != nil {
		return nil, err
	}
	cfg.Admission = s.withDynamic(append(slices.Clone(cfg.Admission), builtIn...))
	if cfg.Escalation != nil {
		cfg.Admission = append(cfg.Admission, cfg.Escalation)
	}
	hooks := maps.Clone(cfg.Hooks)
	if hooks == nil {
		hooks = map[schema.GroupResource]object.Hook{}
	}
	s.allocator = alloc.New(alloc.Config{
		Store: cfg.Store, Cache: s.cache, Kinds: s.kinds, Ranges: cfg.ServiceRanges, Ports: cfg.NodePorts,
	})
	hooks[schema.GroupResource{Resource: "services"}] = s.allocator
	if served := s.kinds.Kind(corev1.SchemeGroupVersion.WithKind("Namespace")); served != nil {
		admin := &adminaccess.Hook{Cache: s.cache, Namespaces: served.Kind}
		hooks[resourcev1.Resource("resourceclaims")] = admin
		hooks[resourcev1.Resource("resourceclaimtemplates")] = admin
	}
	s.objects = object.New(object.Config{
		Store: cfg.Store, Cache: s.cache, Kinds: s.kinds, Admission: cfg.Admission,
		Authorizer: cfg.Authorizer, TypeConverter: s.openapi.TypeConverterFor, Sealer: cfg.Sealer,
		Hooks: hooks, Logger: cfg.Logger,
	})
	proxies := proxy.New(proxy.Config{
		Objects: s.objects, Admission: cfg.Admission, KubeletTLS: cfg.KubeletTLS, AddressTypes: cfg.KubeletAddressTypes,
	})
	s.verbs = verb.New(verb.Config{
		Objects: s.objects, Cache: s.cache, Kinds: s.kinds,
		Subresources: append(proxies.Subresources(), cfg.Subresources...), Virtual: cfg.Virtual, Tokens: cfg.Tokens,
		Computed:        s.computed(proxies),
		MinWatchTimeout: cfg.MinWatchTimeout, WatchSent: s.metrics.WatchSent, Stopping: s.stopping, Logger: cfg.Logger,
	})
	s.custom = s.newCustom()
	s.aggregate = s.newAggregate()
	s.flow = s.newFlow()
	s.handler = s.chain(s.routes())
	return s, nil
}

// Kinds returns the table of what is served.
func (s *Server) Kinds() *request.Kinds { return s.kinds }

// Cache returns the cache; it holds every stored kind.
func (s *Server) Cache() *cache.Cache { return s.cache }

// Handler returns the whole chain, for tests and for proxies in the process.
func (s *Server) Handler() http.Handler { return s.handler }

// Objects returns the object layer, for subresources of other packages.
func (s *Server) Objects() *object.Objects { return s.objects }

// AddKind serves kind from now on; it replaces one of the same resource.
func (s *Server) AddKind(kind *api.Kind) {
	s.cache.Add(kind)
	s.kinds.Add(kind)
}

// RemoveKind stops serving a kind; its watches end.
func (s *Server) RemoveKind(kind *api.Kind) {
	s.kinds.Remove(kind.GroupResource())
	s.cache.Remove(kind)
	s.objects.Forget(kind)
}

// Run serves until ctx ends, then ends watches, lets requests in flight finish
// and returns.
func (s *Server) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	// The cache outlives the requests that wait for it.
	cacheCtx, stopCache := context.WithCancel(context.WithoutCancel(ctx))
	cacheDone := make(chan error, 1)
	parts.Go(func() { cacheDone <- s.cache.Run(cacheCtx) })
	defer parts.Wait()
	defer stopCache()
	if s.cfg.Audit != nil {
		// The last requests are recorded, too.
		auditCtx, stopAudit := context.WithCancel(context.WithoutCancel(ctx))
		defer stopAudit()
		parts.Go(func() { s.runAudit(auditCtx) })
	}
	parts.Go(func() {
		s.Bootstrap(ctx)
		close(s.booted)
		parts.Go(func() { s.keepRepaired(ctx) })
		if s.flow != nil {
			parts.Go(func() { s.runFlow(ctx) })
		}
		parts.Go(func() { s.keepIdentity(ctx) })
		s.keepKubernetesEndpoints(ctx)
	})
	s.self.Start(ctx)
	defer s.self.Wait()
	parts.Go(func() { _ = s.dynamic.Run(ctx) })
	if s.custom != nil {
		parts.Go(func() { _ = s.custom.Run(ctx) })
	}
	if s.aggregate != nil {
		parts.Go(func() { _ = s.aggregate.Run(ctx) })
	}

	if s.cfg.Listener == nil {
		select {
		case <-ctx.Done():
		case err := <-cacheDone:
			return err
		}
		s.stop()
		return nil
	}
	return s.serve(ctx, cacheDone)
}

func (s *Server) runAudit(ctx context.Context) {
	if err := s.cfg.Audit.Run(ctx); err != nil {
		s.log.Error("no audit events are kept", "err", err)
	}
}

// Booted is closed once everything that every cluster has exists.
func (s *Server) Booted() <-chan struct{} { return s.booted }

// Bootstrap creates what every cluster has, where it is missing. Everything is
// written at once, for one commit of the store; only the Service needs its
// namespace and range.
func (s *Server) Bootstrap(ctx context.Context) {
	var parts, before sync.WaitGroup
	parts.Go(func() { s.ensurePriorityClasses(ctx) })
	if s.kinds.Kind(corev1.SchemeGroupVersion.WithKind("Namespace")) != nil {
		before.Go(func() { s.ensureNamespaces(ctx) })
	}
	if len(s.cfg.ServiceRanges) > 0 {
		before.Go(func() { s.ensureServiceCIDR(ctx) })
		before.Wait()
		s.ensureKubernetesService(ctx)
	}
	before.Wait()
	parts.Wait()
}

// What clients may send before a request, and how long they may send none.
const (
	maxHeaderBytes = 1 << 20
	idleTimeout    = 90 * time.Second
)

func (s *Server) serve(ctx context.Context, cacheDone <-chan error) error {
	two := h2.New(h2.Config{MaxStreams: s.cfg.MaxStreams, MaxHeaderBytes: maxHeaderBytes, IdleTimeout: idleTimeout, Logger: s.log})
	web := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 32 * time.Second,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": two.ServeConn},
	}
	web.RegisterOnShutdown(two.Shutdown)
	served := make(chan error, 1)
	go func() {
		if s.cfg.TLS == nil {
			served <- web.Serve(s.cfg.Listener)
			return
		}
		served <- web.Serve(tls.NewListener(h2.Listener(s.cfg.Listener), serverTLS(s.cfg.TLS)))
	}()
	var failure error
	select {
	case <-ctx.Done():
	case err := <-cacheDone:
		failure = err
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	}
	s.stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownGrace)
	defer cancel()
	if err := web.Shutdown(grace); err != nil {
		_ = web.Close()
	}
	<-served
	return failure
}

// serverTLS completes a TLS configuration.
func serverTLS(given *tls.Config) *tls.Config {
	c := given.Clone()
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	if len(c.NextProtos) == 0 {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	return c
}
