// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kaji/internal/ingress/route"
)

// metrics have the names of ingress-nginx where it has the same.
type metrics struct {
	requests *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics(to prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "nginx_ingress_controller_requests", Help: "The total number of client requests"},
			[]string{"namespace", "ingress", "service", "status"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "nginx_ingress_controller_request_duration_seconds",
			Help: "The request processing time in seconds", Buckets: prometheus.DefBuckets}),
	}
	if to != nil {
		to.MustRegister(m.requests, m.duration)
	}
	return m
}

func (m *metrics) served(rule *route.Rule, status int, took time.Duration) {
	namespace, name, service := "", "", ""
	if rule != nil {
		namespace, name = rule.Ingress.Namespace, rule.Ingress.Name
		if rule.Backend != nil {
			service = rule.Backend.Service
		}
	}
	m.requests.WithLabelValues(namespace, name, service, strconv.Itoa(status)).Inc()
	m.duration.Observe(took.Seconds())
}
