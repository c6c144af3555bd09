// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/controller/meter"
)

// proposal is what one metric asks for.
type proposal struct {
	replicas int32
	name     string
	status   autoscalingv2.MetricStatus
}

// compute returns the most that a metric asks for, and its name. Metrics that
// cannot be read are left out, but then the target does not shrink.
func (l *look) compute() (int32, string, error) {
	if err := l.selectPods(); err != nil {
		l.hpa.Status.CurrentMetrics = nil
		return 0, "", err
	}
	specs := l.hpa.Spec.Metrics
	statuses := make([]autoscalingv2.MetricStatus, len(specs))
	best, name := int32(-1), ""
	var first error
	var reason, at string
	invalid := 0
	for i := range specs {
		began := time.Now()
		p, why, err := l.metric(&specs[i])
		action, failure := outcome(l.scale.Spec.Replicas, p.replicas, err)
		meter.From(l.ctx).MetricRead(string(specs[i].Type), action, failure, began)
		if err != nil {
			l.warn(why, "%v", err)
			if invalid++; first == nil {
				first, reason, at = err, why, stage(&specs[i])
			}
			continue
		}
		statuses[i] = p.status
		if p.replicas > best {
			best, name = p.replicas, p.name
		}
	}
	l.hpa.Status.CurrentMetrics = statuses
	if invalid >= len(specs) || invalid > 0 && best < l.scale.Spec.Replicas {
		l.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, reason, "the HPA was unable to compute the replica count: %v", first)
		return 0, "", fmt.Errorf("invalid metrics (%v invalid out of %v), first error is: %s%w", invalid, len(specs), at, first)
	}
	l.condition(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from %s", name)
	return best, name, nil
}

// stage says where a metric failed, for the event about all of an autoscaler.
func stage(spec *autoscalingv2.MetricSpec) string {
	switch {
	case spec.Resource != nil:
		return fmt.Sprintf("failed to get %s resource metric value: ", spec.Resource.Name)
	case spec.ContainerResource != nil:
		return fmt.Sprintf("failed to get %s container metric value: ", spec.ContainerResource.Container)
	case spec.Pods != nil:
		return "failed to get pods metric value: "
	case spec.Object != nil && spec.Object.Target.Type == autoscalingv2.AverageValueMetricType:
		return fmt.Sprintf("failed to get object metric value: failed to get %s object metric: ", spec.Object.Metric.Name)
	case spec.Object != nil:
		return "failed to get object metric value: "
	case spec.External != nil && spec.External.Target.AverageValue != nil:
		return fmt.Sprintf("failed to get %[1]s external metric value: failed to get %[1]s external metric: ", spec.External.Metric.Name)
	case spec.External != nil:
		return fmt.Sprintf("failed to get %[1]s external metric value: failed to get external metric %[1]s: ", spec.External.Metric.Name)
	}
	return ""
}

// metric evaluates one metric; reason is that of the event of a failure.
func (l *look) metric(spec *autoscalingv2.MetricSpec) (p proposal, reason string, err error) {
	p.status.Type = spec.Type
	switch {
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		s := spec.Resource
		var current autoscalingv2.MetricValueStatus
		p.replicas, current, p.name, err = l.ofResource(s.Name, "", &s.Target)
		p.status.Resource = &autoscalingv2.ResourceMetricStatus{Name: s.Name, Current: current}
		return p, "FailedGetResourceMetric", err
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		s := spec.ContainerResource
		var current autoscalingv2.MetricValueStatus
		p.replicas, current, p.name, err = l.ofResource(s.Name, s.Container, &s.Target)
		p.status.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{Name: s.Name, Container: s.Container, Current: current}
		return p, "FailedGetContainerResourceMetric", err
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		p, err = l.ofPods(spec.Pods)
		return p, "FailedGetPodsMetric", err
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		p, err = l.ofObject(spec.Object)
		return p, "FailedGetObjectMetric", err
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		p, err = l.ofExternal(spec.External)
		return p, "FailedGetExternalMetric", err
	}
	return p, "InvalidMetricSourceType", fmt.Errorf("unknown metric source type %q", spec.Type)
}

func milli(n int64) *resource.Quantity { return resource.NewMilliQuantity(n, resource.DecimalSI) }

// milliOf shows memory in powers of 1,024.
func milliOf(name corev1.ResourceName, n int64) *resource.Quantity {
	if name == corev1.ResourceMemory {
		return resource.NewMilliQuantity(n, resource.BinarySI)
	}
	return milli(n)
}

// ofResource evaluates what pods, or one container of each, use of a resource.
func (l *look) ofResource(name corev1.ResourceName, container string, target *autoscalingv2.MetricTarget) (n int32, current autoscalingv2.MetricValueStatus, label string, err error) {
	label = string(name) + " resource"
	if container != "" {
		label = string(name) + " container resource"
	}
	if target.AverageValue == nil && target.AverageUtilization == nil {
		return 0, current, "", errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	failed := func(err error) (int32, autoscalingv2.MetricValueStatus, string, error) {
		what := "utilization"
		if target.AverageValue != nil {
			what = "usage"
		}
		return 0, current, "", fmt.Errorf("failed to get %s %s: %w", name, what, err)
	}
	used, err := l.metrics.resource(l.ctx, name, l.hpa.Namespace, container, l.selector)
	if err != nil {
		return failed(fmt.Errorf("unable to get metrics for resource %s: %w", name, err))
	}
	pods := l.pods.CachedList(l.hpa.Namespace, l.selector)
	var average int64
	if target.AverageValue != nil {
		goal := target.AverageValue.MilliValue()
		n, average, err = l.evaluate(pods, used, name, plainRatio(goal), func(string) int64 { return goal })
		if err != nil {
			return failed(err)
		}
		current.AverageValue = milliOf(name, average)
		return n, current, label, nil
	}
	requests, err := requestsOf(pods, container, name)
	if err != nil {
		return failed(err)
	}
	percent := int32(0)
	ratio := func(values map[string]value) (float64, int64, error) {
		r, p, raw, err := utilization(values, requests, *target.AverageUtilization)
		percent = p
		return r, raw, err
	}
	var once *int32
	n, average, err = l.evaluate(pods, used, name, func(values map[string]value) (float64, int64, error) {
		r, raw, err := ratio(values)
		if once == nil {
			first := percent
			once = &first // what is shown is what was measured, not what was assumed
		}
		return r, raw, err
	}, func(pod string) int64 { return requests[pod] })
	if err != nil {
		return failed(err)
	}
	current.AverageUtilization, current.AverageValue = once, milliOf(name, average)
	return n, current, label + " utilization (percentage of request)", nil
}

func (l *look) ofPods(s *autoscalingv2.PodsMetricSource) (p proposal, err error) {
	metric, err := selectorOf(s.Metric.Selector)
	if err != nil {
		return p, err
	}
	if s.Target.AverageValue == nil {
		return p, errors.New("no average value target was set")
	}
	used, err := l.metrics.pods(l.ctx, s.Metric.Name, l.hpa.Namespace, l.selector, metric)
	if err != nil {
		return p, fmt.Errorf("unable to get metric %s: %w", s.Metric.Name, err)
	}
	goal := s.Target.AverageValue.MilliValue()
	n, average, err := l.evaluate(l.pods.CachedList(l.hpa.Namespace, l.selector), used, "", plainRatio(goal), func(string) int64 { return goal })
	if err != nil {
		return p, err
	}
	return proposal{n, "pods metric " + s.Metric.Name, autoscalingv2.MetricStatus{Type: autoscalingv2.PodsMetricSourceType,
		Pods: &autoscalingv2.PodsMetricStatus{Metric: s.Metric, Current: autoscalingv2.MetricValueStatus{AverageValue: milli(average)}}}}, nil
}

func (l *look) ofObject(s *autoscalingv2.ObjectMetricSource) (p proposal, err error) {
	metric, err := selectorOf(s.Metric.Selector)
	if err != nil {
		return p, err
	}
	now, err := l.metrics.object(l.ctx, s.Metric.Name, l.hpa.Namespace, &s.DescribedObject, metric)
	if err != nil {
		return p, fmt.Errorf("unable to get metric %s on %s %s/%s: %w", s.Metric.Name, s.DescribedObject.Kind, l.hpa.Namespace, s.DescribedObject.Name, err)
	}
	n, current, err := l.ofTotal(now, &s.Target)
	if err != nil {
		return p, err
	}
	name := fmt.Sprintf("%s metric %s", s.DescribedObject.Kind, s.Metric.Name)
	if s.Target.Type == autoscalingv2.AverageValueMetricType {
		name = fmt.Sprintf("external metric %s(%+v)", s.Metric.Name, s.Metric.Selector)
	}
	return proposal{n, name, autoscalingv2.MetricStatus{Type: autoscalingv2.ObjectMetricSourceType,
		Object: &autoscalingv2.ObjectMetricStatus{DescribedObject: s.DescribedObject, Metric: s.Metric, Current: current}}}, nil
}

func (l *look) ofExternal(s *autoscalingv2.ExternalMetricSource) (p proposal, err error) {
	metric, err := selectorOf(s.Metric.Selector)
	if err != nil {
		return p, err
	}
	now, err := l.metrics.external(l.ctx, s.Metric.Name, l.hpa.Namespace, metric)
	if err != nil {
		return p, fmt.Errorf("unable to get external metric %s/%s/%+v: %w", l.hpa.Namespace, s.Metric.Name, s.Metric.Selector, err)
	}
	n, current, err := l.ofTotal(now, &s.Target)
	if err != nil {
		return p, err
	}
	return proposal{n, fmt.Sprintf("external metric %s(%+v)", s.Metric.Name, s.Metric.Selector), autoscalingv2.MetricStatus{Type: autoscalingv2.ExternalMetricSourceType,
		External: &autoscalingv2.ExternalMetricStatus{Metric: s.Metric, Current: current}}}, nil
}

// ofTotal evaluates a number that is not a pod's: a target value is held by
// scaling in proportion, an average by dividing.
func (l *look) ofTotal(now int64, target *autoscalingv2.MetricTarget) (n int32, current autoscalingv2.MetricValueStatus, err error) {
	switch {
	case target.AverageValue != nil && target.Type != autoscalingv2.ValueMetricType:
		goal, n := target.AverageValue.MilliValue(), l.scale.Status.Replicas
		if ratio := float64(now) / (float64(goal) * float64(n)); n == 0 || l.beyond(ratio) {
			n = ceil(float64(now) / float64(goal))
		}
		if l.scale.Status.Replicas > 0 {
			current.AverageValue = milli(int64(math.Ceil(float64(now) / float64(l.scale.Status.Replicas))))
		} else {
			current.AverageValue = milli(now)
		}
		return n, current, nil
	case target.Value != nil:
		ratio := float64(now) / float64(target.Value.MilliValue())
		current.Value = milli(now)
		if l.scale.Spec.Replicas == 0 {
			return ceil(ratio), current, nil
		}
		if !l.beyond(ratio) {
			return l.scale.Spec.Replicas, current, nil
		}
		pods := l.pods.CachedList(l.hpa.Namespace, l.selector)
		if len(pods) == 0 {
			return 0, current, errors.New("unable to calculate ready pods: no pods returned by selector while calculating replica count")
		}
		return ceil(ratio * float64(countReady(pods))), current, nil
	}
	return 0, current, errors.New("neither a value target nor an average value target was set")
}

func selectorOf(s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(s)
}
