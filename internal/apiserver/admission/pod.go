// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"iter"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Pod returns the pod of a request about a pod itself, nil when the request is
// about anything else.
func (a *Attributes) Pod() *corev1.Pod {
	if !a.Is("", "pods", "") {
		return nil
	}
	pod, _ := a.Object.(*corev1.Pod)
	return pod
}

// Container is what all three sorts of containers of a pod have in common.
type Container = corev1.EphemeralContainerCommon

// Containers walks all containers of a pod with where they stand: those that
// run first, the others, and those added later. They may be changed.
func Containers(pod *corev1.Pod) iter.Seq2[*field.Path, *Container] {
	return func(yield func(*field.Path, *Container) bool) {
		spec := field.NewPath("spec")
		for i := range pod.Spec.InitContainers {
			if !yield(spec.Child("initContainers").Index(i), (*Container)(&pod.Spec.InitContainers[i])) {
				return
			}
		}
		for i := range pod.Spec.Containers {
			if !yield(spec.Child("containers").Index(i), (*Container)(&pod.Spec.Containers[i])) {
				return
			}
		}
		for i := range pod.Spec.EphemeralContainers {
			if !yield(spec.Child("ephemeralContainers").Index(i), &pod.Spec.EphemeralContainers[i].EphemeralContainerCommon) {
				return
			}
		}
	}
}
