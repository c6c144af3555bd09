// SPDX-License-Identifier: Apache-2.0

package component

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// restMetrics counts the requests to the API server, under upstream's names.
type restMetrics struct {
	requests        *prometheus.CounterVec
	took, sent, got *prometheus.HistogramVec
}

func newRESTMetrics(r prometheus.Registerer) *restMetrics {
	sizes := []float64{64, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rest_client_" + name, Help: help, Buckets: buckets}, []string{"verb", "host"})
	}
	m := &restMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rest_client_requests_total", Help: "Number of HTTP requests, partitioned by status code, method, and host."}, []string{"code", "method", "host"}),
		took:     histogram("request_duration_seconds", "Request latency in seconds. Broken down by verb, and host.", []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}),
		sent:     histogram("request_size_bytes", "Request size in bytes. Broken down by verb and host.", sizes),
		got:      histogram("response_size_bytes", "Response size in bytes. Broken down by verb and host.", sizes),
	}
	r.MustRegister(m.requests, m.took, m.sent, m.got)
	return m
}

// wrap returns a round tripper that counts.
func (m *restMetrics) wrap(rt http.RoundTripper) http.RoundTripper { return counted{m, rt} }

type counted struct {
	*restMetrics
	http.RoundTripper
}

// RoundTrip implements http.RoundTripper. A request that got no answer counts
// with the code "<error>".
func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	answer, err := c.RoundTripper.RoundTrip(r)
	c.took.WithLabelValues(r.Method, r.URL.Host).Observe(time.Since(began).Seconds())
	if r.ContentLength >= 0 {
		c.sent.WithLabelValues(r.Method, r.URL.Host).Observe(float64(r.ContentLength))
	}
	code := "<error>"
	if err == nil {
		code = strconv.Itoa(answer.StatusCode)
		if answer.ContentLength >= 0 {
			c.got.WithLabelValues(r.Method, r.URL.Host).Observe(float64(answer.ContentLength))
		}
	}
	c.requests.WithLabelValues(code, r.Method, r.URL.Host).Inc()
	return answer, err
}

// WrappedRoundTripper lets client libraries look beneath, to close connections.
func (c counted) WrappedRoundTripper() http.RoundTripper { return c.RoundTripper }
