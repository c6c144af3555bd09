// SPDX-License-Identifier: Apache-2.0

package serviceaccount

import "github.com/prometheus/client_golang/prometheus"

// Metrics count the sorts of tokens that are used. A nil Metrics counts
// nothing.
type Metrics struct {
	stale, valid, legacyAll, legacyManual, legacyAuto, legacyInvalid prometheus.Counter
}

// NewMetrics returns metrics; Collectors are to be registered.
func NewMetrics() *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "serviceaccount_" + name, Help: "[ALPHA] " + help})
	}
	return &Metrics{
		stale:         counter("stale_tokens_total", "Cumulative stale projected service account tokens used"),
		valid:         counter("valid_tokens_total", "Cumulative valid projected service account tokens used"),
		legacyAll:     counter("legacy_tokens_total", "Cumulative legacy service account tokens used"),
		legacyManual:  counter("legacy_manual_token_uses_total", "Cumulative manually created legacy service account tokens used"),
		legacyAuto:    counter("legacy_auto_token_uses_total", "Cumulative auto-generated legacy service account tokens used"),
		legacyInvalid: counter("invalid_legacy_auto_token_uses_total", "Cumulative invalid auto-generated legacy service account tokens used"),
	}
}

// Collectors are what a registry is to hold.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.stale, m.valid, m.legacyAll, m.legacyManual, m.legacyAuto, m.legacyInvalid}
}

func (m *Metrics) extended(late bool) {
	switch {
	case m == nil:
	case late:
		m.stale.Inc()
	default:
		m.valid.Inc()
	}
}

// legacy counts a token of a Secret.
func (m *Metrics) legacy(auto, invalid bool) {
	switch {
	case m == nil:
	case invalid:
		m.legacyInvalid.Inc()
	case auto:
		m.legacyAuto.Inc()
		m.legacyAll.Inc()
	default:
		m.legacyManual.Inc()
		m.legacyAll.Inc()
	}
}
