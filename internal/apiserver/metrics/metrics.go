// SPDX-License-Identifier: Apache-2.0

// Package metrics counts requests and serves the counts, by upstream's names
// and labels.
//
// The API server wraps its chain in Instrument. Series are looked up once a
// kind of request and kept, so that counting costs no more than a few atomic
// additions.
package metrics

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/metrics/legacyregistry"

	"kaji/internal/apiserver/request"
)

// Config configures Metrics.
type Config struct {
	Version version.Info
	// Sizes returns the bytes the store occupies, and how many objects of
	// each resource the cache holds; they are asked when metrics are read.
	Sizes func(ctx context.Context) (store int64, objects map[Resource]int)
}

// Resource names a resource in labels.
type Resource struct{ Group, Resource string }

// Metrics are the API server's own. It is safe for concurrent use.
type Metrics struct {
	*Trust
	cfg      Config
	registry *prometheus.Registry
	handler  http.Handler

	requests     *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	slis         *prometheus.HistogramVec
	sizes        *prometheus.HistogramVec
	bodies       *prometheus.HistogramVec
	inflight     *prometheus.GaugeVec
	long         *prometheus.GaugeVec
	deprecated   *prometheus.GaugeVec
	terminations *prometheus.CounterVec
	watchEvents  *prometheus.CounterVec
	watchSizes   *prometheus.HistogramVec

	reading, writing prometheus.Gauge
	series           sync.Map // seriesKey to *series
}

// labels of a request, in the order the vectors have them.
var (
	requestLabels = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	countLabels   = []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"}
	timeLabels    = []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}
)

var timeBuckets = []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}

const component = "apiserver"

// New returns Metrics.
func New(cfg Config) *Metrics {
	m := &Metrics{cfg: cfg, registry: prometheus.NewRegistry()}
	m.requests = counter("apiserver_request_total", "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.", countLabels...)
	m.durations = histogram("apiserver_request_duration_seconds", "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.", timeBuckets, timeLabels...)
	m.slis = histogram("apiserver_request_sli_duration_seconds", "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.", timeBuckets, requestLabels...)
	m.sizes = histogram("apiserver_response_sizes", "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.", prometheus.ExponentialBuckets(1000, 10, 7), requestLabels...)
	m.bodies = histogram("apiserver_request_body_size_bytes", "Apiserver request body size in bytes broken out by resource and verb.", prometheus.LinearBuckets(50000, 100000, 31), "resource", "verb", "group")
	m.inflight = gauge("apiserver_current_inflight_requests", "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.", "request_kind")
	m.long = gauge("apiserver_longrunning_requests", "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.", requestLabels...)
	m.deprecated = gauge("apiserver_requested_deprecated_apis", "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.", "group", "version", "resource", "subresource", "removed_release")
	m.terminations = counter("apiserver_request_terminations_total", "Number of requests which apiserver terminated in self-defense.", "verb", "group", "version", "resource", "subresource", "scope", "component", "code")
	m.watchEvents = counter("apiserver_watch_events_total", "Number of events sent in watch clients", "group", "version", "resource")
	m.watchSizes = histogram("apiserver_watch_events_sizes", "Watch event size distribution in bytes", prometheus.ExponentialBuckets(1024, 2, 8), "group", "version", "resource")
	m.Trust = NewTrust()
	m.registry.MustRegister(m.Trust.Collectors()...)
	build := gauge("kubernetes_build_info", "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
		"major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler", "platform")
	v := cfg.Version
	build.WithLabelValues(v.Major, v.Minor, v.GitVersion, v.GitCommit, v.GitTreeState, v.BuildDate, v.GoVersion, v.Compiler, v.Platform).Set(1)
	m.registry.MustRegister(m.requests, m.durations, m.slis, m.sizes, m.bodies, m.inflight, m.long, m.deprecated, m.terminations, m.watchEvents, m.watchSizes, build, &stored{m})
	m.reading, m.writing = m.inflight.WithLabelValues("readOnly"), m.inflight.WithLabelValues("mutating")
	// Libraries of the field count in a registry of their own, which has the
	// process's and Go's metrics too.
	gather := prometheus.Gatherers{m.registry, prometheus.GathererFunc(legacyregistry.DefaultGatherer.Gather)}
	m.handler = promhttp.HandlerFor(gather, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return m
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "[STABLE] " + help}, labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "[STABLE] " + help}, labels)
}

// histogram has classic buckets and, for those who scrape in protobuf, native
// ones as fine as upstream's (KEP-5808).
func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: "[STABLE] " + help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160}, labels)
}

// Register adds collectors of other parts of the server.
func (m *Metrics) Register(collectors ...prometheus.Collector) {
	m.registry.MustRegister(collectors...)
}

// ServeHTTP answers /metrics.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }

// seriesKey is one kind of request.
type seriesKey struct {
	verb, group, version, resource, subresource, scope string
	dryRun                                             bool
	code                                               int
}

// series are the metrics of one kind of request.
type series struct {
	total         prometheus.Counter
	duration, sli prometheus.Observer
	size          prometheus.Observer
	body          prometheus.Observer // nil for reads
	deprecated    prometheus.Gauge    // nil for current versions
	long          bool
}

// verbOf is how metrics name the request's verb.
func verbOf(in *request.Info, r *http.Request) string {
	if !in.IsResourceRequest {
		return knownMethod(r.Method)
	}
	switch in.Verb {
	case "list", "watch", "deletecollection":
		return strings.ToUpper(in.Verb)
	case "patch":
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch") {
			return "APPLY"
		}
	}
	switch in.Subresource {
	case "proxy", "exec", "attach", "portforward":
		return "CONNECT"
	case "log":
		return "CONNECT"
	}
	return knownMethod(r.Method)
}

func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions:
		return method
	}
	return "other"
}

// scopeOf says how much of a resource a request is about.
func scopeOf(in *request.Info) string {
	switch {
	case !in.IsResourceRequest:
		return ""
	case in.Name != "" || in.Verb == "create":
		return "resource"
	case in.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

func (m *Metrics) of(key seriesKey, in *request.Info) *series {
	if s, ok := m.series.Load(key); ok {
		return s.(*series)
	}
	dry := ""
	if key.dryRun {
		dry = "All"
	}
	s := &series{
		total:    m.requests.WithLabelValues(key.verb, dry, key.group, key.version, key.resource, key.subresource, key.scope, component, strconv.Itoa(key.code)),
		duration: m.durations.WithLabelValues(key.verb, dry, key.group, key.version, key.resource, key.subresource, key.scope, component),
		size:     m.sizes.WithLabelValues(key.verb, key.group, key.version, key.resource, key.subresource, key.scope, component),
		long:     key.verb == "WATCH" || key.verb == "CONNECT",
	}
	if !s.long {
		s.sli = m.slis.WithLabelValues(key.verb, key.group, key.version, key.resource, key.subresource, key.scope, component)
	}
	switch key.verb {
	case "POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION":
		s.body = m.bodies.WithLabelValues(key.resource, strings.ToLower(in.Verb), key.group)
	}
	if in.Served != nil && in.Version.Deprecated > 0 {
		removed := ""
		if in.Version.Removed > 0 {
			removed = "1." + strconv.Itoa(in.Version.Removed)
		}
		s.deprecated = m.deprecated.WithLabelValues(key.group, key.version, key.resource, key.subresource, removed)
	}
	kept, _ := m.series.LoadOrStore(key, s)
	return kept.(*series)
}

// Instrument counts the requests that next answers. The request's Info must be
// in the context.
func (m *Metrics) Instrument(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := request.From(r.Context())
		start := time.Now()
		out := &recorder{ResponseWriter: w}
		verb := verbOf(in, r)
		done := m.enter(in, verb)
		// What is needed at the end, and not all of a request that may last.
		size, dryRun := r.ContentLength, strings.Contains(r.URL.RawQuery, "dryRun=All")
		defer in.AtEnd(func() {
			done()
			key := seriesKey{verb: verb, scope: scopeOf(in), code: out.status()}
			if in.IsResourceRequest && in.Served != nil {
				// Only what is served is named: paths must not become series.
				key.group, key.version, key.resource, key.subresource = in.APIGroup, in.APIVersion, in.Resource, in.Subresource
				key.dryRun = dryRun
			}
			s := m.of(key, in)
			s.total.Inc()
			took := time.Since(start).Seconds()
			s.duration.Observe(took)
			if s.sli != nil {
				s.sli.Observe(took)
				s.size.Observe(float64(out.bytes))
			}
			if s.body != nil && size >= 0 {
				s.body.Observe(float64(size))
			}
			if s.deprecated != nil {
				s.deprecated.Set(1)
			}
		})
		next.ServeHTTP(out, r)
	})
}

// enter counts a request as under way until the returned function is called.
func (m *Metrics) enter(in *request.Info, verb string) (leave func()) {
	var g prometheus.Gauge
	switch {
	case verb == "WATCH" || verb == "CONNECT":
		if in.Served == nil {
			return func() {}
		}
		g = m.long.WithLabelValues(verb, in.APIGroup, in.APIVersion, in.Resource, in.Subresource, scopeOf(in), component)
	case verb == "GET" || verb == "LIST" || verb == "HEAD":
		g = m.reading
	default:
		g = m.writing
	}
	g.Inc()
	return g.Dec
}

// WatchSent returns what counts the events a watch of the request sends.
func (m *Metrics) WatchSent(in *request.Info) func(bytes int) {
	events := m.watchEvents.WithLabelValues(in.APIGroup, in.APIVersion, in.Resource)
	sizes := m.watchSizes.WithLabelValues(in.APIGroup, in.APIVersion, in.Resource)
	return func(bytes int) {
		events.Inc()
		sizes.Observe(float64(bytes))
	}
}
