// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"math"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Slices is what the EndpointSlices of a Service, or of Endpoints made by hand,
// came to, and what changed them.
type Slices struct {
	// Added, Removed and Updated are endpoints, Skipped addresses, Changed slices.
	Added, Removed, Updated, Skipped, Changed int
	// Endpoints are in the Slices that there are now; Least of these would hold them.
	Endpoints, Slices, Least int
	// Topology and Distribution are how the Service wants its traffic.
	Topology, Distribution string
}

// sliced are the metrics of one of the two controllers of EndpointSlices.
type sliced struct {
	changes                          *prometheus.CounterVec
	added, removed, updated, skipped prometheus.Histogram
	changed                          *prometheus.HistogramVec
	endpoints, slices, least         prometheus.Gauge
	distributions                    *prometheus.GaugeVec

	mu    sync.Mutex
	known map[string]Slices // guarded by mu; by namespace and name
}

func (s *Set) sliced() {
	each := func(subsystem, of string) *sliced {
		many := exp(2, 2, 15)
		return &sliced{known: map[string]Slices{},
			changes:   s.counters(subsystem, "changes", "Number of EndpointSlice changes", "operation"),
			added:     s.histogram(subsystem, "endpoints_added_per_sync", "Number of endpoints added on each "+of+" sync", many),
			removed:   s.histogram(subsystem, "endpoints_removed_per_sync", "Number of endpoints removed on each "+of+" sync", many),
			endpoints: s.gauges(subsystem, "endpoints_desired", "Number of endpoints desired").WithLabelValues(),
			slices:    s.gauges(subsystem, "num_endpoint_slices", "Number of EndpointSlices").WithLabelValues(),
			least:     s.gauges(subsystem, "desired_endpoint_slices", "Number of EndpointSlices that would exist with perfect endpoint allocation").WithLabelValues()}
	}
	s.ofServices = each("endpoint_slice_controller", "Service")
	s.ofServices.changed = s.histograms("endpoint_slice_controller", "endpointslices_changed_per_sync", "Number of EndpointSlices changed on each Service sync",
		[]float64{math.Inf(1)}, "topology", "traffic_distribution")
	s.ofServices.distributions = s.gauges("endpoint_slice_controller", "services_count_by_traffic_distribution", "Number of Services using some specific trafficDistribution", "traffic_distribution")
	const mirroring = "endpoint_slice_mirroring_controller"
	s.mirrors = each(mirroring, "Endpoints")
	s.mirrors.updated = s.histogram(mirroring, "endpoints_updated_per_sync", "Number of endpoints updated on each Endpoints sync", exp(2, 2, 15))
	s.mirrors.skipped = s.histogram(mirroring, "addresses_skipped_per_sync",
		"Number of addresses skipped on each Endpoints sync due to being invalid or exceeding MaxEndpointsPerSubset", exp(2, 2, 15))
}

// SlicesOf observes the slices of a Service; nil when it is gone.
func (s *Set) SlicesOf(service string, now *Slices) {
	if s == nil {
		return
	}
	if now != nil {
		s.ofServices.changed.WithLabelValues(now.Topology, now.Distribution).Observe(float64(now.Changed))
	}
	s.ofServices.observe(service, now)
}

// MirrorsOf observes the slices of Endpoints made by hand; nil when they are gone.
func (s *Set) MirrorsOf(endpoints string, now *Slices) {
	if s == nil {
		return
	}
	if now != nil {
		s.mirrors.updated.Observe(float64(now.Updated))
		s.mirrors.skipped.Observe(float64(now.Skipped))
	}
	s.mirrors.observe(endpoints, now)
}

// MirrorChanged counts a write of a mirrored slice: create, update or delete.
func (s *Set) MirrorChanged(operation string) {
	if s != nil {
		s.mirrors.changes.WithLabelValues(operation).Inc()
	}
}

// observe replaces what is known of a name.
func (m *sliced) observe(name string, now *Slices) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, was := m.known[name]
	if was {
		delete(m.known, name)
		m.distribution(before.Distribution, -1)
	}
	var next Slices
	if now != nil {
		next, m.known[name] = *now, *now
		m.added.Observe(float64(next.Added))
		m.removed.Observe(float64(next.Removed))
		m.distribution(next.Distribution, 1)
	}
	m.endpoints.Add(float64(next.Endpoints - before.Endpoints))
	m.slices.Add(float64(next.Slices - before.Slices))
	m.least.Add(float64(next.Least - before.Least))
}

func (m *sliced) distribution(of string, by float64) {
	if m.distributions != nil && of != "" {
		m.distributions.WithLabelValues(of).Add(by)
	}
}
