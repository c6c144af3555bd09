// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kaji/internal/proxy/config"
)

func TestStatus(t *testing.T) {
	// The port belongs to another at first.
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.MetricsBindAddress = other.Addr().String()
	registry := prometheus.NewRegistry()
	newMetrics(registry, true, false)
	s := &Status{Configuration: c, Metrics: registry, Flags: "config: x\n", Logger: slog.New(slog.DiscardHandler)}

	c.BindAddressHardFail = true
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a port in use: %v", err)
	}
	c.BindAddressHardFail = false
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	other.Close()
	get := func(path string) string {
		deadline := time.Now().Add(time.Minute)
		for {
			resp, err := http.Get("http://" + c.MetricsBindAddress + path)
			if err == nil {
				defer resp.Body.Close()
				b, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s: %s", path, resp.Status)
				}
				return string(b)
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	for path, want := range map[string]string{"/healthz": "ok", "/healthz/ping": "ok", "/proxyMode": "nftables", "/flagz": "config: x",
		"/statusz": "kube-proxy statusz", "/metrics": "kubeproxy_sync_proxy_rules_nftables_sync_failures_total"} {
		if got := get(path); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	var shown map[string]map[string]any
	if err := json.Unmarshal([]byte(get("/configz")), &shown); err != nil || shown["kubeproxy.config.k8s.io"]["metricsBindAddress"] != c.MetricsBindAddress {
		t.Errorf("/configz: %v, %v", shown, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTrackingMax(t *testing.T) {
	for _, one := range []struct{ perCore, min, processors, want int }{
		{0, 1000, 4, 0}, {32 << 10, 128 << 10, 2, 128 << 10}, {32 << 10, 128 << 10, 8, 256 << 10}, {32 << 10, 128 << 10, 64, 1 << 20}, {10, 0, 3, 30},
	} {
		got := Tracking{MaxPerCore: one.perCore, Min: one.min}.max(one.processors)
		if got != one.want {
			t.Errorf("%+v: got %d", one, got)
		}
	}
}
