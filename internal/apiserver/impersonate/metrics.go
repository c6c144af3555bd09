// SPDX-License-Identifier: Apache-2.0

package impersonate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count attempts to act as another and the questions they cost. A nil
// Metrics counts nothing.
type Metrics struct {
	attempts, asks         *prometheus.CounterVec
	attemptTimes, askTimes *prometheus.HistogramVec
}

// NewMetrics returns metrics; Collectors are to be registered.
func NewMetrics() *Metrics {
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_impersonation_" + name, Help: "[ALPHA] " + help}, []string{"mode", "decision"})
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_impersonation_" + name, Help: "[ALPHA] " + help, Buckets: buckets}, []string{"mode", "decision"})
	}
	return &Metrics{
		attempts:     counter("attempts_total", "Total number of impersonation attempts split by mode and decision."),
		attemptTimes: histogram("attempts_duration_seconds", "Latency of impersonation attempts in seconds split by mode and decision."),
		asks:         counter("authorization_attempts_total", "Total number of authorization checks made by the impersonation handler split by mode and decision."),
		askTimes:     histogram("authorization_attempts_duration_seconds", "Latency of authorization checks made by the impersonation handler in seconds split by mode and decision."),
	}
}

// Collectors are what a registry is to hold.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.attemptTimes, m.asks, m.askTimes}
}

func (m *Metrics) attempt(mode string, allowed bool, took time.Duration) {
	if m != nil {
		m.attempts.WithLabelValues(mode, decision(allowed)).Inc()
		m.attemptTimes.WithLabelValues(mode, decision(allowed)).Observe(took.Seconds())
	}
}

func (m *Metrics) asked(mode string, allowed bool, took time.Duration) {
	if m != nil {
		m.asks.WithLabelValues(mode, decision(allowed)).Inc()
		m.askTimes.WithLabelValues(mode, decision(allowed)).Observe(took.Seconds())
	}
}

func decision(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}
