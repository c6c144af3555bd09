// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/probe"
)

func (k *Kubelet) countProbe(pod *corev1.Pod, container string, kind probe.Kind, result string) {
	k.meter.ProbeRuns.WithLabelValues(string(kind), result, container, pod.Name, pod.Namespace, string(pod.UID)).Inc()
}

// running adds up what count makes of pods that run; nil counts pods.
func (k *Kubelet) running(count func(*corev1.PodStatus) int) int {
	n := 0
	for _, pod := range k.pool.Pods() {
		s, ok := k.statuses.Get(pod.UID)
		switch {
		case !ok || s.Phase != corev1.PodRunning:
		case count == nil:
			n++
		default:
			n += count(&s)
		}
	}
	return n
}

func (k *Kubelet) runningContainers(s *corev1.PodStatus) int {
	n := 0
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].State.Running != nil {
				n++
			}
		}
	}
	return n
}
