// SPDX-License-Identifier: Apache-2.0

package v2beta1

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// SchemeGroupVersion is the version's name.
var SchemeGroupVersion = schema.GroupVersion{Group: "autoscaling", Version: "v2beta1"}

// HorizontalPodAutoscaler scales a workload by what its pods use or report.
type HorizontalPodAutoscaler struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// spec is what is wanted.
	// +optional
	Spec HorizontalPodAutoscalerSpec `json:"spec,omitempty"`
	// status is what the autoscaler last saw and did.
	// +optional
	Status HorizontalPodAutoscalerStatus `json:"status,omitempty"`
}

// HorizontalPodAutoscalerList is a list of autoscalers.
type HorizontalPodAutoscalerList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items are the autoscalers.
	Items []HorizontalPodAutoscaler `json:"items"`
}

// HorizontalPodAutoscalerSpec says what is scaled, between which numbers, by
// which metrics.
type HorizontalPodAutoscalerSpec struct {
	// scaleTargetRef names the workload.
	ScaleTargetRef autoscalingv1.CrossVersionObjectReference `json:"scaleTargetRef"`
	// minReplicas is the least number of replicas; 1 when absent.
	// +optional
	MinReplicas *int32 `json:"minReplicas,omitempty"`
	// maxReplicas is the greatest number of replicas.
	MaxReplicas int32 `json:"maxReplicas"`
	// metrics propose numbers of replicas, of which the greatest counts.
	// +optional
	// +listType=atomic
	Metrics []autoscalingv1.MetricSpec `json:"metrics,omitempty"`
}

// HorizontalPodAutoscalerStatus is what the autoscaler last saw and did.
type HorizontalPodAutoscalerStatus struct {
	// observedGeneration is the generation of the spec that it saw.
	// +optional
	ObservedGeneration *int64 `json:"observedGeneration,omitempty"`
	// lastScaleTime is when it last changed the number of replicas.
	// +optional
	LastScaleTime *metav1.Time `json:"lastScaleTime,omitempty"`
	// currentReplicas is the number it last saw.
	CurrentReplicas int32 `json:"currentReplicas"`
	// desiredReplicas is the number it last worked out.
	DesiredReplicas int32 `json:"desiredReplicas"`
	// currentMetrics are what the metrics last were.
	// +optional
	// +listType=atomic
	CurrentMetrics []autoscalingv1.MetricStatus `json:"currentMetrics"`
	// conditions say whether it can scale, and does.
	// +optional
	// +listType=atomic
	Conditions []autoscalingv1.HorizontalPodAutoscalerCondition `json:"conditions"`
}

const models = "io.k8s.api.autoscaling.v2beta1."

// OpenAPIModelName is the type's name in OpenAPI documents.
func (HorizontalPodAutoscaler) OpenAPIModelName() string { return models + "HorizontalPodAutoscaler" }

// OpenAPIModelName is the type's name in OpenAPI documents.
func (HorizontalPodAutoscalerList) OpenAPIModelName() string {
	return models + "HorizontalPodAutoscalerList"
}

// OpenAPIModelName is the type's name in OpenAPI documents.
func (HorizontalPodAutoscalerSpec) OpenAPIModelName() string {
	return models + "HorizontalPodAutoscalerSpec"
}

// OpenAPIModelName is the type's name in OpenAPI documents.
func (HorizontalPodAutoscalerStatus) OpenAPIModelName() string {
	return models + "HorizontalPodAutoscalerStatus"
}

// DeepCopyObject returns a copy that shares nothing with h.
func (h *HorizontalPodAutoscaler) DeepCopyObject() runtime.Object {
	out := new(HorizontalPodAutoscaler)
	h.copyInto(out)
	return out
}

// DeepCopyObject returns a copy that shares nothing with l.
func (l *HorizontalPodAutoscalerList) DeepCopyObject() runtime.Object {
	out := &HorizontalPodAutoscalerList{TypeMeta: l.TypeMeta, Items: make([]HorizontalPodAutoscaler, len(l.Items))}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	for i := range l.Items {
		l.Items[i].copyInto(&out.Items[i])
	}
	return out
}

// copyInto borrows the copies of version v1, whose lists hold the same types.
func (h *HorizontalPodAutoscaler) copyInto(out *HorizontalPodAutoscaler) {
	*out = *h
	h.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	spec := (&autoscalingv1.HorizontalPodAutoscalerSpec{MinReplicas: h.Spec.MinReplicas}).DeepCopy()
	status := (&autoscalingv1.HorizontalPodAutoscalerStatus{ObservedGeneration: h.Status.ObservedGeneration, LastScaleTime: h.Status.LastScaleTime}).DeepCopy()
	out.Spec.MinReplicas, out.Status.ObservedGeneration, out.Status.LastScaleTime = spec.MinReplicas, status.ObservedGeneration, status.LastScaleTime
	out.Spec.Metrics = copies(h.Spec.Metrics, (*autoscalingv1.MetricSpec).DeepCopyInto)
	out.Status.CurrentMetrics = copies(h.Status.CurrentMetrics, (*autoscalingv1.MetricStatus).DeepCopyInto)
	out.Status.Conditions = copies(h.Status.Conditions, (*autoscalingv1.HorizontalPodAutoscalerCondition).DeepCopyInto)
}

// copies copies a list; nil stays nil.
func copies[T any](in []T, copyInto func(in, out *T)) []T {
	if in == nil {
		return nil
	}
	out := make([]T, len(in))
	for i := range in {
		copyInto(&in[i], &out[i])
	}
	return out
}
