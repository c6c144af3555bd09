// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
)

// Metrics tell which APIServices cannot be reached, by upstream's names. It is a
// prometheus.Collector.
type Metrics struct {
	aggregator  *Aggregator
	state       *prometheus.Desc
	unavailable *prometheus.CounterVec
}

func newMetrics(a *Aggregator) *Metrics {
	return &Metrics{
		aggregator: a,
		state: prometheus.NewDesc("aggregator_unavailable_apiservice",
			"[ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name.", []string{"name"}, nil),
		unavailable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aggregator_unavailable_apiservice_total",
			Help: "[ALPHA] Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
		}, []string{"name", "reason"}),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.state
	m.unavailable.Describe(out)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	m.unavailable.Collect(out)
	at, err := m.aggregator.cfg.Cache.Snapshot(context.Background(), m.aggregator.cfg.Kind)
	if err != nil {
		return
	}
	for e := range at.All("", "") {
		s := e.Object.(*apiregistrationv1.APIService)
		value := 1.0
		if helper.IsAPIServiceConditionTrue(s, apiregistrationv1.Available) {
			value = 0
		}
		out <- prometheus.MustNewConstMetric(m.state, prometheus.GaugeValue, value, s.Name)
	}
}
