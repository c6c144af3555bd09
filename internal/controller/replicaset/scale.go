// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/controller/podstate"
)

func (c *Controller) patch(ctx context.Context, pod *corev1.Pod, patch any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = c.pods.Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, data, "")
	return err
}

// scale makes or deletes pods.
func (c *Controller) scale(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod) error {
	diff := len(pods) - int(*rs.Spec.Replicas)
	switch {
	case diff < 0:
		return c.create(ctx, rs, min(-diff, burst))
	case diff > 0:
		return c.shrink(ctx, rs, pods, min(diff, burst))
	}
	return nil
}

// create makes pods in batches that double while all succeeds, so that a full
// quota costs one refusal and not hundreds.
func (c *Controller) create(ctx context.Context, rs *appsv1.ReplicaSet, n int) error {
	for batch := 1; n > 0; batch = min(2*batch, n) {
		errs := make([]error, batch)
		var group sync.WaitGroup
		for i := range batch {
			group.Go(func() { errs[i] = c.createOne(ctx, rs) })
		}
		group.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		if n -= batch; n == 0 {
			break
		}
	}
	return nil
}

func (c *Controller) createOne(ctx context.Context, rs *appsv1.ReplicaSet) error {
	pod, err := c.pods.Create(ctx, podstate.FromTemplate(&rs.Spec.Template, rs.Namespace, rs.Name, *metav1.NewControllerRef(rs, kind)))
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil // nothing can be made here any more
		}
		c.events.Record(ctx, rs, kind, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	if _, err := c.pods.Cached(pod.Namespace, pod.Name); err != nil {
		c.pending.create(rs.UID, pod.UID)
		// It may have come between the look and the note.
		if seen, err := c.pods.Cached(pod.Namespace, pod.Name); err == nil && seen.UID == pod.UID {
			c.pending.seen(rs.UID, pod.UID)
		}
	}
	c.events.Record(ctx, rs, kind, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", pod.Name)
	return nil
}

// shrink deletes the pods that are missed least.
func (c *Controller) shrink(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod, n int) error {
	var failure error
	for _, pod := range rank(pods)[:n] {
		c.pending.delete(rs.UID, pod.UID)
		uid := pod.UID
		err := c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil {
			c.pending.gone(rs.UID, pod.UID)
			if !apierrors.IsNotFound(err) {
				c.events.Record(ctx, rs, kind, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
				failure = err
			}
			continue
		}
		c.events.Record(ctx, rs, kind, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
	}
	return failure
}

// rank orders pods by how little they are missed: not scheduled, not running,
// not ready, cheap to delete, crowded together, ready only shortly, restarted
// often, young.
func rank(pods []*corev1.Pod) []*corev1.Pod {
	perNode := map[string]int{}
	for _, p := range pods {
		perNode[p.Spec.NodeName]++
	}
	phase := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	out := slices.Clone(pods)
	slices.SortStableFunc(out, func(a, b *corev1.Pod) int {
		aSince, aReady := podstate.Ready(a)
		bSince, bReady := podstate.Ready(b)
		return cmp.Or(
			cmp.Compare(number(a.Spec.NodeName != ""), number(b.Spec.NodeName != "")),
			cmp.Compare(phase[a.Status.Phase], phase[b.Status.Phase]),
			cmp.Compare(number(aReady), number(bReady)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(perNode[b.Spec.NodeName], perNode[a.Spec.NodeName]),
			bSince.Compare(aSince),
			cmp.Compare(restarts(b), restarts(a)),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
		)
	})
	return out
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func deletionCost(p *corev1.Pod) int {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}

func restarts(p *corev1.Pod) int {
	most := 0
	for _, s := range p.Status.ContainerStatuses {
		most = max(most, int(s.RestartCount))
	}
	return most
}
