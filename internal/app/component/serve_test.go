// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"kaji/internal/pki"
	"kaji/internal/scheduler"
	"kaji/internal/scheduler/flags"
	"kaji/kajitest"
)

// served serves a component's web until the test ends, and returns its URL.
func served(t *testing.T, trust *flags.Authentication, handler http.Handler) string {
	t.Helper()
	w := &web{name: "test", trust: trust, handler: handler, log: slog.New(slog.DiscardHandler)}
	for try := 0; ; try++ {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.serving = &flags.Serving{BindAddress: net.IPv4(127, 0, 0, 1), SecurePort: free.Addr().(*net.TCPAddr).Port}
		free.Close()
		if err = w.listen(); err == nil {
			break
		}
		if try == 20 { // others took the ports meanwhile
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "https://" + w.listener.Addr().String()
}

// shows is a client with a certificate of an authority, or without when nil.
func shows(t *testing.T, ca *pki.CA, groups ...string) *http.Client {
	t.Helper()
	c := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // the component's certificate is self-made
	if ca != nil {
		pair, err := ca.Issue(pki.Leaf{CommonName: "carl", Organizations: groups, Client: true})
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := pair.TLS()
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{certificate}
	}
	transport := &http.Transport{TLSClientConfig: c}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// TestWhoReadsAComponent: everybody reads the health of a controller manager or
// a scheduler, only who may reads its metrics and profiles, the latter only where they are
// served. It listens at the address it was told, by TLS 1.2 or newer.
func TestWhoReadsAComponent(t *testing.T) {
	ca, err := pki.EnsureCA(t.TempDir(), "ca", "test")
	if err != nil {
		t.Fatal(err)
	}
	strange, err := pki.EnsureCA(t.TempDir(), "ca", "strange")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "clients.pem")
	if err := os.WriteFile(file, ca.Cert, 0o600); err != nil {
		t.Fatal(err)
	}
	trust := &flags.Authentication{ClientCAFile: file, AlwaysAllowPaths: []string{"/healthz", "/readyz", "/livez"}}
	serve := func(args ...string) string {
		return served(t, trust, controllerHandler(newProcessMetrics().controllers.Registry(), &process{profiling: parsed(t, args...).Profiling}, nil))
	}
	open, closed := serve(), serve("--profiling=false")
	schedules := func(args ...string) string {
		fs := pflag.NewFlagSet("kube-scheduler", pflag.ContinueOnError)
		o := flags.New()
		o.AddFlags(fs)
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		configuration, err := o.Configuration(nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := scheduler.New(scheduler.Config{Client: kajitest.Start(t).Client(), Configuration: configuration, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		return served(t, trust, s.Handler())
	}
	scheduling, quietly := schedules(), schedules("--profiling=false")
	for _, c := range []struct {
		name, url string
		client    *http.Client
		want      int
	}{
		{"nobody", open + "/healthz", shows(t, nil), 200},
		{"nobody", open + "/metrics", shows(t, nil), 403},
		{"nobody", open + "/debug/pprof/", shows(t, nil), 403},
		{"a user", open + "/metrics", shows(t, ca, "devs"), 403},
		{"a stranger", open + "/metrics", shows(t, strange, "system:masters"), 401},
		{"an administrator", open + "/metrics", shows(t, ca, "system:masters"), 200},
		{"an administrator", open + "/debug/pprof/", shows(t, ca, "system:masters"), 200},
		{"an administrator", closed + "/debug/pprof/", shows(t, ca, "system:masters"), 404},
		{"an administrator", closed + "/debug/pprof/symbol", shows(t, ca, "system:masters"), 404},
		{"nobody", scheduling + "/healthz", shows(t, nil), 200},
		{"nobody", scheduling + "/metrics", shows(t, nil), 403},
		{"a user", scheduling + "/configz", shows(t, ca, "devs"), 403},
		{"an administrator", scheduling + "/debug/pprof/", shows(t, ca, "system:masters"), 200},
		{"an administrator", quietly + "/debug/pprof/", shows(t, ca, "system:masters"), 404},
	} {
		answer, err := c.client.Get(c.url)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != c.want {
			t.Errorf("%s at %s: %s, want %d", c.name, c.url, answer.Status, c.want)
		}
	}
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} //nolint:gosec // it is to be refused
	if conn, err := tls.Dial("tcp", open[len("https://"):], old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
}
