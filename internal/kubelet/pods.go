// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/podspec"
	"kaji/internal/kubelet/podworker"
	"kaji/internal/kubelet/source"
)

// sinkOf is a Kubelet as the sources of pods see it.
type sinkOf Kubelet

var _ source.Sink = (*sinkOf)(nil)

// Add implements source.Sink.
func (s *sinkOf) Add(pod *corev1.Pod) {
	k := (*Kubelet)(s)
	k.pool.Update(k.take(pod, "pod_updated"))
	for k.resized() { // which may have made room for others
		k.reconsider("pod_resized")
	}
	k.statuses.Seen(pod)
	k.shared()
	if state, ok := k.pool.State(pod.UID); ok && state == podworker.Finished && pod.DeletionTimestamp != nil {
		k.statuses.Deletable(pod.UID)
	}
}

// Gone implements source.Sink.
func (s *sinkOf) Gone(pod *corev1.Pod) {
	k := (*Kubelet)(s)
	k.pool.Remove(pod.UID)
	k.reconsider("pods_removed")
}

// Mirror implements source.Sink.
func (s *sinkOf) Mirror(pod *corev1.Pod, gone bool) {
	uid := podspec.UID(pod)
	s.mu.Lock()
	if gone {
		delete(s.mu.mirrors, uid)
	} else {
		s.mu.mirrors[uid] = pod
	}
	s.mu.Unlock()
	s.statuses.Rewrite(uid)
	s.pool.Wake(uid)
}

// adopt ends what the runtime still has of pods that no source knows: they were
// deleted while the agent was away.
func (k *Kubelet) adopt(ctx context.Context) {
	k.staleMirrors(ctx)
	keys, err := actual.List(ctx, k.cfg.Runtime)
	if err != nil {
		k.log.Warn("orphaned pods were not looked for", "err", err)
		return
	}
	running := map[types.UID]bool{}
	for _, key := range keys {
		running[key.UID] = true
	}
	k.sweepDirs(ctx, running)
	k.keepResources(ctx)
	for _, key := range keys {
		if _, known := k.pool.State(key.UID); known {
			continue
		}
		k.meter.Orphans.Inc()
		k.log.Info("ending a pod that no source knows", "pod", key.Namespace+"/"+key.Name, "uid", key.UID)
		k.pool.Update(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: key.UID}})
		k.pool.Remove(key.UID)
	}
}
