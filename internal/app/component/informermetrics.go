// SPDX-License-Identifier: Apache-2.0

package component

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/cache"
)

// informerMetrics count what the informers of a process do, under upstream's
// names.
type informerMetrics struct {
	queued, version *prometheus.GaugeVec
	took            *prometheus.HistogramVec
}

var _ cache.InformerMetricsProvider = (*informerMetrics)(nil)

func newInformerMetrics(r prometheus.Registerer) *informerMetrics {
	labels := []string{"name", "group", "version", "resource"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: "informer", Name: name, Help: help}, labels)
	}
	m := &informerMetrics{
		queued:  gauge("queued_items", "Number of items currently queued in the FIFO."),
		version: gauge("store_resource_version", "The 15 least significant digits of the resource version of the store."),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "informer", Name: "processing_latency_seconds", Help: "Time taken to process events after popping from the queue.",
			Buckets: []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}}, labels),
	}
	r.MustRegister(m.queued, m.version, m.took)
	return m
}

func labelsOf(id cache.InformerNameAndResource) []string {
	gvr := id.GroupVersionResource()
	return []string{id.Name(), gvr.Group, gvr.Version, gvr.Resource}
}

// NewQueuedItemMetric implements cache.InformerMetricsProvider.
func (m *informerMetrics) NewQueuedItemMetric(id cache.InformerNameAndResource) cache.GaugeMetric {
	return m.queued.WithLabelValues(labelsOf(id)...)
}

// NewStoreResourceVersionMetric implements cache.InformerMetricsProvider.
func (m *informerMetrics) NewStoreResourceVersionMetric(id cache.InformerNameAndResource) cache.GaugeMetric {
	return m.version.WithLabelValues(labelsOf(id)...)
}

// NewProcessingLatencyMetric implements cache.InformerMetricsProvider.
func (m *informerMetrics) NewProcessingLatencyMetric(id cache.InformerNameAndResource) cache.HistogramMetric {
	return m.took.WithLabelValues(labelsOf(id)...)
}
