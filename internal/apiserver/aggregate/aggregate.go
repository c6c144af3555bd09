// SPDX-License-Identifier: Apache-2.0

// Package aggregate lets other API servers serve groups of this one: it sends
// requests for the versions that APIServices name to their Services, checks
// whether these answer, and merges their discovery. It also keeps the
// APIServices of the versions that are served here.
//
// The API server hands it requests for resources that are not its own, after
// authenticating and authorizing them. It decides nothing about them: the other
// server is told who asks, in headers that a client certificate vouches for.
package aggregate

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/util/webhook"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/discovery"
	"kaji/internal/apiserver/request"
	"kaji/internal/client"
)

// Config configures an Aggregator. All but Certificate and Logger are needed.
type Config struct {
	Cache *cache.Cache
	// Kind is APIService, as the cache knows it.
	Kind  *api.Kind
	Kinds *request.Kinds
	// Client is the API server itself, under an identity that may do anything.
	Client   client.Verbs
	Services webhook.ServiceResolver
	// Certificate returns what the front proxy shows to other servers.
	Certificate func() *tls.Certificate
	Logger      *slog.Logger
}

// How often other servers are looked at, and the table of kinds.
const (
	checkEvery = 30 * time.Second
	kindsEvery = time.Second
)

// Aggregator serves what other API servers have. It is safe for concurrent use.
type Aggregator struct {
	cfg Config
	log *slog.Logger

	mu         sync.RWMutex
	remotes    map[schema.GroupVersion]*remote // guarded by mu
	generation uint64                          // of discovery, guarded by mu
}

// New returns an Aggregator.
func New(cfg Config) *Aggregator {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Aggregator{cfg: cfg, log: cfg.Logger, remotes: map[schema.GroupVersion]*remote{}}
}

// Run keeps APIServices until ctx ends.
func (a *Aggregator) Run(ctx context.Context) error {
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	kinds := time.NewTicker(kindsEvery)
	defer kinds.Stop()
	var seen []*api.Kind
	var cursor *cache.Cursor
	due := true
	for ctx.Err() == nil {
		if cursor == nil {
			at, err := a.cfg.Cache.Snapshot(ctx, a.cfg.Kind)
			if err != nil {
				if !sleep(ctx, kindsEvery) {
					return ctx.Err()
				}
				continue
			}
			cursor = a.cfg.Cache.Cursor(at)
			due, seen = true, nil
		}
		if now := a.cfg.Kinds.All(); len(now) > 0 && (len(seen) != len(now) || &seen[0] != &now[0]) && a.syncLocal(ctx, now) {
			seen = now
		}
		if due {
			a.syncRemote(ctx)
		}
		due = false
		select {
		case <-ctx.Done():
		case <-cursor.Ended():
			cursor = nil
		case <-kinds.C:
		case <-check.C:
			due = true
		case <-cursor.Ready():
			for {
				event, err := cursor.TryNext()
				if err != nil {
					cursor = nil
					break
				}
				if event == nil {
					break
				}
				due = due || concernsRemote(event)
				if event.Deleted {
					seen = nil // a local one comes back
				}
			}
		}
	}
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// concernsRemote says whether a change is one of where requests go; what this
// package writes itself, statuses, is not.
func concernsRemote(event *cache.Event) bool {
	s := event.Entry.Object.(*apiregistrationv1.APIService)
	if event.Prev == nil || event.Deleted {
		return s.Spec.Service != nil
	}
	old := event.Prev.Object.(*apiregistrationv1.APIService)
	return s.Spec.String() != old.Spec.String()
}

// Remote returns the versions that other servers serve, for discovery.
func (a *Aggregator) Remote() ([]discovery.Remote, uint64) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var out []discovery.Remote
	for _, r := range a.remotes {
		if r.document.Version != "" {
			out = append(out, discovery.Remote{
				GroupVersion: r.gv, GroupPriority: r.spec.GroupPriorityMinimum, VersionPriority: r.spec.VersionPriority, Document: r.document,
			})
		}
	}
	return out, a.generation
}

// find returns the server of the version that a path is below, or nil.
func (a *Aggregator) find(path string) *remote {
	rest, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		return nil
	}
	group, rest, _ := strings.Cut(rest, "/")
	version, _, _ := strings.Cut(rest, "/")
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.remotes[schema.GroupVersion{Group: group, Version: version}]
}

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
