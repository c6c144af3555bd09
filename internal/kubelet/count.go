// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	grpcstatus "google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/probe"
)

func (k *Kubelet) countProbe(pod *corev1.Pod, container string, kind probe.Kind, result string, took time.Duration) {
	k.meter.ProbeTime.WithLabelValues(string(kind), container, pod.Name, pod.Namespace).Observe(took.Seconds())
	k.meter.ProbeRuns.WithLabelValues(string(kind), result, container, pod.Name, pod.Namespace, string(pod.UID)).Inc()
}

// countStart counts the start of a container, of a sandbox where kind is
// "podsandbox", and once more of a pod in a user namespace.
func (k *Kubelet) countStart(kind string, err error) {
	if kind == "user_namespace" {
		k.meter.UserNamespaces.Inc()
		if err != nil {
			k.meter.UserNamespaceErrors.Inc()
		}
		return
	}
	k.meter.Started.WithLabelValues(kind).Inc()
	if err != nil {
		k.meter.StartErrors.WithLabelValues(grpcstatus.Code(err).String(), kind).Inc()
	}
	if kind != "podsandbox" {
		return
	}
	k.meter.Sandboxes.Inc()
	if err != nil {
		k.meter.SandboxErrors.Inc()
	}
}

// countRunning counts a pod that has begun to run.
func (k *Kubelet) countRunning(before, now *corev1.PodStatus) {
	if before.Phase != corev1.PodRunning && now.Phase == corev1.PodRunning && before.StartTime != nil && !before.StartTime.IsZero() {
		k.meter.PodStart.Observe(time.Since(before.StartTime.Time).Seconds())
	}
}

// countEnded counts containers that have ended, each end once.
func (k *Kubelet) countEnded(before, now *corev1.PodStatus) {
	count := func(kind string, before, now []corev1.ContainerStatus) {
		for i := range now {
			end := now[i].State.Terminated
			known := slices.ContainsFunc(before, func(b corev1.ContainerStatus) bool { return b.Name == now[i].Name && b.State.Terminated != nil })
			if end != nil && !known {
				k.meter.Ended.WithLabelValues(kind, strconv.Itoa(int(end.ExitCode)), end.Reason).Inc()
			}
		}
	}
	count("init_container", before.InitContainerStatuses, now.InitContainerStatuses)
	count("container", before.ContainerStatuses, now.ContainerStatuses)
	count("ephemeral_container", before.EphemeralContainerStatuses, now.EphemeralContainerStatuses)
}

// countList counts a listing of the runtime.
func (k *Kubelet) countList(took time.Duration) {
	k.meter.Relist.Observe(took.Seconds())
	k.mu.Lock()
	last := k.mu.listedAt
	k.mu.listedAt = time.Now()
	k.mu.Unlock()
	if !last.IsZero() {
		k.meter.RelistInterval.Observe(time.Since(last).Seconds())
	}
}

// since is deferred to tell how long something took.
func since(o prometheus.Observer, begun time.Time) { o.Observe(time.Since(begun).Seconds()) }

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
