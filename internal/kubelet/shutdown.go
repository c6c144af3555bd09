// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/podworker"
)

// Shutdown ends all pods because the machine is going down, critical ones after
// the others, each group within its time. The node takes no pod from then on.
// It returns when nothing runs any more or ctx ends; Run must be running.
func (k *Kubelet) Shutdown(ctx context.Context, grace, criticalGrace time.Duration) {
	k.stopping.Store(true)
	k.node.Stopping("node is shutting down")
	var ordinary, critical []*corev1.Pod
	for _, pod := range k.activePods() {
		if podspec.Critical(pod) {
			critical = append(critical, pod)
		} else {
			ordinary = append(ordinary, pod)
		}
	}
	k.shutDown(ctx, ordinary, grace)
	k.shutDown(ctx, critical, criticalGrace)
}

func (k *Kubelet) shutDown(ctx context.Context, pods []*corev1.Pod, grace time.Duration) {
	const message = "Pod was terminated in response to imminent node shutdown."
	for _, pod := range pods {
		k.endPod(pod, "Terminated", message, min(grace, podspec.Grace(pod)), &corev1.PodCondition{Type: corev1.DisruptionTarget,
			Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: message, ObservedGeneration: pod.Generation})
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, pod := range pods {
		for {
			if state, ok := k.pool.State(pod.UID); !ok || state >= podworker.Terminated {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}
