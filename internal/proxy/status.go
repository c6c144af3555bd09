// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/component-base/version"
	configv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
)

// Mode is how the proxy works, in kube-proxy's words.
const Mode = "nftables"

// Status is what people and monitoring ask a proxy, at 127.0.0.1:10249 where
// nothing else is said: paths and answers are kube-proxy's.
type Status struct {
	// Configuration has the address, and is shown. An empty address serves nothing.
	Configuration *configv1alpha1.KubeProxyConfiguration
	Metrics       prometheus.Gatherer
	// Flags are shown, "name: value" a line; empty shows no page of flags.
	Flags  string
	Logger *slog.Logger
}

// bindPause is how long a port that belongs to another is waited for.
const bindPause = 5 * time.Second

// Run serves until ctx ends. A port that cannot be had is tried again, or is an
// error when the configuration wants that (BindAddressHardFail).
func (s *Status) Run(ctx context.Context) error {
	address := s.Configuration.MetricsBindAddress
	if address == "" {
		<-ctx.Done()
		return nil
	}
	l, err := listenOn(ctx, address, s.Configuration.BindAddressHardFail, s.Logger, func() (net.Listener, error) { return net.Listen("tcp", address) })
	if err != nil {
		return fmt.Errorf("starting metrics server failed: %w", err)
	}
	if l == nil {
		return nil
	}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listenOn listens, again and again unless failures are hard; nil says that ctx
// ended before.
func listenOn(ctx context.Context, address string, hard bool, log *slog.Logger, listen func() (net.Listener, error)) (net.Listener, error) {
	for said := false; ; said = true {
		l, err := listen()
		if err == nil || hard {
			return l, err
		}
		if !said {
			log.Warn("the address cannot be listened at, this is tried again", "address", address, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(bindPause):
		}
	}
}

func (s *Status) handler() http.Handler {
	mux := http.NewServeMux()
	started := time.Now()
	text := func(path string, body func() string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_, _ = io.WriteString(w, body()) // a client that left is no concern
		})
	}
	ok := func() string { return "ok" }
	text("/healthz", ok)
	text("/healthz/ping", ok)
	text("/proxyMode", func() string { return Mode })
	text("/statusz", func() string { return statusz(started) })
	if s.Flags != "" {
		text("/flagz", func() string { return "\nkube-proxy flagz\n" + notParseable + s.Flags })
	}
	mux.HandleFunc("GET /configz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_ = json.NewEncoder(w).Encode(map[string]any{configv1alpha1.GroupName: s.Configuration})
	})
	if s.Metrics != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{}))
	}
	if s.Configuration.EnableProfiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

const notParseable = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n"

func statusz(started time.Time) string {
	v, up := version.Get(), time.Since(started)
	return fmt.Sprintf("\nkube-proxy statusz\n%s\nStarted= %s\nUp= %d hr %02d min %02d sec\nGo version= %s\nBinary version= %s\nEmulation version= %s.%s\nPaths= /configz /flagz /healthz /metrics /proxyMode\n",
		notParseable, started.UTC().Format(time.UnixDate), int(up.Hours()), int(up.Minutes())%60, int(up.Seconds())%60, runtime.Version(),
		strings.TrimPrefix(strings.Split(v.GitVersion, "+")[0], "v"), v.Major, v.Minor)
}
