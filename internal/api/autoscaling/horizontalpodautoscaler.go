// SPDX-License-Identifier: Apache-2.0

package autoscaling

import (
	"context"
	"fmt"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func horizontalPodAutoscaler() *api.Kind {
	spec := autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: autoscalingv2.GroupName, Name: "HorizontalPodAutoscaler", Resource: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler",
		ShortNames: []string{"hpa"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: autoscalingv2.SchemeGroupVersion,
			New:          api.New[autoscalingv2.HorizontalPodAutoscaler], NewList: api.NewList[autoscalingv2.HorizontalPodAutoscalerList],
			Default: api.Default(defaultAutoscaler),
		}, {
			GroupVersion: autoscalingv1.SchemeGroupVersion,
			New:          api.New[autoscalingv1.HorizontalPodAutoscaler], NewList: api.NewList[autoscalingv1.HorizontalPodAutoscalerList],
			ToHub: api.Convert(fromV1), FromHub: api.Convert(toV1),
			Default: api.Default(func(a *autoscalingv1.HorizontalPodAutoscaler) { setDefault(&a.Spec.MinReplicas, 1) }),
		}},
		Storage: autoscalingv2.SchemeGroupVersion,
		Prefix:  "/registry/horizontalpodautoscalers",
		New:     api.New[autoscalingv2.HorizontalPodAutoscaler], NewList: api.NewList[autoscalingv2.HorizontalPodAutoscalerList],
		Rules: api.For[*autoscalingv2.HorizontalPodAutoscaler]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, a *autoscalingv2.HorizontalPodAutoscaler) {
				a.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
				a.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, a, old *autoscalingv2.HorizontalPodAutoscaler) {
				a.Status = old.Status
				if !apiequality.Semantic.DeepEqual(a.Spec, old.Spec) {
					a.Generation = old.Generation + 1
				}
			},
			Validate: func(a *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
				return validateAutoscaler(&a.Spec, nil)
			},
			ValidateUpdate: func(a, old *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
				return validateAutoscaler(&a.Spec, &old.Spec)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Reference", spec["scaleTargetRef"]),
				table.String("Targets", spec["metrics"]),
				table.String("MinPods", spec["minReplicas"]),
				table.String("MaxPods", spec["maxReplicas"]),
				table.String("Replicas", autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()["currentReplicas"]),
				table.Age(),
			},
			Cells: func(a *autoscalingv2.HorizontalPodAutoscaler) []any {
				least := "<unset>"
				if a.Spec.MinReplicas != nil {
					least = fmt.Sprint(*a.Spec.MinReplicas)
				}
				return []any{a.Name, a.Spec.ScaleTargetRef.Kind + "/" + a.Spec.ScaleTargetRef.Name,
					metricsCell(a.Spec.Metrics, a.Status.CurrentMetrics), least,
					int64(a.Spec.MaxReplicas), int64(a.Status.CurrentReplicas), table.Since(a.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, a, old *autoscalingv2.HorizontalPodAutoscaler) {
				a.Spec = old.Spec
			}),
			ValidateUpdate: api.Update(func(a, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
				path := field.NewPath("status")
				errs := apivalidation.ValidateNonnegativeField(int64(a.Status.CurrentReplicas), path.Child("currentReplicas"))
				return append(errs, apivalidation.ValidateNonnegativeField(int64(a.Status.DesiredReplicas), path.Child("desiredReplicas"))...)
			}),
			ResetFields: []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
	}
}

// setDefault gives a field that is absent its default.
func setDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func defaultAutoscaler(a *autoscalingv2.HorizontalPodAutoscaler) {
	setDefault(&a.Spec.MinReplicas, 1)
	if len(a.Spec.Metrics) == 0 {
		a.Spec.Metrics = []autoscalingv2.MetricSpec{cpuMetric(defaultCPU)}
	}
	b := a.Spec.Behavior
	if b == nil {
		return
	}
	pods := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}
	all := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}
	setDefault(&b.ScaleUp, autoscalingv2.HPAScalingRules{})
	setDefault(&b.ScaleUp.StabilizationWindowSeconds, 0)
	defaultScaling(b.ScaleUp, pods, all)
	setDefault(&b.ScaleDown, autoscalingv2.HPAScalingRules{})
	// How long scaling down waits is the controller's flag.
	defaultScaling(b.ScaleDown, all)
}

func defaultScaling(rules *autoscalingv2.HPAScalingRules, policies ...autoscalingv2.HPAScalingPolicy) {
	setDefault(&rules.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if rules.Policies == nil {
		rules.Policies = policies
	}
}

// defaultCPU is the utilisation aimed at when no metric is given, in percent.
const defaultCPU = 80

func cpuMetric(utilization int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &utilization},
		},
	}
}

// metricsCell lists "current/wanted" of the first two metrics.
func metricsCell(specs []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	if len(specs) == 0 {
		return "<none>"
	}
	var list []string
	for i := range specs {
		var status autoscalingv2.MetricStatus
		if i < len(statuses) {
			status = statuses[i]
		}
		list = append(list, metricCell(&specs[i], &status))
	}
	if n := len(list); n > 2 {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:2], ", "), n-2)
	}
	return strings.Join(list, ", ")
}

func metricCell(spec *autoscalingv2.MetricSpec, status *autoscalingv2.MetricStatus) string {
	var current *autoscalingv2.MetricValueStatus
	switch {
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		if status.External != nil {
			current = &status.External.Current
		}
		return valueCell(&spec.External.Target, current)
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		if status.Object != nil {
			current = &status.Object.Current
		}
		return valueCell(&spec.Object.Target, current)
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		if status.Pods != nil {
			current = &status.Pods.Current
		}
		return averageCell(&spec.Pods.Target, current)
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		if status.Resource != nil {
			current = &status.Resource.Current
		}
		return string(spec.Resource.Name) + ": " + utilizationCell(&spec.Resource.Target, current)
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		if status.ContainerResource != nil {
			current = &status.ContainerResource.Current
		}
		return string(spec.ContainerResource.Name) + ": " + utilizationCell(&spec.ContainerResource.Target, current)
	}
	return "<unknown type>"
}

const unknown = "<unknown>"

func quantityCell(q *resource.Quantity) string {
	if q == nil {
		return "<nil>"
	}
	return q.String()
}

func averageCell(target *autoscalingv2.MetricTarget, current *autoscalingv2.MetricValueStatus) string {
	now := unknown
	if current != nil {
		now = quantityCell(current.AverageValue)
	}
	return now + "/" + quantityCell(target.AverageValue)
}

func valueCell(target *autoscalingv2.MetricTarget, current *autoscalingv2.MetricValueStatus) string {
	if target.AverageValue != nil {
		if current != nil && current.AverageValue == nil {
			current = nil
		}
		return averageCell(target, current) + " (avg)"
	}
	now := unknown
	if current != nil {
		now = quantityCell(current.Value)
	}
	return now + "/" + quantityCell(target.Value)
}

func utilizationCell(target *autoscalingv2.MetricTarget, current *autoscalingv2.MetricValueStatus) string {
	if target.AverageValue != nil {
		return averageCell(target, current)
	}
	now, wanted := unknown, "<auto>"
	if current != nil && current.AverageUtilization != nil {
		now = fmt.Sprintf("%d%%", *current.AverageUtilization)
	}
	if target.AverageUtilization != nil {
		wanted = fmt.Sprintf("%d%%", *target.AverageUtilization)
	}
	return now + "/" + wanted
}
