// SPDX-License-Identifier: Apache-2.0

package meter

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// queues are the metrics of work queues.
type queues struct {
	depth                             *prometheus.GaugeVec
	adds, retries                     *prometheus.CounterVec
	waited, worked                    *prometheus.HistogramVec
	unfinishedDesc, longestRunnerDesc *prometheus.Desc

	mu  sync.Mutex
	all []*Queue // guarded by mu
}

// Queue counts the work of one queue. nil counts nothing.
type Queue struct {
	name           string
	depth          prometheus.Gauge
	adds, retries  prometheus.Counter
	waited, worked prometheus.Observer
	mu             sync.Mutex
	running        map[int]time.Time // since when, by worker; guarded by mu
}

func (q *queues) init(r *prometheus.Registry) {
	labels := []string{"name"}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Subsystem: "workqueue", Name: name, Help: help}
	}
	q.depth = prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("depth", "Current depth of workqueue")), labels)
	q.adds = prometheus.NewCounterVec(prometheus.CounterOpts(opts("adds_total", "Total number of adds handled by workqueue")), labels)
	q.retries = prometheus.NewCounterVec(prometheus.CounterOpts(opts("retries_total", "Total number of retries handled by workqueue")), labels)
	q.waited = prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "workqueue", Name: "queue_duration_seconds",
		Help: "How long in seconds an item stays in workqueue before being requested.", Buckets: exp(10e-9, 10, 10)}, labels)
	q.worked = prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "workqueue", Name: "work_duration_seconds",
		Help: "How long in seconds processing an item from workqueue takes.", Buckets: exp(10e-9, 10, 10)}, labels)
	q.unfinishedDesc = prometheus.NewDesc("workqueue_unfinished_work_seconds", "How many seconds of work has done that is in progress and hasn't been observed by work_duration. "+
		"Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.", labels, nil)
	q.longestRunnerDesc = prometheus.NewDesc("workqueue_longest_running_processor_seconds", "How many seconds has the longest running processor for workqueue been running.", labels, nil)
	r.MustRegister(q.depth, q.adds, q.retries, q.waited, q.worked, q)
}

// Describe implements prometheus.Collector, for the work in progress.
func (q *queues) Describe(to chan<- *prometheus.Desc) {
	to <- q.unfinishedDesc
	to <- q.longestRunnerDesc
}

// Collect implements prometheus.Collector.
func (q *queues) Collect(to chan<- prometheus.Metric) {
	sum, longest := map[string]float64{}, map[string]float64{}
	now := time.Now()
	q.mu.Lock()
	for _, each := range q.all {
		s, l := each.unfinished(now)
		sum[each.name] += s
		longest[each.name] = max(longest[each.name], l)
	}
	q.mu.Unlock()
	for name := range sum {
		to <- prometheus.MustNewConstMetric(q.unfinishedDesc, prometheus.GaugeValue, sum[name], name)
		to <- prometheus.MustNewConstMetric(q.longestRunnerDesc, prometheus.GaugeValue, longest[name], name)
	}
}

// Queue returns the metrics of a queue; queues of one name count together.
func (s *Set) Queue(name string) *Queue {
	if s == nil {
		return nil
	}
	q := &Queue{name: name, depth: s.queues.depth.WithLabelValues(name), adds: s.queues.adds.WithLabelValues(name), retries: s.queues.retries.WithLabelValues(name),
		waited: s.queues.waited.WithLabelValues(name), worked: s.queues.worked.WithLabelValues(name), running: map[int]time.Time{}}
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	s.queues.all = append(s.queues.all, q)
	return q
}

// Added counts an item that waits now.
func (q *Queue) Added() {
	if q != nil {
		q.adds.Inc()
		q.depth.Inc()
	}
}

// Retried counts an item that failed.
func (q *Queue) Retried() {
	if q != nil {
		q.retries.Inc()
	}
}

// Began counts an item that a worker took, after it had waited since then.
func (q *Queue) Began(worker int, since time.Time) {
	if q == nil {
		return
	}
	now := time.Now()
	q.depth.Dec()
	q.waited.Observe(now.Sub(since).Seconds())
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running[worker] = now
}

// Ended counts an item that a worker is done with.
func (q *Queue) Ended(worker int) {
	if q == nil {
		return
	}
	q.mu.Lock()
	began := q.running[worker]
	delete(q.running, worker)
	q.mu.Unlock()
	q.worked.Observe(time.Since(began).Seconds())
}

func (q *Queue) unfinished(now time.Time) (sum, longest float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, since := range q.running {
		s := now.Sub(since).Seconds()
		sum, longest = sum+s, max(longest, s)
	}
	return sum, longest
}
