// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"
)

// A hook reaches a server whatever certificate it has, and one that speaks
// plain HTTP instead, which an event tells.
func TestHookByHTTPS(t *testing.T) {
	asked := make(chan string, 1)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.RequestURI() })
	events := record.NewFakeRecorder(1)
	r := New(Config{Recorder: events})
	for _, c := range []struct {
		name  string
		start func(http.Handler) *httptest.Server
		event string
	}{
		{"certificate of nobody known", httptest.NewTLSServer, ""},
		{"no TLS", httptest.NewServer, "Warning LifecycleHTTPFallback request to HTTPS lifecycle hook "},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := c.start(handler)
			defer server.Close()
			u, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			host, port, err := net.SplitHostPort(u.Host)
			if err != nil {
				t.Fatal(err)
			}
			number, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			hook := &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Scheme: corev1.URISchemeHTTPS, Host: host, Port: intstr.FromInt(number), Path: "/dial?a=b"}}
			if err := r.hook(t.Context(), &corev1.Pod{}, &corev1.Container{}, "", nil, hook); err != nil {
				t.Fatal(err)
			}
			if got := <-asked; got != "/dial?a=b" {
				t.Errorf("asked for %q", got)
			}
			select {
			case got := <-events.Events:
				if c.event == "" || !strings.HasPrefix(got, c.event) {
					t.Errorf("event %q", got)
				}
			default:
				if c.event != "" {
					t.Error("no event")
				}
			}
		})
	}
}
