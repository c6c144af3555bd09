// SPDX-License-Identifier: Apache-2.0

package protection

import (
	"context"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

// groupIndex finds the pods of a group that have not ended.
const groupIndex = "protection.group"

// NewGroups returns the controller of PodGroups: pods that have not ended use
// them. It runs with the feature gate GenericWorkload only.
func NewGroups(api client.Interface, log *slog.Logger) *Controller[*schedulingv1beta1.PodGroup] {
	c := newController(api, log, "podgroupprotection", "scheduling.k8s.io/podgroup-protection", (*schedulingv1beta1.PodGroup).DeepCopy)
	c.taken = true
	pods := client.For[*corev1.Pod](api)
	c.synced = append(c.synced, pods.Informer())
	pods.AddIndex(groupIndex, liveGroupOf)
	wake := func(pod *corev1.Pod) {
		if name := groupOf(pod); name != "" {
			key := queue.Key{}
			key.Namespace, key.Name = pod.Namespace, name
			c.queue.Add(key)
		}
	}
	pods.AddHandler(client.Handler[*corev1.Pod]{Delete: wake, Update: func(old, pod *corev1.Pod) {
		if pod.UID != old.UID || !refers(pod) && refers(old) {
			wake(old)
		}
	}})
	c.used = func(ctx context.Context, g *schedulingv1beta1.PodGroup) (bool, error) {
		key := g.Namespace + "/" + g.Name
		if len(pods.ByIndex(groupIndex, key)) > 0 {
			return true, nil
		}
		// The informer may be behind: what goes cannot be had back.
		all, err := pods.List(ctx, g.Namespace, metav1.ListOptions{})
		return slices.ContainsFunc(all, func(pod *corev1.Pod) bool { return slices.Contains(liveGroupOf(pod), key) }), err
	}
	return c
}

func groupOf(pod *corev1.Pod) string {
	if g := pod.Spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
		return *g.PodGroupName
	}
	return ""
}

func liveGroupOf(pod *corev1.Pod) []string {
	if name := groupOf(pod); name != "" && refers(pod) {
		return []string{pod.Namespace + "/" + name}
	}
	return nil
}
