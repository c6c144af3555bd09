// SPDX-License-Identifier: Apache-2.0

package meter

import "github.com/prometheus/client_golang/prometheus"

// ranges are the metrics of the parts of the pods' ranges that nodes get.
type ranges struct {
	given, freed *prometheus.CounterVec
	most, used   *prometheus.GaugeVec
	tries        *prometheus.HistogramVec
}

func (s *Set) ranged() {
	const ipam, label = "node_ipam_controller", "clusterCIDR"
	s.ranges = ranges{
		given: s.counters(ipam, "cidrset_cidrs_allocations_total", "Counter measuring total number of CIDR allocations.", label),
		freed: s.counters(ipam, "cidrset_cidrs_releases_total", "Counter measuring total number of CIDR releases.", label),
		most:  s.gauges(ipam, "cirdset_max_cidrs", "Maximum number of CIDRs that can be allocated.", label), // upstream's spelling
		used:  s.gauges(ipam, "cidrset_usage_cidrs", "Gauge measuring percentage of allocated CIDRs.", label),
		tries: s.histograms(ipam, "cidrset_allocation_tries_per_request", "Number of parts that were looked at for one that is free", exp(1, 5, 5), label),
	}
}

// RangeUsed observes how many parts of a range nodes have, of how many.
func (s *Set) RangeUsed(cidr string, used, most int) {
	if s != nil {
		s.ranges.most.WithLabelValues(cidr).Set(float64(most))
		s.ranges.used.WithLabelValues(cidr).Set(float64(used) / float64(most))
	}
}

// RangeGiven counts a part of a range that a node got, before which so many were
// taken.
func (s *Set) RangeGiven(cidr string, tries int) {
	if s != nil {
		s.ranges.given.WithLabelValues(cidr).Inc()
		s.ranges.tries.WithLabelValues(cidr).Observe(float64(tries))
	}
}

// RangeFreed counts a part of a range that came back.
func (s *Set) RangeFreed(cidr string) {
	if s != nil {
		s.ranges.freed.WithLabelValues(cidr).Inc()
	}
}
