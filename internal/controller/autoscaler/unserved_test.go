// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/autoscaler"
	"kaji/internal/controller/bubble"
)

// TestUnserved: without the APIs of metrics an autoscaler says what it misses as
// upstream's does, in its condition, in an event of the metric and in one of all.
func TestUnserved(t *testing.T) {
	ten := ptr.To(resource.MustParse("10"))
	average := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ten}
	total := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: ten}
	service := autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "s"}
	q := autoscalingv2.MetricIdentifier{Name: "q"}
	const custom = "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"
	const external = "unable to get external metric default/q/nil: unable to fetch metrics from external metrics API: the server could not find the requested resource (get q.external.metrics.k8s.io)"
	cases := map[string]struct {
		metric          autoscalingv2.MetricSpec
		reason, at, why string
	}{
		"pods": {autoscalingv2.MetricSpec{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{Metric: q, Target: average}}, "FailedGetPodsMetric",
			"failed to get pods metric value: ", "unable to get metric q: " + custom},
		"object": {autoscalingv2.MetricSpec{Type: "Object", Object: &autoscalingv2.ObjectMetricSource{Metric: q, DescribedObject: service, Target: total}}, "FailedGetObjectMetric",
			"failed to get object metric value: ", "unable to get metric q on Service default/s: " + custom},
		"averaged": {autoscalingv2.MetricSpec{Type: "Object", Object: &autoscalingv2.ObjectMetricSource{Metric: q, DescribedObject: service, Target: average}}, "FailedGetObjectMetric",
			"failed to get object metric value: failed to get q object metric: ", "unable to get metric q on Service default/s: " + custom},
		"external": {autoscalingv2.MetricSpec{Type: "External", External: &autoscalingv2.ExternalMetricSource{Metric: q, Target: total}}, "FailedGetExternalMetric",
			"failed to get q external metric value: failed to get external metric q: ", external},
		"resource": {autoscalingv2.MetricSpec{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{Name: "memory", Target: average}}, "FailedGetResourceMetric", "failed to get memory resource metric value: ",
			"failed to get memory usage: unable to get metrics for resource memory: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"},
	}
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{autoscaler.New(api, autoscaler.Defaults(), nil)}
	}
	bubble.RunAs(t, "horizontal-pod-autoscaler", start, func(b *bubble.Bubble) {
		scalers := client.For[*autoscalingv2.HorizontalPodAutoscaler](b.API)
		for name, c := range cases {
			labels := map[string]string{"app": name}
			template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
			d := bubble.Must(client.For[*appsv1.Deployment](b.API).Create(b.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: appsv1.DeploymentSpec{
				Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template}}))(b)
			bubble.Must(scalers.Create(b.Context(), &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: d.Name}, MaxReplicas: 4, Metrics: []autoscalingv2.MetricSpec{c.metric}}}))(b)
		}
		b.Wait(time.Minute)
		events := map[string]bool{}
		for _, e := range bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b) {
			events[e.InvolvedObject.Name+" "+e.Reason+" "+e.Message] = true
		}
		for name, c := range cases {
			h := bubble.Must(scalers.Get(b.Context(), "default", name))(b)
			found := false
			for _, have := range h.Status.Conditions {
				found = found || have.Type == autoscalingv2.ScalingActive && have.Reason == c.reason && have.Message == "the HPA was unable to compute the replica count: "+c.why
			}
			if !found || ptr.Deref(h.Status.ObservedGeneration, 0) != h.Generation {
				b.Errorf("%s: status %+v, want %s", name, h.Status, c.why)
			}
			for _, want := range []string{c.reason + " " + c.why, "FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: " + c.at + c.why} {
				if !events[name+" "+want] {
					b.Errorf("%s: no event %q among %v", name, want, events)
				}
			}
		}
	})
}
