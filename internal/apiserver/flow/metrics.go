// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the station's, by upstream's names. What a level's state tells is
// collected when asked for.
type Metrics struct {
	flow *Flow

	dispatched, rejected  *prometheus.CounterVec
	executing, waiting    *prometheus.GaugeVec
	waits, serves, widths *prometheus.HistogramVec
	fraction              prometheus.Gauge
	levels                []levelMetric
}

// levelMetric is a figure of one level.
type levelMetric struct {
	desc  *prometheus.Desc
	value func(*level) float64
}

const (
	prefix = "apiserver_flowcontrol_"
	byName = "priority_level"
)

var waitBuckets = []float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30}

func newMetrics(f *Flow) *Metrics {
	both := []string{byName, "flow_schema"}
	m := &Metrics{
		flow:       f,
		dispatched: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "dispatched_requests_total", Help: "[BETA] Number of requests executed by API Priority and Fairness subsystem"}, both),
		rejected:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "rejected_requests_total", Help: "[BETA] Number of requests rejected by API Priority and Fairness subsystem"}, append(both, "reason")),
		executing:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "current_executing_requests", Help: "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem"}, both),
		waiting:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "current_inqueue_requests", Help: "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem"}, both),
		waits:      prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "request_wait_duration_seconds", Help: "[BETA] Length of time a request spent waiting in its queue", Buckets: waitBuckets}, append(both, "execute")),
		serves:     prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "request_execution_seconds", Help: "[ALPHA] Duration of initial stage (for a WATCH request) or any (for a non-WATCH request) stage of request execution in the API Priority and Fairness subsystem", Buckets: waitBuckets}, append(both, "type")),
		widths:     prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "work_estimated_seats", Help: "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness", Buckets: []float64{1, 2, 4, 10, 20, 40, 100}}, both),
		fraction:   prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "seat_fair_frac", Help: "[ALPHA] Fair fraction of server's concurrency to allocate to each priority level that can use it"}),
	}
	m.level("current_inqueue_seats", "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem", func(l *level) float64 { return float64(l.fair.State().Wanted) })
	m.level("current_executing_seats", "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem", func(l *level) float64 { return float64(l.fair.State().InUse) })
	m.level("nominal_limit_seats", "[BETA] Nominal number of execution seats configured for each priority level", func(l *level) float64 { return float64(l.nominal) })
	m.level("lower_limit_seats", "[ALPHA] Configured lower bound on number of execution seats available to each priority level", func(l *level) float64 { return float64(l.lowest) })
	m.level("upper_limit_seats", "[ALPHA] Configured upper bound on number of execution seats available to each priority level", func(l *level) float64 { return float64(l.upper) })
	m.level("current_limit_seats", "[ALPHA] current derived number of execution seats available to each priority level", func(l *level) float64 { return float64(l.fair.State().Limit) })
	m.level("demand_seats_high_watermark", "[ALPHA] High watermark, over last adjustment period, of demand_seats", func(l *level) float64 { return float64(l.demand.High) })
	m.level("demand_seats_average", "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats", func(l *level) float64 { return l.demand.Average })
	m.level("demand_seats_stdev", "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats", func(l *level) float64 { return l.demand.Deviation })
	m.level("demand_seats_smoothed", "[ALPHA] Smoothed seat demands", func(l *level) float64 { return l.smoothed })
	m.level("target_seats", "[ALPHA] Seat allocation targets", func(l *level) float64 { return l.target })
	return m
}

func (m *Metrics) level(name, help string, value func(*level) float64) {
	m.levels = append(m.levels, levelMetric{prometheus.NewDesc(prefix+name, help, []string{byName}, nil), value})
}

// of gives a schema its series.
func (m *Metrics) of(s *schema) {
	pl, fs := s.level.name, s.name
	s.dispatched = m.dispatched.WithLabelValues(pl, fs)
	s.executing, s.waiting = m.executing.WithLabelValues(pl, fs), m.waiting.WithLabelValues(pl, fs)
	s.waitedAndServed = m.waits.WithLabelValues(pl, fs, "true")
	s.served = m.serves.WithLabelValues(pl, fs, "regular")
	s.seats = m.widths.WithLabelValues(pl, fs)
	s.refuse = func(reason string, waited time.Duration) {
		m.rejected.WithLabelValues(pl, fs, reason).Inc()
		m.waits.WithLabelValues(pl, fs, "false").Observe(waited.Seconds())
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(out)
	}
	for _, l := range m.levels {
		out <- l.desc
	}
}

func (m *Metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.dispatched, m.rejected, m.executing, m.waiting, m.waits, m.serves, m.widths, m.fraction}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(out)
	}
	m.flow.mu.Lock()
	defer m.flow.mu.Unlock()
	for name, l := range m.flow.levels {
		for _, metric := range m.levels {
			out <- prometheus.MustNewConstMetric(metric.desc, prometheus.GaugeValue, metric.value(l), name)
		}
	}
}
