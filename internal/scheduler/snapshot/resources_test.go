// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resources of the pod as a whole count for what it takes, and for scores once
// it is placed, but not for scores while a node is looked for.
func TestPodLevelResources(t *testing.T) {
	s := New()
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Resources:  &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}},
		Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")}}}},
	}}
	p, err := s.NewPod(pod)
	if err != nil {
		t.Fatal(err)
	}
	if p.Requests.MilliCPU != 2000 {
		t.Errorf("requests are %+v, want 2 CPUs", p.Requests)
	}
	if want := (NonZero{2000, DefaultMemory}); p.NonZero != want {
		t.Errorf("placed, the pod counts as %+v, want %+v", p.NonZero, want)
	}
	if want := (NonZero{500, DefaultMemory}); p.Asks != want {
		t.Errorf("unplaced, the pod counts as %+v, want %+v", p.Asks, want)
	}
}
