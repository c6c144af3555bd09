// SPDX-License-Identifier: Apache-2.0

package autoscaler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/autoscaler"
	"kaji/internal/controller/bubble"
)

// hurried is a client whose target changes before each write of its scale.
type hurried struct{ client.Interface }

func (h hurried) Update(ctx context.Context, r client.Resource, name string, obj runtime.Object, o metav1.UpdateOptions) (runtime.Object, error) {
	before, err := client.For[*appsv1.Deployment](h.Interface).Get(ctx, r.Namespace, name)
	if err == nil && r.Subresource == "scale" && before.Annotations["changed"] == "" {
		_, err = client.For[*appsv1.Deployment](h.Interface).MergePatch(ctx, r.Namespace, name, map[string]any{"metadata": map[string]any{"annotations": map[string]any{"changed": "yes"}}}, "")
	}
	if err != nil && r.Subresource == "scale" {
		return nil, err
	}
	return h.Interface.Update(ctx, r, name, obj, o)
}

// TestConflict: a target that changes while the metrics are read is scaled all
// the same, and nobody hears of it.
func TestConflict(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{autoscaler.New(hurried{api}, autoscaler.Defaults(), nil)}
	}
	bubble.Run(t, start, func(b *bubble.Bubble) {
		deployments, scalers := client.For[*appsv1.Deployment](b.API), client.For[*autoscalingv2.HorizontalPodAutoscaler](b.API)
		template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		bubble.Must(deployments.Create(b.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"}, Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template}}))(b)
		bubble.Must(scalers.Create(b.Context(), &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "h"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}, MinReplicas: ptr.To[int32](2), MaxReplicas: 4}}))(b)
		b.Wait(2 * time.Minute)
		d := bubble.Must(deployments.Get(b.Context(), "default", "d"))(b)
		if *d.Spec.Replicas != 2 || d.Annotations["changed"] == "" {
			b.Errorf("%d replicas, annotations %v", *d.Spec.Replicas, d.Annotations)
		}
		if strings.HasSuffix(b.Name(), "/faults") {
			return // calls fail there, and are told of
		}
		for _, e := range bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b) {
			if e.Reason == "FailedRescale" {
				b.Errorf("told of: %s", e.Message)
			}
		}
	})
}
