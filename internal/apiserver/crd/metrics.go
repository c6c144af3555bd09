// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
)

// Metrics tell why OpenAPI documents changed, by upstream's names. It is a
// prometheus.Collector.
type Metrics struct{ v2, v3 *prometheus.CounterVec }

func newMetrics() *Metrics {
	validation.RegisterMetrics() // of the library, once
	return &Metrics{
		v2: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiextensions_openapi_v2_regeneration_count",
			Help: "[ALPHA] Counter of OpenAPI v2 spec regeneration count broken down by causing CRD name and reason.",
		}, []string{"crd", "reason"}),
		v3: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiextensions_openapi_v3_regeneration_count",
			Help: "[ALPHA] Counter of OpenAPI v3 spec regeneration count broken down by group, version, causing CRD and reason.",
		}, []string{"group", "version", "crd", "reason"}),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	m.v2.Describe(out)
	m.v3.Describe(out)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	m.v2.Collect(out)
	m.v3.Collect(out)
}

// Why documents changed.
const (
	reasonAdd    = "add"
	reasonUpdate = "update"
	reasonRemove = "remove"
)

func (m *Metrics) changed(d *definition, reason string) {
	m.v2.WithLabelValues(d.crd.Name, reason).Inc()
	for i := range d.crd.Spec.Versions {
		if v := &d.crd.Spec.Versions[i]; v.Served {
			m.v3.WithLabelValues(d.crd.Spec.Group, v.Name, d.crd.Name, reason).Inc()
		}
	}
}
