// SPDX-License-Identifier: Apache-2.0

package authz

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Metrics counts which authorizer decided. A nil Metrics counts nothing.
type Metrics struct{ decisions *prometheus.CounterVec }

// NewMetrics returns metrics; Collectors are to be registered.
func NewMetrics() *Metrics {
	return &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_authorization_decisions_total",
		Help: "[ALPHA] Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision."},
		[]string{"type", "name", "decision"})}
}

// Collectors are what a registry is to hold.
func (m *Metrics) Collectors() []prometheus.Collector { return []prometheus.Collector{m.decisions} }

func (m *Metrics) decided(by Named, d authorizer.Decision) {
	if m == nil {
		return
	}
	label := "denied"
	if d == authorizer.DecisionAllow {
		label = "allowed"
	}
	m.decisions.WithLabelValues(by.Type, by.Name, label).Inc()
}
