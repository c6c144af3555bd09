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

// serve answers on bind, if any; stop ends every listener and waits.
func (h *healthServer) serve(_ context.Context, bind string) (stop func(), err error) {
	var main *http.Server
	if bind != "" {
		mux := http.NewServeMux()
		mux.HandleFunc("/healthz", h.healthz)
		mux.HandleFunc("/livez", h.livez)
		if main, err = h.listen(bind, mux); err != nil {
			return nil, fmt.Errorf("proxy: health check: %w", err)
		}
	}
	return func() {
		if main != nil {
			main.Close()
		}
		h.mu.Lock()
		for k := range h.ports {
			h.drop(k)
		}
		h.mu.Unlock()
		h.serving.Wait()
	}, nil
}

func (h *healthServer) listen(address string, handler http.Handler) (*http.Server, error) {
	var l net.Listener
	err := netfilter.Within(h.netns, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10}
	h.serving.Add(1)
	go func() {
		defer h.serving.Done()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("health check server ended", "address", address, "err", err)
		}
	}()
	return server, nil
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
	server, err := h.listen(net.JoinHostPort("", strconv.Itoa(int(port))), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { h.answer(w, k) }))
	if err != nil {
		h.log.Error("the health check node port of a service cannot be served", "service", k.String(), "port", port, "err", err)
		return
	}
	h.ports[k] = &healthPort{port: port, local: local, server: server}
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
	last, leaving, well := h.lastSync, h.leaving, h.well()
	h.mu.Unlock()
	status := http.StatusOK
	if !well || leaving {
		status = http.StatusServiceUnavailable
	}
	answered(h.metrics.healthz, status)
	write(w, status, map[string]any{"lastUpdated": last.String(), "currentTime": time.Now().String(), "nodeEligible": !leaving})
}

func (h *healthServer) livez(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	last, well := h.lastSync, h.well()
	h.mu.Unlock()
	status := http.StatusOK
	if !well {
		status = http.StatusServiceUnavailable
	}
	answered(h.metrics.livez, status)
	write(w, status, map[string]any{"lastUpdated": last.String(), "currentTime": time.Now().String()})
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The client may be gone; there is nobody to tell then.
	_ = json.NewEncoder(w).Encode(body)
}
