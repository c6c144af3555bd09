// SPDX-License-Identifier: Apache-2.0

package resourceclaim

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/controller/queue"
)

// reconcile frees a claim from the pods that need it no more.
func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	cached, err := c.claims.Cached(key.Namespace, key.Name)
	if err != nil {
		c.freeing.Delete(key)
		return nil // it is gone
	}
	left, err := c.consumers(ctx, cached)
	if err != nil {
		return err
	}
	if err := c.free(ctx, cached, left); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	if len(left) > 0 {
		return nil
	}
	return c.drop(ctx, cached)
}

// consumers are the entries of reservedFor that still hold; of others than pods
// nothing is known here.
func (c *Controller) consumers(ctx context.Context, claim *resourcev1.ResourceClaim) ([]resourcev1.ResourceClaimConsumerReference, error) {
	var out []resourcev1.ResourceClaimConsumerReference
	for _, ref := range claim.Status.ReservedFor {
		if ref.APIGroup != "" || ref.Resource != "pods" {
			out = append(out, ref)
			continue
		}
		pod, err := c.pods.Cached(claim.Namespace, ref.Name)
		if err != nil {
			// The scheduler may know a pod that the informer does not show yet.
			if pod, err = c.pods.Get(ctx, claim.Namespace, ref.Name); apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		if pod.UID == ref.UID && !done(pod) {
			out = append(out, ref)
		}
	}
	return out, nil
}

// free writes the consumers that are left. With the last one the allocation
// ends, so that the next pod is not bound to the node of the last, and with the
// allocation the finalizer.
func (c *Controller) free(ctx context.Context, cached *resourcev1.ResourceClaim, left []resourcev1.ResourceClaimConsumerReference) error {
	fewer, claim := len(left) < len(cached.Status.ReservedFor), cached.DeepCopy()
	// A finalizer alone stays until the deletion: the scheduler sets it before
	// the allocation. But what was begun here, and cut off, is ended.
	key := queue.Key{Namespace: claim.Namespace, Name: claim.Name}
	uid, _ := c.freeing.Load(key)
	begun := uid == claim.UID
	unused := len(left) == 0 && held(claim) && (claim.DeletionTimestamp != nil || begun)
	if !fewer && !unused {
		c.freeing.Delete(key)
		return nil
	}
	claim.Status.ReservedFor = left
	if len(left) == 0 && held(claim) && (fewer || !begun) {
		claim.Status.Allocation = nil
	}
	if fewer || cached.Status.Allocation != nil && claim.Status.Allocation == nil {
		if claim.Status.Allocation == nil {
			c.freeing.Store(key, claim.UID)
		}
		written, err := c.claims.UpdateStatus(ctx, claim)
		if err != nil {
			return err
		}
		claim = written.DeepCopy()
	}
	if held(claim) && claim.Status.Allocation == nil {
		claim.Finalizers = slices.DeleteFunc(claim.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		if _, err := c.claims.Update(ctx, claim); err != nil {
			return err
		}
	}
	c.freeing.Delete(key)
	return nil
}

// held says whether the finalizer of allocated claims is there.
func held(claim *resourcev1.ResourceClaim) bool {
	return slices.Contains(claim.Finalizers, resourcev1.Finalizer)
}

// drop deletes a claim that was made for a pod that will not run; with a pod
// that is gone it goes by garbage collection.
func (c *Controller) drop(ctx context.Context, claim *resourcev1.ResourceClaim) error {
	owner := owningPod(claim)
	if owner == nil || claim.DeletionTimestamp != nil {
		return nil
	}
	var pod *corev1.Pod
	pod, err := c.pods.Cached(claim.Namespace, owner.Name)
	if err != nil || pod.UID == owner.UID && !done(pod) {
		return nil
	}
	uid := claim.UID
	err = c.claims.Delete(ctx, claim.Namespace, claim.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete unused generated claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}
