// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics have CoreDNS's names and labels.
type metrics struct {
	requests     *prometheus.CounterVec
	responses    *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	reloadFailed prometheus.Counter
	panics       prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coredns_dns_requests_total",
			Help: "Counter of DNS requests made per zone, protocol and family."}, []string{"server", "zone", "proto", "type"}),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coredns_dns_responses_total",
			Help: "Counter of response status codes."}, []string{"server", "zone", "rcode"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "coredns_dns_request_duration_seconds",
			Help: "Histogram of the time (in seconds) each request took per zone.", Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16)}, []string{"server", "zone"}),
		reloadFailed: prometheus.NewCounter(prometheus.CounterOpts{Name: "coredns_reload_failed_total",
			Help: "Counter of the number of failed reload attempts."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "coredns_panics_total", Help: "A metrics that counts the number of panics."}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.responses, m.duration, m.reloadFailed, m.panics)
	}
	return m
}

// common are the types that have a label of their own.
var common = map[uint16]bool{dns.TypeA: true, dns.TypeAAAA: true, dns.TypeCNAME: true, dns.TypeSRV: true, dns.TypePTR: true,
	dns.TypeTXT: true, dns.TypeSOA: true, dns.TypeNS: true, dns.TypeMX: true, dns.TypeDS: true, dns.TypeDNSKEY: true, dns.TypeHTTPS: true}

func (m *metrics) served(protocol, zone string, q, a *dns.Msg, took time.Duration) {
	kind := "other"
	if len(q.Question) == 1 && common[q.Question[0].Qtype] {
		kind = dns.TypeToString[q.Question[0].Qtype]
	}
	const server = "dns://:53"
	m.requests.WithLabelValues(server, zone, protocol, kind).Inc()
	m.responses.WithLabelValues(server, zone, dns.RcodeToString[a.Rcode]).Inc()
	m.duration.WithLabelValues(server, zone).Observe(took.Seconds())
}
