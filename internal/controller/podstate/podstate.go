// SPDX-License-Identifier: Apache-2.0

// Package podstate holds the rules about pods that several controllers share:
// when one is active, ready and available, and how pods and their controllers
// belong together. It is pure.
package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Active says whether a pod counts for its controller: it runs, or will.
func Active(pod *corev1.Pod) bool {
	return pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed && pod.DeletionTimestamp == nil
}

// Ready says whether a pod is ready, and since when.
func Ready(pod *corev1.Pod) (since time.Time, ok bool) {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

// Available says whether a pod has been ready for so many seconds; if it will
// be by waiting alone, after is how long.
func Available(pod *corev1.Pod, minReadySeconds int32, now time.Time) (ok bool, after time.Duration) {
	since, ready := Ready(pod)
	if !ready {
		return false, 0
	}
	due := since.Add(time.Duration(minReadySeconds) * time.Second)
	if minReadySeconds == 0 || !since.IsZero() && !due.After(now) {
		return true, 0
	}
	return false, due.Sub(now)
}

// FromTemplate returns a pod of a template, owned by a controller.
func FromTemplate(template *corev1.PodTemplateSpec, namespace, prefix string, owner metav1.OwnerReference) *corev1.Pod {
	t := template.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, GenerateName: prefix + "-", Labels: t.Labels, Annotations: t.Annotations,
			Finalizers: t.Finalizers, OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: t.Spec,
	}
}

// OwnerUID is the index key of an object's controller; none without one.
func OwnerUID(o metav1.Object) []string {
	if ref := metav1.GetControllerOf(o); ref != nil {
		return []string{string(ref.UID)}
	}
	return nil
}
