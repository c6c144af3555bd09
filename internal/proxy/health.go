// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"kaji/internal/netfilter"
)

// healthServer answers load balancers: whether the node's proxy is well, and,
// for Services that keep traffic on the node, whether it has endpoints.
type healthServer struct {
	log     *slog.Logger
	netns   int
	metrics *metrics

	mu       sync.Mutex
	ports    map[key]*healthPort
	lastSync time.Time
	failing  time.Time // since when; zero is not
	leaving  bool
	serving  sync.WaitGroup
}

type healthPort struct {
	port   int32
	local  int
	server *http.Server
}

// failurePatience is how long programming may fail before the proxy is unwell.
const failurePatience = time.Minute

func newHealthServer(netns int, log *slog.Logger, m *metrics) *healthServer {
	return &healthServer{log: log, netns: netns, metrics: m, ports: map[key]*healthPort{}}
}

// serve answers on bind, if any; stop ends every listener and waits. An address
// that cannot be had is tried again, or is an error when failures are hard.
func (h *healthServer) serve(ctx context.Context, bind string, hard bool) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	if bind != "" {
		if err := h.serveMain(ctx, bind, hard); err != nil {
			cancel()
			return nil, err
		}
	}
	return func() {
		cancel()
		h.mu.Lock()
		for k := range h.ports {
			h.drop(k)
		}
		h.mu.Unlock()
		h.serving.Wait()
	}, nil
}

func (h *healthServer) serveMain(ctx context.Context, bind string, hard bool) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", h.healthz)
	mux.HandleFunc("/livez", h.livez)
	l, err := h.listen(bind)
	if err != nil && hard {
		return fmt.Errorf("proxy: health check: %w", err)
	}
	h.serving.Go(func() {
		if l == nil {
			l, _ = listenOn(ctx, bind, false, h.log, func() (net.Listener, error) { return h.listen(bind) }) // it fails only when failures are hard
		}
		if l != nil {
			main := h.serveAt(l, mux)
			<-ctx.Done()
			main.Close()
		}
	})
	return nil
}

func (h *healthServer) listen(address string) (l net.Listener, err error) {
	err = netfilter.Within(h.netns, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

func (h *healthServer) serveAt(l net.Listener, handler http.Handler) *http.Server {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10}
	h.serving.Add(1)
	go func() {
		defer h.serving.Done()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("health check server ended", "address", l.Addr().String(), "err", err)
		}
	}()
	return server
}

func (h *healthServer) synced() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastSync, h.failing = time.Now(), time.Time{}
}

func (h *healthServer) failed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing.IsZero() {
		h.failing = time.Now()
	}
}

// well says whether the rules are in force; h.mu is held.
func (h *healthServer) well() bool {
	return !h.lastSync.IsZero() && (h.failing.IsZero() || time.Since(h.failing) < failurePatience)
}

func (h *healthServer) nodeLeaving(leaving bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaving = leaving
}

// set serves a Service's health check node port.
func (h *healthServer) set(k key, port int32, local int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.ports[k]; p != nil {
		if p.port == port {
			p.local = local
			return
		}
		h.drop(k)
	}
	l, err := h.listen(net.JoinHostPort("", strconv.Itoa(int(port))))
	if err != nil {
		h.log.Error("the health check node port of a service cannot be served", "service", k.String(), "port", port, "err", err)
		return
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { h.answer(w, k) })
	h.ports[k] = &healthPort{port: port, local: local, server: h.serveAt(l, answer)}
}

func (h *healthServer) remove(k key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(k)
}

func (h *healthServer) drop(k key) {
	if p := h.ports[k]; p != nil {
		p.server.Close()
		delete(h.ports, k)
	}
}

// answer is upstream's answer on a health check node port.
func (h *healthServer) answer(w http.ResponseWriter, k key) {
	h.mu.Lock()
	p, healthy := h.ports[k], h.well() && !h.leaving
	local := 0
	if p != nil {
		local = p.local
	}
	h.mu.Unlock()
	if p == nil {
		http.Error(w, "service not found", http.StatusServiceUnavailable)
		return
	}
	status := http.StatusOK
	if local == 0 || !healthy {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(local))
	write(w, status, map[string]any{
		"service":             map[string]string{"namespace": k.namespace, "name": k.name},
		"localEndpoints":      local,
		"serviceProxyHealthy": healthy,
	})
}

func (h *healthServer) healthz(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	body, eligible := h.body(), !h.leaving
	h.mu.Unlock()
	body.NodeEligible = &eligible
	body.Healthy = body.Healthy && eligible
	answered(h.metrics.healthz, body.write(w))
}

func (h *healthServer) livez(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	body := h.body()
	h.mu.Unlock()
	answered(h.metrics.livez, body.write(w))
}

// health is upstream's answer: how the proxy is, and each family.
type health struct {
	LastUpdated  time.Time               `json:"lastUpdated"`
	CurrentTime  time.Time               `json:"currentTime"`
	NodeEligible *bool                   `json:"nodeEligible,omitempty"`
	Healthy      bool                    `json:"healthy"`
	Status       map[string]familyHealth `json:"status"`
}

type familyHealth struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

// body says how things are; h.mu is held. Both families are written together.
func (h *healthServer) body() health {
	now := time.Now().UTC()
	b := health{LastUpdated: h.lastSync.UTC(), CurrentTime: now, Healthy: h.well(), Status: map[string]familyHealth{}}
	if b.Healthy && h.failing.IsZero() {
		b.LastUpdated = now // nothing is waiting to be written
	}
	for _, name := range h.metrics.families {
		b.Status[name] = familyHealth{h.lastSync.UTC(), b.Healthy}
	}
	return b
}

func (b health) write(w http.ResponseWriter) (status int) {
	status = http.StatusOK
	if !b.Healthy {
		status = http.StatusServiceUnavailable
	}
	write(w, status, b)
	return status
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The client may be gone; there is nobody to tell then.
	_ = json.NewEncoder(w).Encode(body)
}
