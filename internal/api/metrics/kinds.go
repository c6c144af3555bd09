// SPDX-License-Identifier: Apache-2.0

// Package metrics is the group metrics.k8s.io as data: what nodes and pods use.
// A whole cluster serves its kinds besides those of the catalog; the API server
// alone does not, as upstream's does not. Nothing of them is stored.
package metrics

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{nodeMetrics(), podMetrics()}
}

func nodeMetrics() *api.Kind {
	return &api.Kind{
		Group: metricsv1beta1.GroupName, Name: "NodeMetrics", Resource: "nodes",
		Verbs: []string{"get", "list"}, Unpublished: true,
		Versions: []api.Version{{
			GroupVersion: metricsv1beta1.SchemeGroupVersion,
			New:          api.New[metricsv1beta1.NodeMetrics], NewList: api.NewList[metricsv1beta1.NodeMetricsList],
		}},
		Storage: metricsv1beta1.SchemeGroupVersion,
		New:     api.New[metricsv1beta1.NodeMetrics], NewList: api.NewList[metricsv1beta1.NodeMetricsList],
		Rules: api.For[*metricsv1beta1.NodeMetrics]{
			Columns: columns(),
			Cells: func(m *metricsv1beta1.NodeMetrics) []any {
				return cells(m.Name, m.Usage, m.Window)
			},
		}.Rules(),
	}
}

func podMetrics() *api.Kind {
	return &api.Kind{
		Group: metricsv1beta1.GroupName, Name: "PodMetrics", Resource: "pods", Namespaced: true,
		Verbs: []string{"get", "list"}, Unpublished: true,
		Versions: []api.Version{{
			GroupVersion: metricsv1beta1.SchemeGroupVersion,
			New:          api.New[metricsv1beta1.PodMetrics], NewList: api.NewList[metricsv1beta1.PodMetricsList],
		}},
		Storage: metricsv1beta1.SchemeGroupVersion,
		New:     api.New[metricsv1beta1.PodMetrics], NewList: api.NewList[metricsv1beta1.PodMetricsList],
		Rules: api.For[*metricsv1beta1.PodMetrics]{
			Columns: columns(),
			Cells: func(m *metricsv1beta1.PodMetrics) []any {
				sum := corev1.ResourceList{}
				for _, c := range m.Containers {
					for name, used := range c.Usage {
						total := sum[name]
						total.Add(used)
						sum[name] = total
					}
				}
				return cells(m.Name, sum, m.Window)
			},
		}.Rules(),
	}
}

func columns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		table.Name(),
		{Name: "cpu", Type: "string", Format: "quantity"},
		{Name: "memory", Type: "string", Format: "quantity"},
		{Name: "Window", Type: "string", Format: "duration"},
	}
}

func cells(name string, used corev1.ResourceList, window metav1.Duration) []any {
	return []any{name, used.Cpu().String(), used.Memory().String(), window.Duration.String()}
}
