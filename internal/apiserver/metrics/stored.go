// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// stored collects what the store and the cache hold, when asked.
type stored struct{ metrics *Metrics }

var (
	objectsDesc = prometheus.NewDesc("apiserver_resource_objects", "[STABLE] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.", []string{"group", "resource"}, nil)
	oldDesc     = prometheus.NewDesc("apiserver_storage_objects", "[STABLE] Number of stored objects at the time of last check split by kind.", []string{"resource"}, nil)
	sizeDesc    = prometheus.NewDesc("apiserver_storage_size_bytes", "[STABLE] Size of the storage database file physically allocated in bytes.", []string{"storage_cluster_id"}, nil)
)

// Describe implements prometheus.Collector.
func (s *stored) Describe(out chan<- *prometheus.Desc) {
	out <- objectsDesc
	out <- oldDesc
	out <- sizeDesc
}

// Collect implements prometheus.Collector.
func (s *stored) Collect(out chan<- prometheus.Metric) {
	if s.metrics.cfg.Sizes == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	size, objects := s.metrics.cfg.Sizes(ctx)
	out <- prometheus.MustNewConstMetric(sizeDesc, prometheus.GaugeValue, float64(size), "etcd-0")
	for r, n := range objects {
		out <- prometheus.MustNewConstMetric(objectsDesc, prometheus.GaugeValue, float64(n), r.Group, r.Resource)
		name := r.Resource
		if r.Group != "" {
			name += "." + r.Group
		}
		out <- prometheus.MustNewConstMetric(oldDesc, prometheus.GaugeValue, float64(n), name)
	}
}
