// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"cmp"
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/podworker"
	"kaji/internal/kubelet/shutdown"
)

// systemCritical is the least priority of critical pods.
const systemCritical = 2000000000

// ShutdownGroups are what a time for all pods, of which the last part is for the
// critical ones, comes to.
func ShutdownGroups(all, critical time.Duration) []shutdown.Group {
	if all == 0 || critical > all {
		return nil
	}
	return []shutdown.Group{{Priority: 0, Grace: all - critical}, {Priority: systemCritical, Grace: critical}}
}

// Shutdown ends all pods because the machine is going down: a group of priorities
// after the other, the lowest first, each within its time. The node takes no pod
// from then on. It returns when nothing runs any more, or ctx ends; Run must be
// running.
func (k *Kubelet) Shutdown(ctx context.Context, groups []shutdown.Group) {
	k.stopping.Store(true)
	k.meter.ShutdownBegan.SetToCurrentTime()
	defer k.meter.ShutdownEnded.SetToCurrentTime()
	k.node.Stopping("node is shutting down")
	k.recorder.Event(k.nodeReference(), corev1.EventTypeNormal, "NodeShutdown", "Shutdown manager detected shutdown event")
	if len(groups) == 0 {
		return
	}
	groups = slices.Clone(groups)
	slices.SortFunc(groups, func(a, b shutdown.Group) int { return cmp.Compare(a.Priority, b.Priority) })
	members := make([][]*corev1.Pod, len(groups))
	for _, pod := range k.activePods() {
		priority, at := int32(0), 0
		if pod.Spec.Priority != nil {
			priority = *pod.Spec.Priority
		}
		if podspec.Critical(pod) {
			priority = max(priority, systemCritical)
		}
		for i, g := range groups {
			if g.Priority <= priority {
				at = i
			}
		}
		members[at] = append(members[at], pod)
	}
	for i, g := range groups {
		k.shutDown(ctx, members[i], g.Grace)
	}
}

// cancelShutdown takes pods again: the machine stays.
func (k *Kubelet) cancelShutdown() {
	k.stopping.Store(false)
	k.node.Stopping("")
	k.recorder.Event(k.nodeReference(), corev1.EventTypeNormal, "NodeShutdown", "Shutdown manager detected shutdown cancellation")
}

// shutDown ends some pods and waits for that, a little longer than they are given.
func (k *Kubelet) shutDown(ctx context.Context, pods []*corev1.Pod, grace time.Duration) {
	const message = "Pod was terminated in response to imminent node shutdown."
	for _, pod := range pods {
		k.endPod(pod, "Terminated", message, min(grace, podspec.Grace(pod)), &corev1.PodCondition{Type: corev1.DisruptionTarget,
			Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: message, ObservedGeneration: pod.Generation})
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(grace + 2*time.Second)
	for _, pod := range pods {
		for {
			if state, ok := k.pool.State(pod.UID); !ok || state >= podworker.Terminated {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-late:
				k.log.Warn("pods did not end in time before the machine's end", "pod", pod.Namespace+"/"+pod.Name)
				return
			case <-tick.C:
			}
		}
	}
}
