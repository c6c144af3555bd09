// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics have kube-proxy's names, labels and buckets.
type metrics struct {
	families                  []string
	sync, full, partial       *prometheus.HistogramVec
	programming               *prometheus.HistogramVec
	lastSync, lastQueued      *prometheus.GaugeVec
	failures, cleanups        *prometheus.CounterVec
	services, endpoints       prometheus.Counter
	pendingServices           prometheus.Gauge
	pendingEndpoints          prometheus.Gauge
	noLocal                   *prometheus.GaugeVec
	healthz, livez, forgotten *prometheus.CounterVec
	forgetting                *prometheus.HistogramVec
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

func newMetrics(to prometheus.Registerer, v4, v6 bool) *metrics {
	f := factory{to}
	const prefix, sync = "kubeproxy_", "kubeproxy_sync_"
	family := []string{"ip_family"}
	m := &metrics{
		sync:        f.histogram(sync+"proxy_rules_duration_seconds", "SyncProxyRules latency in seconds", syncBuckets()),
		full:        f.histogram(sync+"full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs", syncBuckets()),
		partial:     f.histogram(sync+"partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for partial resyncs", syncBuckets()),
		programming: f.histogram(prefix+"network_programming_duration_seconds", "In Cluster Network Programming Latency in seconds", programmingBuckets()),
		lastSync:    f.gauge(sync+"proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced", family),
		lastQueued:  f.gauge(sync+"proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued", family),
		failures:    f.counter(sync+"proxy_rules_nftables_sync_failures_total", "Cumulative proxy nftables sync failures", family),
		cleanups:    f.counter(sync+"proxy_rules_nftables_cleanup_failures_total", "Cumulative proxy nftables cleanup failures", family),
		services:    f.counter(sync+"proxy_rules_service_changes_total", "Cumulative proxy rules Service changes", nil).WithLabelValues(),
		endpoints:   f.counter(sync+"proxy_rules_endpoint_changes_total", "Cumulative proxy rules Endpoint changes", nil).WithLabelValues(),

		pendingServices:  f.gauge(sync+"proxy_rules_service_changes_pending", "Pending proxy rules Service changes", nil).WithLabelValues(),
		pendingEndpoints: f.gauge(sync+"proxy_rules_endpoint_changes_pending", "Pending proxy rules Endpoint changes", nil).WithLabelValues(),

		noLocal: f.gauge(sync+"proxy_rules_no_local_endpoints_total", "Number of services with a Local traffic policy and no endpoints", []string{"traffic_policy", "ip_family"}),
		healthz: f.counter(prefix+"proxy_healthz_total", "Cumulative proxy healthz HTTP status", []string{"code"}),
		livez:   f.counter(prefix+"proxy_livez_total", "Cumulative proxy livez HTTP status", []string{"code"}),

		forgetting: f.histogram(prefix+"conntrack_reconciler_sync_duration_seconds", "ReconcileConntrackFlowsLatency latency in seconds", syncBuckets()),
		forgotten:  f.counter(prefix+"conntrack_reconciler_deleted_entries_total", "Cumulative conntrack flows deleted by conntrack reconciler", family),
	}
	for _, is6 := range []bool{false, true} {
		if is6 && v6 || !is6 && v4 {
			name := familyName(is6)
			m.families = append(m.families, name)
			m.failures.WithLabelValues(name)
			m.cleanups.WithLabelValues(name)
			m.forgotten.WithLabelValues(name)
		}
	}
	return m
}

// factory makes metrics and registers them.
type factory struct{ to prometheus.Registerer }

func (f factory) register(c prometheus.Collector) {
	if f.to != nil {
		f.to.MustRegister(c)
	}
}

func (f factory) histogram(name, help string, buckets []float64) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"ip_family"})
	f.register(h)
	return h
}

func (f factory) gauge(name, help string, labels []string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	f.register(g)
	return g
}

func (f factory) counter(name, help string, labels []string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	f.register(c)
	return c
}

func syncBuckets() []float64 { return prometheus.ExponentialBuckets(0.001, 2, 15) }

func programmingBuckets() []float64 {
	out := prometheus.LinearBuckets(0.25, 0.25, 2)
	out = append(out, prometheus.LinearBuckets(1, 1, 59)...)
	out = append(out, prometheus.LinearBuckets(60, 5, 12)...)
	return append(out, prometheus.LinearBuckets(120, 30, 7)...)
}

func (m *metrics) queued() {
	for _, f := range m.families {
		m.lastQueued.WithLabelValues(f).SetToCurrentTime()
	}
}

func (m *metrics) serviceChanged() {
	m.services.Inc()
	m.pendingServices.Inc()
	m.queued()
}

func (m *metrics) endpointsChanged() {
	m.endpoints.Inc()
	m.pendingEndpoints.Inc()
	m.queued()
}

// taken says that what was pending is being worked on.
func (m *metrics) taken() {
	m.pendingServices.Set(0)
	m.pendingEndpoints.Set(0)
}

func (m *metrics) failed() {
	for _, f := range m.families {
		m.failures.WithLabelValues(f).Inc()
	}
}

func (m *metrics) synced(whole bool, started time.Time, triggers []time.Time) {
	for _, f := range m.families {
		took := time.Since(started).Seconds()
		m.sync.WithLabelValues(f).Observe(took)
		if whole {
			m.full.WithLabelValues(f).Observe(took)
		} else {
			m.partial.WithLabelValues(f).Observe(took)
		}
		m.lastSync.WithLabelValues(f).SetToCurrentTime()
		for _, t := range triggers {
			m.programming.WithLabelValues(f).Observe(time.Since(t).Seconds())
		}
	}
}

func (m *metrics) forgot(v6 bool, started time.Time, n uint) {
	m.forgetting.WithLabelValues(familyName(v6)).Observe(time.Since(started).Seconds())
	m.forgotten.WithLabelValues(familyName(v6)).Add(float64(n))
}

func answered(to *prometheus.CounterVec, code int) { to.WithLabelValues(strconv.Itoa(code)).Inc() }
