// SPDX-License-Identifier: Apache-2.0

// Package aggregate lets other API servers serve groups of this one: it sends
// requests for the versions that APIServices name to their Services, checks
// whether these answer, and fetches their discovery and OpenAPI for those who
// merge them. It also keeps the APIServices of the versions that are served
// here.
//
// The API server hands it requests for resources that are not its own, after
// authenticating and authorizing them. It decides nothing about them: the other
// server is told who asks, in headers that a client certificate vouches for.
package aggregate

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/util/webhook"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/discovery"
	"kaji/internal/apiserver/openapi"
	"kaji/internal/apiserver/request"
	"kaji/internal/client"
)

// Config configures an Aggregator. All but Slices, Certificate and Logger are
// needed.
type Config struct {
	Cache *cache.Cache
	// Kind is APIService, as the cache knows it; Service and Slices are Service
	// and EndpointSlice. Without Slices, endpoints are not looked at.
	Kind, Service, Slices *api.Kind
	Kinds                 *request.Kinds
	// Client is the API server itself, under an identity that may do anything.
	Client   client.Verbs
	Services webhook.ServiceResolver
	// Certificate returns what the front proxy shows to other servers.
	Certificate func() *tls.Certificate
	Logger      *slog.Logger
}

// Aggregator serves what other API servers have. It is safe for concurrent use.
type Aggregator struct {
	cfg     Config
	log     *slog.Logger
	metrics *Metrics

	remotes    atomic.Pointer[table] // written by Run alone
	generation atomic.Uint64         // of what remotes say
}

// table is never changed, but replaced.
type table map[schema.GroupVersion]*remote

// New returns an Aggregator.
func New(cfg Config) *Aggregator {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Aggregator{cfg: cfg, log: cfg.Logger}
	a.metrics = newMetrics(a)
	a.remotes.Store(&table{})
	return a
}

// Metrics returns the figures to be registered.
func (a *Aggregator) Metrics() *Metrics { return a.metrics }

// sorted returns the remotes by the names of their APIServices.
func (a *Aggregator) sorted() []*remote {
	all := make([]*remote, 0, len(*a.remotes.Load()))
	for _, r := range *a.remotes.Load() {
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y *remote) int { return cmp.Compare(x.name, y.name) })
	return all
}

// Remote returns the versions that other servers serve, for discovery.
func (a *Aggregator) Remote() ([]discovery.Remote, uint64) {
	generation := a.generation.Load() // first: what follows is as new at least
	var out []discovery.Remote
	for _, r := range a.sorted() {
		out = append(out, discovery.Remote{
			GroupVersion: r.gv, GroupPriority: r.spec.GroupPriorityMinimum, VersionPriority: r.spec.VersionPriority, Document: r.known().document,
		})
	}
	return out, generation
}

// Schemas returns what other servers say in OpenAPI.
func (a *Aggregator) Schemas() ([]openapi.Remote, uint64) {
	generation := a.generation.Load()
	var out []openapi.Remote
	for _, r := range a.sorted() {
		if k := r.known(); len(k.index) > 0 || k.v2.compressed != nil {
			out = append(out, openapi.Remote{GroupVersion: r.gv, Index: k.index, Handler: r, V2: k.v2.compressed, ETag: k.v2.etag})
		}
	}
	return out, generation
}

// find returns the server of the version that a path is below, or nil.
func (a *Aggregator) find(path string) *remote {
	remotes := *a.remotes.Load()
	if len(remotes) == 0 {
		return nil
	}
	rest, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		return nil
	}
	group, rest, _ := strings.Cut(rest, "/")
	version, _, _ := strings.Cut(rest, "/")
	return remotes[schema.GroupVersion{Group: group, Version: version}]
}

// Has says whether another server has a version.
func (a *Aggregator) Has(gv schema.GroupVersion) bool { return (*a.remotes.Load())[gv] != nil }

// Serves says whether another server has what a request asks for.
func (a *Aggregator) Serves(r *http.Request) bool { return a.find(r.URL.Path) != nil }

// ServeHTTP sends a request on to the server that has what it asks for.
func (a *Aggregator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to := a.find(r.URL.Path)
	if to == nil {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	to.ServeHTTP(w, r)
}

// Times of looking at other servers.
const (
	// recheck is how often a server is looked at that nothing is said about.
	recheck = 30 * time.Second
	// relearn is how often it is asked for its discovery and OpenAPI.
	relearn = time.Minute
	// A server that fails is looked at again after firstRetry, then ever later.
	firstRetry = 5 * time.Millisecond
	// localEvery is how often the table of kinds is looked at.
	localEvery = time.Second
)
