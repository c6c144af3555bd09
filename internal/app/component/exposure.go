// SPDX-License-Identifier: Apache-2.0

package component

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/yaml"

	"kaji/internal/scheduler/flags"
)

// exposure gathers the metrics that are served: without those that are switched
// off, and with no more values of labels than are allowed.
type exposure struct {
	from    prometheus.Gatherer
	without map[string]bool
	allowed map[string]map[string][]string // values by metric and label

	disabled, hidden, unexpected prometheus.Counter

	mu   sync.Mutex
	seen map[string]bool // the series whose labels were replaced; guarded by mu
}

// expose returns what is served of a registry, to which it adds what it says of
// itself.
func expose(o *flags.Metrics, registry *prometheus.Registry) (prometheus.Gatherer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	rules := o.AllowListMapping
	if o.AllowListMappingManifest != "" {
		data, err := os.ReadFile(o.AllowListMappingManifest)
		if err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(data, &rules); err != nil {
			return nil, fmt.Errorf("%s: %w", o.AllowListMappingManifest, err)
		}
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		registry.MustRegister(c)
		return c
	}
	e := &exposure{from: registry, without: map[string]bool{}, allowed: map[string]map[string][]string{}, seen: map[string]bool{},
		disabled:   counter("disabled_metrics_total", "The count of disabled metrics."),
		hidden:     counter("hidden_metrics_total", "The count of hidden metrics."),
		unexpected: counter("cardinality_enforcement_unexpected_categorizations_total", "The count of unexpected categorizations during cardinality enforcement.")}
	for _, name := range o.DisabledMetrics {
		if !e.without[name] {
			e.without[name] = true
			e.disabled.Inc()
		}
	}
	for key, values := range rules {
		metric, label, _ := strings.Cut(key, ",")
		if e.allowed[metric] == nil {
			e.allowed[metric] = map[string][]string{}
		}
		e.allowed[metric][label] = strings.Split(values, ",")
	}
	return e, nil
}

// Gather implements prometheus.Gatherer.
func (e *exposure) Gather() ([]*dto.MetricFamily, error) {
	families, err := e.from.Gather()
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return e.without[f.GetName()] })
	for _, f := range families {
		if rules := e.allowed[f.GetName()]; rules != nil {
			e.constrain(f, rules)
		}
	}
	return families, err
}

// constrain replaces the values of labels that are not allowed, and puts together
// what has the same labels then.
func (e *exposure) constrain(f *dto.MetricFamily, rules map[string][]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	sums := map[string]*dto.Metric{}
	var left []*dto.Metric
	unexpected := "unexpected"
	for _, m := range f.Metric {
		before := fmt.Sprint(f.GetName(), m.Label)
		replaced := false
		m.Label = slices.Clone(m.Label) // the registry's own are not changed
		for i, l := range m.Label {
			if values, ok := rules[l.GetName()]; ok && !slices.Contains(values, l.GetValue()) {
				m.Label[i], replaced = &dto.LabelPair{Name: l.Name, Value: &unexpected}, true
			}
		}
		if replaced && !e.seen[before] {
			e.seen[before] = true
			e.unexpected.Inc()
		}
		key := fmt.Sprint(m.Label)
		if sum := sums[key]; sum != nil {
			merge(sum, m)
			continue
		}
		sums[key] = m
		left = append(left, m)
	}
	f.Metric = left
}

// merge adds what m counts to sum; of gauges the last one counts.
func merge(sum, m *dto.Metric) {
	switch {
	case sum.Counter != nil:
		v := sum.Counter.GetValue() + m.Counter.GetValue()
		sum.Counter = &dto.Counter{Value: &v}
	case sum.Gauge != nil:
		sum.Gauge = m.Gauge
	case sum.Histogram != nil:
		n, total := sum.Histogram.GetSampleCount()+m.Histogram.GetSampleCount(), sum.Histogram.GetSampleSum()+m.Histogram.GetSampleSum()
		h := &dto.Histogram{SampleCount: &n, SampleSum: &total}
		for i, b := range sum.Histogram.Bucket { // of one family, so with the same bounds
			count := b.GetCumulativeCount() + m.Histogram.Bucket[i].GetCumulativeCount()
			h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: &count, UpperBound: b.UpperBound})
		}
		sum.Histogram = h
	}
}
