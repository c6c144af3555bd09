// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// status serves what CoreDNS's plug-ins prometheus, health and ready do, at the
// name server's own addresses, as the Corefile has them.
type status struct {
	addresses []netip.Addr
	handlers  map[string]http.Handler
	log       *slog.Logger

	mu      sync.Mutex // guards what follows
	ctx     context.Context
	ports   map[string]uint16
	open    map[string][]*http.Server
	serving sync.WaitGroup
}

func newStatus(listen []netip.AddrPort, metrics prometheus.Gatherer, ready func() bool, log *slog.Logger) *status {
	s := &status{log: log, open: map[string][]*http.Server{}, handlers: map[string]http.Handler{}}
	for _, at := range listen {
		s.addresses = append(s.addresses, at.Addr())
	}
	if metrics != nil {
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
		says(mux, "/health", healthy)
		says(mux, "/ready", ready)
		s.handlers["prometheus"] = mux
	}
	health, readiness := http.NewServeMux(), http.NewServeMux()
	says(health, "/health", healthy)
	says(readiness, "/ready", ready)
	s.handlers["health"], s.handlers["ready"] = health, readiness
	return s
}

func healthy() bool { return true }

// says answers a path with OK while something is true.
func says(mux *http.ServeMux, path string, well func() bool) {
	mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		if !well() {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "kubernetes") // the plug-in that is not ready
			return
		}
		_, _ = io.WriteString(w, http.StatusText(http.StatusOK))
	})
}

// want sets the ports of the plug-ins; they open once run runs.
func (s *status) want(ports map[string]uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.open {
		if ports[name] != s.ports[name] {
			s.shut(name)
		}
	}
	s.ports = ports
	if s.ctx != nil {
		s.openAll()
	}
}

// run serves until ctx ends, and waits then.
func (s *status) run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	s.openAll()
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil
	for name := range s.open {
		s.shut(name)
	}
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *status) shut(name string) {
	for _, one := range s.open[name] {
		_ = one.Close() // nobody is left to tell
	}
	delete(s.open, name)
}

func (s *status) openAll() {
	for name, port := range s.ports {
		if s.open[name] != nil || s.handlers[name] == nil || port == 0 {
			continue
		}
		for _, addr := range s.addresses {
			l, err := net.Listen("tcp", netip.AddrPortFrom(addr, port).String())
			if err != nil {
				s.log.Warn("the name server cannot show how it is", "plugin", name, "err", err)
				continue
			}
			server := &http.Server{Handler: s.handlers[name], ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
			s.open[name] = append(s.open[name], server)
			s.serving.Go(func() {
				if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
					s.log.Warn("the name server shows no more how it is", "plugin", name, "err", err)
				}
			})
		}
	}
}
