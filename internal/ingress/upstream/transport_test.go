// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestAPodThatEndsWithARequest has one endpoint take a request and die: what is
// idempotent goes to the other, what is not fails.
func TestAPodThatEndsWithARequest(t *testing.T) {
	for _, tt := range []struct {
		method, body string
		served       bool
	}{
		{http.MethodGet, "", true},
		{http.MethodHead, "", true},
		{http.MethodDelete, "", true},
		{http.MethodPost, "", false},
		{http.MethodPatch, "x", false},
		{http.MethodPut, "x", false}, // the body is gone
	} {
		t.Run(tt.method, func(t *testing.T) {
			var deaths atomic.Int32
			dying := server(t, func(w http.ResponseWriter, r *http.Request) {
				deaths.Add(1)
				conn, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					conn.Close()
				}
			})
			alive := server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
			pool := &Pool{}
			pool.Set([]string{dying, alive}, "")
			answer, err := send(t, pool, tt.method, tt.body)
			if deaths.Load() != 1 {
				t.Fatalf("the first endpoint died %d times, want once", deaths.Load())
			}
			if tt.served != (err == nil) {
				t.Fatalf("got %v, %v; want it served: %t", answer, err, tt.served)
			}
			if err == nil && answer.StatusCode != http.StatusAccepted {
				t.Errorf("got %s", answer.Status)
			}
		})
	}
}

// TestThePoolChangesBetweenTries: the only endpoint refuses, and by then the
// pool has another.
func TestThePoolChangesBetweenTries(t *testing.T) {
	alive := server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	pool := &Pool{}
	pool.Set([]string{"127.0.0.1:1"}, "")
	transport := New(func(ctx context.Context, network, address string) (net.Conn, error) {
		pool.Set([]string{alive}, "")
		return (&net.Dialer{}).DialContext(ctx, network, address)
	})
	defer transport.Close()
	req := httptest.NewRequestWithContext(With(t.Context(), &Call{Pool: pool}), http.MethodPost, "/", strings.NewReader("x"))
	answer, err := transport.RoundTrip(req)
	if err != nil || answer.StatusCode != http.StatusAccepted {
		t.Fatalf("got %v, %v", answer, err)
	}
	answer.Body.Close()
}

// server returns the address of a server that lives as long as the test.
func server(t *testing.T, serve http.HandlerFunc) string {
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func send(t *testing.T, pool *Pool, method, body string) (*http.Response, error) {
	t.Helper()
	transport := New((&net.Dialer{}).DialContext)
	defer transport.Close()
	req := httptest.NewRequestWithContext(With(t.Context(), &Call{Pool: pool}), method, "/", http.NoBody)
	if body != "" {
		req = httptest.NewRequestWithContext(With(t.Context(), &Call{Pool: pool}), method, "/", strings.NewReader(body))
	}
	answer, err := transport.RoundTrip(req)
	if err == nil {
		answer.Body.Close()
	}
	return answer, err
}
