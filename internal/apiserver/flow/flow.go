// SPDX-License-Identifier: Apache-2.0

// Package flow keeps one client's flood from starving others: API priority and
// fairness (KEP-1040). FlowSchemas sort requests into priority levels and flows;
// each level has its share of the server's seats, lends what it does not need,
// and shares it fairly among its flows (package fair). Where that is turned off,
// a bound on the requests in flight stands in.
//
// The API server puts its station before authorization. Components in the same
// process do not pass it: they are the server's own work. The objects that
// configure it are watched, and those every cluster has are kept, while Run
// runs; until then the mandatory ones apply.
package flow

import (
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"kaji/internal/apiserver/request"
	"kaji/internal/client"
)

// Limits bound the requests that are served at a time.
type Limits struct {
	// ReadOnly and Mutating bound requests in flight; fairness shares out their
	// sum. Zero means no bound.
	ReadOnly, Mutating int
	// Fair turns priority and fairness on.
	Fair bool
}

// Config configures a Flow; all fields but Logger are needed.
type Config struct {
	Limits Limits
	// Client reads and keeps the configuring objects; the server's own.
	Client client.Interface
	// Count returns how many objects of a request's resource there are; it must
	// be quick.
	Count func(*request.Info) int
	// LongRunning says whether a request lasts: only the start of a watch is
	// bounded, and nothing of other lasting requests.
	LongRunning func(*request.Info) bool
	// Timeout is the longest a request may take: a quarter of it may be spent
	// waiting.
	Timeout time.Duration
	Logger  *slog.Logger
}

// Flow is the station. Its methods are safe for concurrent use.
type Flow struct {
	cfg     Config
	log     *slog.Logger
	seed    maphash.Seed
	table   atomic.Pointer[table]
	watches watches
	metrics *Metrics

	mu     sync.Mutex // guards levels and what borrowing changes in them
	levels map[string]*level
	adjust atomic.Int64 // when borrowing is looked at next, Unix nanoseconds
}

// New returns the station, with the mandatory objects in force.
func New(cfg Config) *Flow {
	f := &Flow{cfg: cfg, log: cfg.Logger, seed: maphash.MakeSeed(), levels: map[string]*level{}}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.metrics = newMetrics(f)
	if cfg.Limits.Fair {
		f.configure(nil, nil)
	}
	return f
}

// Metrics returns the station's metrics.
func (f *Flow) Metrics() *Metrics { return f.metrics }

// Wrap bounds the requests that next serves. Their Info and user must be in the
// context.
func (f *Flow) Wrap(next http.Handler) http.Handler {
	if !f.cfg.Limits.Fair {
		return newInflight(f).wrap(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := request.From(r.Context())
		watching := in.Verb == "watch"
		if !watching && f.cfg.LongRunning(in) {
			next.ServeHTTP(w, r)
			return
		}
		if watching {
			defer in.AtEnd(f.watches.add(in))
		}
		who := request.User(r.Context())
		s := f.table.Load().match(who, in)
		h := w.Header()
		h[levelHeader], h[schemaHeader] = s.level.uid, s.uid
		if s.level.exempt {
			s.dispatched.Inc()
			s.executing.Inc()
			defer in.AtEnd(s.executing.Dec)
			next.ServeHTTP(w, r)
			return
		}
		f.serve(w, r, in, who, s, next)
	})
}

// Headers that tell which objects a request was sorted by; by UID, since names
// may tell more than the client should know.
const (
	levelHeader  = "X-Kubernetes-Pf-Prioritylevel-Uid"
	schemaHeader = "X-Kubernetes-Pf-Flowschema-Uid"
)

// serve serves a request once its level has seats for it.
func (f *Flow) serve(w http.ResponseWriter, r *http.Request, in *request.Info, who user.Info, s *schema, next http.Handler) {
	f.borrow()
	work := f.estimate(r, in, s.level)
	s.seats.Observe(float64(work.seats))
	s.waiting.Inc()
	ticket, waited, reason := s.level.fair.Acquire(r.Context(), f.hash(s, who, in), work.seats, f.patience(r))
	s.waiting.Dec()
	if reason != "" {
		s.refuse(reason, waited)
		refuse(w)
		return
	}
	s.dispatched.Inc()
	s.waitedAndServed.Observe(waited.Seconds())
	s.executing.Inc()
	began := time.Now()
	var once sync.Once
	release := func() {
		once.Do(func() {
			s.executing.Dec()
			s.served.Observe(time.Since(began).Seconds())
			if work.after > 0 {
				// Its watchers are being told; that work is the request's, too.
				time.AfterFunc(work.after, ticket.Release)
				return
			}
			ticket.Release()
		})
	}
	defer in.AtEnd(release)
	if in.Verb == "watch" {
		r = r.WithContext(request.WithStarted(r.Context(), release))
	}
	next.ServeHTTP(w, r)
}

// refuse asks the client to come back.
func refuse(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
}

// patience is how long a request may wait: a quarter of the time it has.
func (f *Flow) patience(r *http.Request) time.Duration {
	limit := f.cfg.Timeout
	if deadline, ok := r.Context().Deadline(); ok {
		limit = time.Until(deadline)
	}
	return min(limit/4, time.Minute)
}

// hash names the flow a request belongs to.
func (f *Flow) hash(s *schema, who user.Info, in *request.Info) uint64 {
	switch s.by {
	case byUser:
		return s.hash ^ maphash.String(f.seed, who.GetName())
	case byNamespace:
		return s.hash ^ maphash.String(f.seed, in.Namespace)
	}
	return s.hash
}
