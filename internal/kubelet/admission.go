// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/admit"
	"kaji/internal/kubelet/podrun"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/podworker"
)

// others are the pods that the node has taken and that are not over.
func (k *Kubelet) others(uid types.UID) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, pod := range k.pool.Pods() {
		state, ok := k.pool.State(pod.UID)
		k.mu.Lock()
		_, rejected := k.mu.rejected[pod.UID]
		k.mu.Unlock()
		if pod.UID != uid && ok && state < podworker.Terminated && !rejected && !podspec.Finished(pod) {
			pods = append(pods, pod)
		}
	}
	return pods
}

func (k *Kubelet) admitNode(uid types.UID) admit.Node {
	return admit.Node{Object: k.nodeObject(), Allocatable: k.node.Allocatable(), Pods: k.others(uid), Sysctls: k.cfg.AllowedUnsafeSysctls, AppArmor: k.appArmor,
		Pressure: k.pressure(), Stopping: k.stopping.Load()}
}

// take decides on a pod that is new or changed and returns it with the
// resources that it is granted. Why is what led to it, as metrics name it.
func (k *Kubelet) take(pod *corev1.Pod, why string) *corev1.Pod {
	k.mu.Lock()
	granted, known := k.mu.grants[pod.UID]
	k.mu.Unlock()
	if !known {
		return k.admit(pod)
	}
	if k.countResizes(pod) {
		why = "pod_resized"
	}
	if pod.DeletionTimestamp != nil || podspec.Finished(pod) {
		return granted.Apply(pod)
	}
	if granted.Same(pod) {
		k.mu.Lock()
		k.undefer(pod, "reverted")
		delete(k.mu.pending, pod.UID)
		k.mu.Unlock()
		return pod
	}
	return k.resize(pod, granted, why)
}

func (k *Kubelet) admit(pod *corev1.Pod) *corev1.Pod {
	granted := admit.Allocate(pod)
	// A pod that has been started was taken before the agent was.
	taken := pod.Status.StartTime != nil
	if taken {
		granted = admit.Recall(pod)
	}
	var refusal *admit.Rejection
	if !taken && pod.DeletionTimestamp == nil && !podspec.Finished(pod) {
		n := k.admitNode(pod.UID)
		n.Allocate, n.Given, n.Preempt = k.allocate, k.devices.Given, k.preempt
		if refusal = admit.Pod(n, pod); refusal != nil {
			k.release(pod.UID)
		}
	}
	k.mu.Lock()
	k.mu.grants[pod.UID], k.mu.asked[pod.UID] = granted, admit.Allocate(pod)
	if refusal != nil {
		k.mu.rejected[pod.UID] = *refusal
	}
	k.mu.seen[pod.UID] = time.Now()
	k.mu.Unlock()
	if refusal != nil {
		k.meter.Rejections.WithLabelValues(refusal.Reason).Inc()
		k.recorder.Event(podrun.Reference(pod), corev1.EventTypeWarning, refusal.Reason, refusal.Message)
	}
	if !granted.Same(pod) {
		return k.resize(pod, granted, "pods_added")
	}
	return pod
}

// preempt ends pods for the sake of a critical one and waits until they are over.
func (k *Kubelet) preempt(pods []*corev1.Pod, resource string) {
	const reason, message = "Preempting", "Preempted in order to admit critical pod"
	for _, pod := range pods {
		k.log.Info("preempting a pod", "pod", pod.Namespace+"/"+pod.Name, "resource", resource)
		k.recorder.Event(podrun.Reference(pod), corev1.EventTypeWarning, reason, message)
		k.meter.Preemptions.WithLabelValues(resource).Inc()
		grace := podspec.Grace(pod)
		k.endPod(pod, reason, message, grace, &corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: corev1.PodReasonTerminationByKubelet, Message: "Pod was preempted by Kubelet to accommodate a critical pod.", ObservedGeneration: pod.Generation})
		tick := time.NewTicker(10 * time.Millisecond)
		for late := time.After(grace + 10*time.Second); ; <-tick.C { // one that does not end is tried to be ended on
			state, ok := k.pool.State(pod.UID)
			if !ok || state >= podworker.Terminated {
				break
			}
			select {
			case <-late:
				k.log.Warn("a preempted pod does not end", "pod", pod.Namespace+"/"+pod.Name)
			default:
				continue
			}
			break
		}
		tick.Stop()
	}
}

// resize grants a pod what it asks for now, or notes why not.
func (k *Kubelet) resize(pod *corev1.Pod, granted admit.Allocation, why string) *corev1.Pod {
	refusal := admit.Resize(k.admitNode(pod.UID), pod)
	k.mu.Lock()
	former, was := k.mu.pending[pod.UID]
	if refusal == nil {
		k.mu.grants[pod.UID] = admit.Allocate(pod)
		k.mu.resized = true
		delete(k.mu.pending, pod.UID)
		if k.undefer(pod, "accepted") {
			k.meter.Accepted.WithLabelValues(why).Inc()
		}
	} else {
		if _, waits := k.mu.deferred[pod.UID]; !waits && refusal.Reason == corev1.PodReasonDeferred {
			k.mu.deferred[pod.UID] = time.Now()
		} else if refusal.Reason != corev1.PodReasonDeferred {
			delete(k.mu.deferred, pod.UID)
		}
		k.mu.pending[pod.UID] = *refusal
	}
	k.mu.Unlock()
	if refusal == nil {
		return pod
	}
	if !was || former != *refusal {
		k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeWarning, "Resize"+refusal.Reason, "Pod resize %s: %s", refusal.Reason, resizeText(pod, refusal.Message))
	}
	return granted.Apply(pod)
}

// resized says whether a resize was granted since it was asked last.
func (k *Kubelet) resized() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.mu.resized
	k.mu.resized = false
	return was
}

// reconsider looks again at resizes that had to wait for room, oldest pods
// first; why says what may have made some.
func (k *Kubelet) reconsider(why string) {
	var waiting []*corev1.Pod
	k.mu.Lock()
	for uid, why := range k.mu.pending {
		if why.Reason == corev1.PodReasonDeferred {
			if pod := k.pool.Pod(uid); pod != nil {
				waiting = append(waiting, pod)
			}
		}
	}
	k.mu.Unlock()
	slices.SortFunc(waiting, func(a, b *corev1.Pod) int {
		return cmp.Compare(a.CreationTimestamp.UnixNano(), b.CreationTimestamp.UnixNano())
	})
	for _, pod := range waiting {
		if api, err := k.pods.Cached(pod.Namespace, pod.Name); err == nil && api.UID == pod.UID {
			k.pool.Update(k.take(api, why))
		}
	}
}

// refuse publishes the end of a pod that was not taken; false says that it was.
func (k *Kubelet) refuse(pod *corev1.Pod) bool {
	k.mu.Lock()
	why, rejected := k.mu.rejected[pod.UID]
	k.mu.Unlock()
	if rejected {
		k.statuses.Set(pod, corev1.PodStatus{QOSClass: podspec.QOS(pod), Phase: corev1.PodFailed, Reason: why.Reason,
			Message: "Pod was rejected: " + why.Message, ObservedGeneration: pod.Generation}, false)
	}
	return rejected
}

// resizeConditions tell of a resize that waits or is under way.
func (k *Kubelet) resizeConditions(pod *corev1.Pod, a *actual.Pod) []corev1.PodCondition {
	var conditions []corev1.PodCondition
	underWay := false
	for _, c := range podspec.Containers(pod) {
		if seen := a.Container(c.Name); seen.Running() && podrun.Resized(pod, c, seen) {
			underWay = true
		}
	}
	if pod.Spec.Resources != nil && k.cgroups != nil && !k.cgroups.Applied(pod) {
		underWay = true
	}
	k.mu.Lock()
	why, waits := k.mu.pending[pod.UID]
	was := k.mu.resizing[pod.UID]
	k.mu.resizing[pod.UID] = underWay
	k.mu.Unlock()
	if waits {
		conditions = append(conditions, corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: why.Reason,
			Message: why.Message, ObservedGeneration: pod.Generation})
	}
	if underWay {
		conditions = append(conditions, corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, ObservedGeneration: pod.Generation})
	}
	switch {
	case underWay && !was:
		k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeNormal, "ResizeStarted", "Pod resize started: %s", resizeText(pod, ""))
	case was && !underWay:
		k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeNormal, "ResizeCompleted", "Pod resize completed: %s", resizeText(pod, ""))
	}
	return conditions
}

// resizeText is the machine-readable part of the events of a resize.
func resizeText(pod *corev1.Pod, problem string) string {
	type one struct {
		Name      string                      `json:"name,omitempty"`
		Resources corev1.ResourceRequirements `json:"resources"`
	}
	text := struct {
		InitContainers []one  `json:"initContainers,omitempty"`
		Containers     []one  `json:"containers,omitempty"`
		Generation     int64  `json:"generation"`
		Error          string `json:"error,omitempty"`
	}{Generation: pod.Generation, Error: problem}
	for i := range pod.Spec.Containers {
		text.Containers = append(text.Containers, one{pod.Spec.Containers[i].Name, pod.Spec.Containers[i].Resources})
	}
	for i := range pod.Spec.InitContainers {
		text.InitContainers = append(text.InitContainers, one{pod.Spec.InitContainers[i].Name, pod.Spec.InitContainers[i].Resources})
	}
	data, err := json.Marshal(text)
	if err != nil {
		return ""
	}
	return string(data)
}
