// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics have kube-proxy's names.
type metrics struct {
	syncDuration, programming        prometheus.Histogram
	lastSync, lastQueued             prometheus.Gauge
	failures, services, endpointsAll prometheus.Counter
}

func newMetrics(to prometheus.Registerer) *metrics {
	m := &metrics{
		syncDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubeproxy_sync_proxy_rules_duration_seconds", Help: "SyncProxyRules latency in seconds",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubeproxy_network_programming_duration_seconds", Help: "In Cluster Network Programming Latency in seconds",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 20),
		}),
		lastSync: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds", Help: "The last time proxy rules were successfully synced",
		}),
		lastQueued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", Help: "The last time a sync of proxy rules was queued",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", Help: "Cumulative proxy nftables sync failures",
		}),
		services: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_service_changes_total", Help: "Cumulative proxy rules Service changes",
		}),
		endpointsAll: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_endpoint_changes_total", Help: "Cumulative proxy rules Endpoint changes",
		}),
	}
	if to != nil {
		to.MustRegister(m.syncDuration, m.programming, m.lastSync, m.lastQueued, m.failures, m.services, m.endpointsAll)
	}
	return m
}

func (m *metrics) serviceChanged()   { m.services.Inc(); m.lastQueued.SetToCurrentTime() }
func (m *metrics) endpointsChanged() { m.endpointsAll.Inc(); m.lastQueued.SetToCurrentTime() }
func (m *metrics) failed()           { m.failures.Inc() }

func (m *metrics) synced(started time.Time, triggers []time.Time) {
	m.syncDuration.Observe(time.Since(started).Seconds())
	m.lastSync.SetToCurrentTime()
	for _, t := range triggers {
		m.programming.Observe(time.Since(t).Seconds())
	}
}
