// SPDX-License-Identifier: Apache-2.0

package component

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// healthMetrics tell at /metrics/slis how health checks went.
type healthMetrics struct {
	registry *prometheus.Registry
	last     *prometheus.GaugeVec
	all      *prometheus.CounterVec
}

func newHealthMetrics() *healthMetrics {
	m := &healthMetrics{registry: prometheus.NewRegistry(),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubernetes", Name: "healthcheck", Help: "This metric records the result of a single healthcheck."}, []string{"name", "type"}),
		all:  prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubernetes", Name: "healthchecks_total", Help: "This metric records the results of all healthcheck."}, []string{"name", "type", "status"})}
	start := prometheus.NewGauge(prometheus.GaugeOpts{Name: startTime, Help: "Start time of the process since unix epoch in seconds."})
	start.Set(processStart())
	m.registry.MustRegister(m.last, m.all, start)
	return m
}

const startTime = "process_start_time_seconds"

// processStart returns when the kernel started this process, zero if it does not
// say.
func processStart() float64 {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := r.Gather()
	if err != nil {
		return 0
	}
	for _, f := range families {
		if f.GetName() == startTime && len(f.Metric) == 1 {
			return f.Metric[0].GetGauge().GetValue()
		}
	}
	return 0
}

// passed counts a check that found nothing wrong.
func (m *healthMetrics) passed(check, path string) {
	m.last.WithLabelValues(check, path).Set(1)
	m.all.WithLabelValues(check, path, "success").Inc()
}

// ServeHTTP implements http.Handler. DELETE sets everything back.
func (m *healthMetrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodDelete {
		m.last.Reset()
		m.all.Reset()
		// A failure is the reader's: the connection is gone.
		_, _ = io.WriteString(w, "metrics reset\n")
		return
	}
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}
