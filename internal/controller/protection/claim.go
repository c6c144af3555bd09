// SPDX-License-Identifier: Apache-2.0

package protection

import (
	"context"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

// podIndex finds pods by the claims they name.
const podIndex = "protection.claim"

// NewClaims returns the controller of PersistentVolumeClaims: pods that have a
// node use them. Of those that are bound, a condition tells since when no pod
// refers to them.
func NewClaims(api client.Interface, log *slog.Logger) *Controller[*corev1.PersistentVolumeClaim] {
	c := newController(api, log, "pvcprotection", "kubernetes.io/pvc-protection", (*corev1.PersistentVolumeClaim).DeepCopy)
	pods := client.For[*corev1.Pod](api)
	c.synced = append(c.synced, pods.Informer())
	pods.AddIndex(podIndex, claimsOf)
	wake := func(pod *corev1.Pod) {
		for _, name := range claimsOf(pod) {
			key := queue.Key{}
			key.Namespace, key.Name = pod.Namespace, name[len(pod.Namespace)+1:]
			c.queue.Add(key)
		}
	}
	pods.AddHandler(client.Handler[*corev1.Pod]{Add: wake, Delete: wake, Update: func(old, pod *corev1.Pod) {
		if pod.UID != old.UID || over(pod) && !over(old) {
			wake(old)
		}
	}})
	c.tell = func(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
		if claim.Status.Phase != corev1.ClaimBound {
			return nil
		}
		next := claim.DeepCopy()
		if !noteUse(&next.Status, slices.ContainsFunc(pods.ByIndex(podIndex, claim.Namespace+"/"+claim.Name), refers)) {
			return nil
		}
		_, err := c.objects.UpdateStatus(ctx, next)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	c.used = func(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
		uses := func(pod *corev1.Pod) bool { return usedBy(claim, pod) }
		if slices.ContainsFunc(pods.ByIndex(podIndex, claim.Namespace+"/"+claim.Name), uses) {
			return true, nil
		}
		// The informer may be behind: what goes cannot be had back.
		all, err := pods.List(ctx, claim.Namespace, metav1.ListOptions{})
		return slices.ContainsFunc(all, uses), err
	}
	return c
}

// over says that the node has let go of a pod.
func over(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0 ||
		pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// refers says whether a pod that names a claim counts as a use of it: one that
// has not ended, with a node or without.
func refers(pod *corev1.Pod) bool {
	return pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// noteUse sets the condition Unused and says whether it changed.
func noteUse(status *corev1.PersistentVolumeClaimStatus, used bool) bool {
	want := corev1.PersistentVolumeClaimCondition{Type: corev1.PersistentVolumeClaimUnused, Status: corev1.ConditionTrue,
		Reason: "NoPodsUsingPVC", Message: "No pods are currently referencing this PVC", LastTransitionTime: metav1.Now()}
	if used {
		want.Status, want.Reason, want.Message = corev1.ConditionFalse, "PodUsingPVC", "A pod is currently referencing this PVC"
	}
	i := slices.IndexFunc(status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool { return c.Type == want.Type })
	if i < 0 {
		status.Conditions = append(status.Conditions, want)
		return true
	}
	if status.Conditions[i].Status == want.Status {
		return false
	}
	status.Conditions[i] = want
	return true
}

func claimsOf(pod *corev1.Pod) (out []string) {
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, pod.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, pod.Namespace+"/"+ephemeral.VolumeClaimName(pod, v))
		}
	}
	return out
}

// usedBy says whether a pod uses a claim. One without a node does not: its
// node will refuse a claim that is being deleted.
func usedBy(claim *corev1.PersistentVolumeClaim, pod *corev1.Pod) bool {
	if pod.Spec.NodeName == "" {
		return false
	}
	shut := pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name ||
			v.Ephemeral != nil && !shut && ephemeral.VolumeClaimName(pod, v) == claim.Name && ephemeral.VolumeIsForPod(pod, claim) == nil {
			return true
		}
	}
	return false
}
