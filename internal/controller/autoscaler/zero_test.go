// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/autoscaler"
	"kaji/internal/controller/bubble"
)

// TestZero: a rescale says that it was not to zero; a target that somebody scaled
// to zero is left alone, and one that the autoscaler did comes back.
func TestZero(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{autoscaler.New(api, autoscaler.Defaults(), nil)}
	}
	bubble.Run(t, start, func(b *bubble.Bubble) {
		deployments, scalers := client.For[*appsv1.Deployment](b.API), client.For[*autoscalingv2.HorizontalPodAutoscaler](b.API)
		template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		bubble.Must(deployments.Create(b.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"}, Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template}}))(b)
		bubble.Must(scalers.Create(b.Context(), &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "h"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}, MinReplicas: ptr.To[int32](2), MaxReplicas: 4}}))(b)
		condition := func(kind autoscalingv2.HorizontalPodAutoscalerConditionType) string {
			h := bubble.Must(scalers.Get(b.Context(), "default", "h"))(b)
			for _, c := range h.Status.Conditions {
				if c.Type == kind {
					return string(c.Status) + " " + c.Reason
				}
			}
			return ""
		}
		replicas := func() int32 { return *bubble.Must(deployments.Get(b.Context(), "default", "d"))(b).Spec.Replicas }
		b.Wait(2 * time.Minute)
		// Where the answer to the rescale was lost nobody knows that it was one.
		lost := strings.HasSuffix(b.Name(), "/faults")
		if n, c := replicas(), condition(autoscalingv2.ScaledToZero); n != 2 || c != "False NotScaledToZero" && !(lost && c == "") {
			b.Errorf("%d replicas, ScaledToZero %q", n, c)
		}
		bubble.Must(deployments.MergePatch(b.Context(), "default", "d", map[string]any{"spec": map[string]any{"replicas": 0}}, ""))(b)
		b.Wait(2 * time.Minute)
		if n, c := replicas(), condition(autoscalingv2.ScalingActive); n != 0 || c != "False ScalingDisabled" {
			b.Errorf("%d replicas, ScalingActive %q", n, c)
		}
	})
}
