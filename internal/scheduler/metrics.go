// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kaji/internal/scheduler/plugin"
)

// metrics are the scheduler's, with upstream's names, labels and buckets.
type metrics struct {
	registry *prometheus.Registry

	attempts           *prometheus.CounterVec
	attemptDuration    *prometheus.HistogramVec
	algorithmDuration  prometheus.Histogram
	pointDuration      *prometheus.HistogramVec
	sliDuration        *prometheus.HistogramVec
	podAttempts        prometheus.Histogram
	pending            *prometheus.GaugeVec
	queued             *prometheus.GaugeVec
	incomingPods       *prometheus.CounterVec
	incomingEntities   *prometheus.CounterVec
	preemptionAttempts prometheus.Counter
	preemptionVictims  prometheus.Histogram
	goroutines         *prometheus.GaugeVec
	cacheSize          *prometheus.GaugeVec
	unschedulable      *prometheus.GaugeVec
	eventDuration      *prometheus.HistogramVec
	flushed            prometheus.Counter
	groupAttempts      *prometheus.CounterVec
	groupDuration      *prometheus.HistogramVec
	groupAlgorithm     *prometheus.HistogramVec
	groupPreemptions   *prometheus.CounterVec
	groupVictims       *prometheus.HistogramVec
	evictions          *prometheus.CounterVec
	evictionTime       *prometheus.HistogramVec
	evaluations        *prometheus.CounterVec
	pluginDuration     *prometheus.HistogramVec
	inflightEvents     *prometheus.GaugeVec
	hintDuration       *prometheus.HistogramVec
	batchAttempts      *prometheus.CounterVec
	nodeHintDuration   *prometheus.HistogramVec

	hints map[hintKey]prometheus.Observer // of hintDuration, looked up once
}

// newMetrics registers them; nil makes a registry.
func newMetrics(r *prometheus.Registry) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	m := &metrics{registry: r, hints: map[hintKey]prometheus.Observer{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "scheduler", Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: "scheduler", Name: name, Help: help}, labels)
		m.registry.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "scheduler", Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	exp := prometheus.ExponentialBuckets

	m.attempts = counter("schedule_attempts_total", "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.", "result", "profile")
	m.attemptDuration = histogram("scheduling_attempt_duration_seconds", "Scheduling attempt latency in seconds (scheduling algorithm + binding)", exp(0.001, 2, 15), "result", "profile")
	m.algorithmDuration = histogram("scheduling_algorithm_duration_seconds", "Scheduling algorithm latency in seconds", exp(0.001, 2, 15)).WithLabelValues().(prometheus.Histogram)
	m.pointDuration = histogram("framework_extension_point_duration_seconds", "Latency for running all plugins of a specific extension point.", exp(0.0001, 2, 12), "extension_point", "status", "profile")
	m.sliDuration = histogram("pod_scheduling_sli_duration_seconds", "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.", exp(0.01, 2, 20), "attempts")
	m.podAttempts = histogram("pod_scheduling_attempts", "Number of attempts to successfully schedule a pod.", exp(1, 2, 5)).WithLabelValues().(prometheus.Histogram)
	m.pending = gauge("pending_pods", "Number of pending pods, by the queue type.", "queue")
	m.queued = gauge("queued_entities", "Number of queued entities, by the queue type.", "queue", "type")
	m.incomingPods = counter("queue_incoming_pods_total", "Number of pods added to scheduling queues by event and queue type.", "queue", "event")
	m.incomingEntities = counter("queue_incoming_entities_total", "Number of entities added to scheduling queues by event and queue type.", "queue", "event", "type")
	m.preemptionAttempts = counter("preemption_attempts_total", "Total preemption attempts in the cluster till now").WithLabelValues()
	m.preemptionVictims = histogram("preemption_victims", "Number of selected preemption victims", exp(1, 2, 7)).WithLabelValues().(prometheus.Histogram)
	m.goroutines = gauge("goroutines", "Number of running goroutines split by the work they do such as binding.", "operation")
	m.cacheSize = gauge("cache_size", "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.", "type")
	m.unschedulable = gauge("unschedulable_pods", "The number of unschedulable pods broken down by plugin name.", "plugin", "profile")
	m.eventDuration = histogram("event_handling_duration_seconds", "Event handling latency in seconds.", exp(0.0001, 2, 12), "event")
	m.flushed = counter("pod_scheduled_after_flush_total", "Number of pods that were successfully scheduled after being flushed from unschedulablePods due to timeout.").WithLabelValues()
	m.groupAttempts = counter("podgroup_schedule_attempts_total", "Number of attempts to schedule pod group, by the result. 'unschedulable' means a pod group could not be scheduled, while 'error' means an internal scheduler problem.", "result", "profile")
	m.groupDuration = histogram("podgroup_scheduling_attempt_duration_seconds", "Pod group scheduling attempt latency in seconds", exp(0.001, 2, 15), "result", "profile")
	m.groupAlgorithm = histogram("podgroup_scheduling_algorithm_duration_seconds", "Pod group scheduling algorithm latency in seconds", exp(0.001, 2, 15))
	m.groupPreemptions = counter("workload_preemption_attempts_total", "Total preemption attempts initiated by workload (including pod groups) in the cluster till now.", "result")
	m.groupVictims = histogram("workload_preemption_victims", "Number of pod preemption victims caused by workload preemption.", exp(1, 2, 11))
	m.evictions = counter("preemption_goroutines_execution_total", "Number of preemption goroutines executed.", "result")
	m.evictionTime = histogram("preemption_goroutines_duration_seconds", "Duration in seconds for running goroutines for the preemption.", exp(0.01, 2, 20), "result")
	m.evaluations = counter("plugin_evaluation_total", "Number of attempts to schedule pods by each plugin and the extension point (available only in PreFilter, Filter, PreScore, and Score).", "plugin", "extension_point", "profile")
	m.pluginDuration = histogram("plugin_execution_duration_seconds", "Duration for running a plugin at a specific extension point.", exp(0.00001, 1.5, 20), "plugin", "extension_point", "status")
	m.inflightEvents = gauge("inflight_events", "Number of events currently tracked in the scheduling queue.", "event")
	m.hintDuration = histogram("queueing_hint_execution_duration_seconds", "Duration for running a queueing hint function of a plugin.", exp(0.00001, 1.5, 20), "plugin", "event", "hint")
	m.batchAttempts = counter("batch_attempts_total", "Counts of results when we attempt to use batching.", "profile", "result")
	m.nodeHintDuration = histogram("get_node_hint_duration_seconds", "Latency for getting a node hint.", exp(0.00001, 2, 12), "hinted", "profile")
	return m
}

// profileMetrics are the series of one profile, looked up once.
type profileMetrics struct {
	points                                  map[pointCode]prometheus.Observer
	vec                                     *prometheus.HistogramVec
	profile                                 string
	scheduled, unschedulable, failed        prometheus.Counter
	scheduledTime, unschedulableTime, erred prometheus.Observer
	hinted, unhinted                        prometheus.Counter
	hintTime, noHintTime                    prometheus.Observer
	plugins                                 *prometheus.HistogramVec
}

type pointCode struct {
	point string
	code  plugin.Code
}

func (m *metrics) forProfile(name string) *profileMetrics {
	return &profileMetrics{
		points: map[pointCode]prometheus.Observer{}, vec: m.pointDuration, profile: name,
		scheduled:         m.attempts.WithLabelValues("scheduled", name),
		unschedulable:     m.attempts.WithLabelValues("unschedulable", name),
		failed:            m.attempts.WithLabelValues("error", name),
		scheduledTime:     m.attemptDuration.WithLabelValues("scheduled", name),
		unschedulableTime: m.attemptDuration.WithLabelValues("unschedulable", name),
		erred:             m.attemptDuration.WithLabelValues("error", name),
		hinted:            m.batchAttempts.WithLabelValues(name, "hint_used"),
		unhinted:          m.batchAttempts.WithLabelValues(name, "no_hint"),
		hintTime:          m.nodeHintDuration.WithLabelValues("hint", name),
		noHintTime:        m.nodeHintDuration.WithLabelValues("no_hint", name),
		plugins:           m.pluginDuration,
	}
}

func (m *profileMetrics) begin() pointTime { return time.Now() }

// point records how long an extension point took; it is called by the loop only.
func (m *profileMetrics) point(point string, code plugin.Code, began pointTime) {
	key := pointCode{point, code}
	o := m.points[key]
	if o == nil {
		o = m.vec.WithLabelValues(point, code.String(), m.profile)
		m.points[key] = o
	}
	o.Observe(time.Since(began).Seconds())
}

// shared records whether the work done for alike pods named the node, which is
// a hint of upstream's batches, and returns the time.
func (m *profileMetrics) shared(hint bool, began pointTime) pointTime {
	total, spent := m.unhinted, m.noHintTime
	if hint {
		total, spent = m.hinted, m.hintTime
	}
	now := time.Now()
	total.Inc()
	spent.Observe(now.Sub(began).Seconds())
	return now
}

func attemptsLabel(n int) string {
	if n >= 16 {
		return "16+"
	}
	return strconv.Itoa(n)
}
