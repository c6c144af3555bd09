// SPDX-License-Identifier: Apache-2.0

// Package meter counts and times what the controllers do, under upstream's
// metric names, labels and buckets. A Set travels in the context with which
// controllers run; without one nothing is counted, and the methods on what From
// then returns do nothing. Package app serves a Set.
package meter

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// Set holds the metrics of one process. Create it with New; it is safe for
// concurrent use, and so is nil.
type Set struct {
	registry *prometheus.Registry
	queues   queues

	jobSyncs, jobsFinished, jobPodsFinished, jobPodsMade, jobFinalizers *prometheus.CounterVec
	jobSyncTime                                                         *prometheus.HistogramVec
	cronSkew, ttlDelay, taintDelay, deviceDelay                         prometheus.Histogram
	taintDeletions, deviceDeletions                                     prometheus.Counter
	scalings, metricReads                                               *prometheus.CounterVec
	scalingTime, metricTime                                             *prometheus.HistogramVec
	autoscalers                                                         prometheus.Gauge
	desired                                                             *prometheus.GaugeVec
	collected, collectErrors                                            *prometheus.CounterVec
	claimsMade, claimsFailed                                            prometheus.Counter
	published                                                           map[string]syncs
	sliceSyncs                                                          *prometheus.CounterVec
	ofServices, mirrors                                                 *sliced
	ranges                                                              ranges
	indexesFinished, failuresByPolicy                                   *prometheus.CounterVec
	mirrorTime                                                          prometheus.Histogram
	garbageErrors                                                       prometheus.Counter
	healthAll, healthOne                                                prometheus.Histogram
	zoneHealth, zoneSize, zoneUnhealthy                                 *prometheus.GaugeVec
	zoneEvictions                                                       *prometheus.CounterVec
	ageRatio                                                            prometheus.Histogram
	maxUnavailable, unavailable                                         *prometheus.GaugeVec
	classes, classErrors                                                prometheus.Counter
	skips                                                               map[string]*prometheus.CounterVec
	otherJobs, forcedDetaches, deviceClaims                             *prometheus.CounterVec
	managed                                                             *prometheus.GaugeVec
}

// syncs are the reconciliations of a controller by the code they ended with.
type syncs struct {
	total *prometheus.CounterVec
	time  *prometheus.HistogramVec
}

// New returns a set in which everything is zero.
func New() *Set {
	s := &Set{registry: prometheus.NewRegistry()}
	s.queues.init(s.registry)
	s.workloads()
	s.skipping()
	s.others()
	s.sliced()
	s.ranged()
	return s
}

// Registry returns the registry of the set, to be served and added to.
func (s *Set) Registry() *prometheus.Registry { return s.registry }

type key struct{}

// With returns a context that carries the set.
func With(ctx context.Context, s *Set) context.Context { return context.WithValue(ctx, key{}, s) }

// From returns the set that ctx carries, or nil.
func From(ctx context.Context) *Set {
	s, _ := ctx.Value(key{}).(*Set)
	return s
}

func (s *Set) counters(subsystem, name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: subsystem, Name: name, Help: help}, labels)
	s.registry.MustRegister(c)
	return c
}

func (s *Set) counter(subsystem, name, help string) prometheus.Counter {
	return s.counters(subsystem, name, help).WithLabelValues()
}

func (s *Set) gauges(subsystem, name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: subsystem, Name: name, Help: help}, labels)
	s.registry.MustRegister(g)
	return g
}

func (s *Set) histograms(subsystem, name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: subsystem, Name: name, Help: help, Buckets: buckets}, labels)
	s.registry.MustRegister(h)
	return h
}

func (s *Set) histogram(subsystem, name, help string, buckets []float64) prometheus.Histogram {
	return s.histograms(subsystem, name, help, buckets).WithLabelValues().(prometheus.Histogram)
}

// exp returns n buckets from the first, each factor times the one before.
func exp(first, factor float64, n int) []float64 {
	return prometheus.ExponentialBuckets(first, factor, n)
}

// delays are the buckets of evictions: five milliseconds to four minutes.
func delays() []float64 { return []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30, 60, 120, 180, 240} }
