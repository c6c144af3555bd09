// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"kaji/internal/client"
)

// A scale is understood with its Go type and without; nothing else is.
func TestScale(t *testing.T) {
	for name, answer := range map[string]runtime.Object{
		"typed": &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 4}},
		"untyped": &unstructured.Unstructured{Object: map[string]any{"apiVersion": "autoscaling/v1", "kind": "Scale",
			"metadata": map[string]any{"name": "w"}, "spec": map[string]any{"replicas": int64(4)}}},
	} {
		if scale, err := client.Scale(answer); err != nil || scale.Spec.Replicas != 4 {
			t.Errorf("%s: %v, %v", name, scale, err)
		}
	}
	for name, answer := range map[string]runtime.Object{
		"typed":   &corev1.Pod{},
		"untyped": &unstructured.Unstructured{Object: map[string]any{"apiVersion": "x.io/v1", "kind": "W"}},
	} {
		if scale, err := client.Scale(answer); err == nil {
			t.Errorf("another %s object is %v", name, scale)
		}
	}
}
