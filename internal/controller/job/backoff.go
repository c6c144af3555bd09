// SPDX-License-Identifier: Apache-2.0

package job

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/controller/podstate"
)

// endOf is when a pod ended, as well as can be told: when its last container
// did, when it stopped being ready, when its deletion began.
func endOf(pod *corev1.Pod) time.Time {
	if t, ok := containersEnd(pod); ok {
		return t
	}
	if since, ready := podstate.Ready(pod); !ready && !since.IsZero() {
		return since
	}
	if pod.DeletionTimestamp != nil {
		var grace int64
		if pod.DeletionGracePeriodSeconds != nil {
			grace = *pod.DeletionGracePeriodSeconds
		}
		return pod.DeletionTimestamp.Add(-time.Duration(grace) * time.Second)
	}
	return pod.CreationTimestamp.Time
}

func containersEnd(pod *corev1.Pod) (latest time.Time, ok bool) {
	for i := range pod.Status.ContainerStatuses {
		ended := pod.Status.ContainerStatuses[i].State.Terminated
		if ended == nil || ended.FinishedAt.IsZero() {
			return time.Time{}, false
		}
		if ended.FinishedAt.After(latest) {
			latest = ended.FinishedAt.Time
		}
	}
	return latest, len(pod.Status.ContainerStatuses) > 0
}

// after returns the memory with newly ended pods: failures since the last success.
func (m memory) after(succeeded, failed []*corev1.Pod) memory {
	var lastSuccess time.Time
	for _, pod := range succeeded {
		if t := endOf(pod); t.After(lastSuccess) {
			lastSuccess = t
		}
	}
	if len(succeeded) > 0 {
		m.failures, m.lastFailure = 0, time.Time{}
		failed = slices.DeleteFunc(slices.Clone(failed), func(pod *corev1.Pod) bool { return !endOf(pod).After(lastSuccess) })
	}
	newest := time.Time{}
	for _, pod := range failed {
		if t := endOf(pod); t.After(newest) {
			newest = t
		}
	}
	if len(failed) > 0 {
		m.failures += len(failed)
		m.lastFailure = newest
	}
	return m
}

// backoff is how long no successor may be made after so many failures.
func backoff(failures int, last time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	delay := firstBackoff
	for i := 1; i < failures && delay < lastBackoff; i++ {
		delay *= 2
	}
	return max(0, time.Until(last.Add(min(delay, lastBackoff))))
}
