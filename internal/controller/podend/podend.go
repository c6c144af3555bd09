// SPDX-License-Identifier: Apache-2.0

// Package podend ends pods on behalf of the controllers that evict and collect
// them: a condition tells why, then the pod is deleted.
package podend

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

// Why is why a pod is a target of disruption.
type Why struct {
	Reason, Message string
	// Generation is the pod's when that was found; zero leaves it out.
	Generation int64
}

// Mark makes a pod's status tell that the pod is a target of disruption, unless
// there is no reason, and, with fail, that it has failed. It writes nothing that
// is so already. The pod is named by its UID: NotFound and Conflict say that it
// is gone.
func Mark(ctx context.Context, pods client.Typed[*corev1.Pod], pod *corev1.Pod, fail bool, why Why) error {
	status := map[string]any{}
	if fail && pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
		status["phase"] = corev1.PodFailed
	}
	if why.Reason != "" {
		if c := condition(pod, why); c != nil {
			status["conditions"] = []any{c}
		}
	}
	if len(status) == 0 {
		return nil
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = pods.Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, data, "status")
	return err
}

// condition returns the condition to write; nil if the pod has it.
func condition(pod *corev1.Pod, why Why) *corev1.PodCondition {
	c := &corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: why.Reason, Message: why.Message,
		ObservedGeneration: why.Generation, LastTransitionTime: metav1.Now()}
	for _, old := range pod.Status.Conditions {
		if old.Type != c.Type || old.Status != c.Status {
			continue
		}
		if old.Reason == why.Reason && old.Message == why.Message {
			return nil
		}
		c.LastTransitionTime = old.LastTransitionTime
	}
	return c
}
