// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/kubelet/podspec"
)

// mirror shows a static pod to the API server by a copy, and replaces a copy of
// former content.
func (k *Kubelet) mirror(ctx context.Context, pod *corev1.Pod) {
	existing, err := k.pods.Cached(pod.Namespace, pod.Name)
	switch {
	case err == nil && podspec.Mirror(existing) && podspec.UID(existing) == pod.UID && existing.DeletionTimestamp == nil:
		return
	case err == nil && podspec.Mirror(existing):
		if err := k.unmirror(ctx, existing); err != nil {
			k.log.Warn("an outdated mirror pod was not deleted", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		}
		return // its deletion wakes the worker
	case err == nil:
		return // the name belongs to another pod
	}
	copied := pod.DeepCopy()
	copied.UID, copied.ResourceVersion, copied.Generation, copied.Status = "", "", 0, corev1.PodStatus{}
	copied.Annotations[podspec.MirrorAnnotation] = pod.Annotations[podspec.HashAnnotation]
	if n := k.nodeObject(); n != nil {
		yes := true
		copied.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID, Controller: &yes}}
	}
	if _, err := k.pods.Create(ctx, copied); err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
		k.log.Warn("a mirror pod was not created", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}

// unmirror deletes a mirror pod at once.
func (k *Kubelet) unmirror(ctx context.Context, mirror *corev1.Pod) error {
	zero := int64(0)
	err := k.pods.Delete(ctx, mirror.Namespace, mirror.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &mirror.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete mirror pod %s/%s: %w", mirror.Namespace, mirror.Name, err)
	}
	return nil
}

// mirrorOf is the API server's copy of a static pod, nil for none.
func (k *Kubelet) mirrorOf(uid types.UID) *corev1.Pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.mirrors[uid]
}

// staleMirrors deletes copies of static pods that are no more.
func (k *Kubelet) staleMirrors(ctx context.Context) {
	k.mu.Lock()
	var stale []*corev1.Pod
	for uid, mirror := range k.mu.mirrors {
		if k.pool.Pod(uid) == nil {
			stale = append(stale, mirror)
		}
	}
	k.mu.Unlock()
	for _, mirror := range stale {
		if err := k.unmirror(ctx, mirror); err != nil && ctx.Err() == nil {
			k.log.Warn("a stale mirror pod was not deleted", "err", err)
		}
	}
}
