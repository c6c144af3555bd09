// SPDX-License-Identifier: Apache-2.0

package replicaset

import (
	"context"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/controller/meter"
	"kaji/internal/controller/podstate"
)

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
	pod, err := c.pods.Create(ctx, podstate.FromTemplate(&rs.Spec.Template, rs.Namespace, rs.Name, *metav1.NewControllerRef(rs, c.kind)))
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil // nothing can be made here any more
		}
		c.events.Record(ctx, rs, c.kind, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	c.pending.Create(rs.UID, pod.UID, func() bool {
		seen, err := c.pods.Cached(pod.Namespace, pod.Name)
		return err == nil && seen.UID == pod.UID
	})
	c.events.Record(ctx, rs, c.kind, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", pod.Name)
	return nil
}

// shrink deletes the pods that are missed least.
func (c *Controller) shrink(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod, n int) error {
	var failure error
	ages := agesOf(pods)
	for _, pod := range rank(pods, c.neighbours(rs), time.Now())[:n] {
		if ratio, ready := ages.ratio(pod); ready {
			meter.From(ctx).DeletedAge(ratio)
		}
		c.pending.Delete(rs.UID, pod.UID)
		uid := pod.UID
		err := c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil {
			c.pending.Gone(rs.UID, pod.UID)
			if !apierrors.IsNotFound(err) {
				c.events.Record(ctx, rs, c.kind, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
				failure = err
			}
			continue
		}
		c.events.Record(ctx, rs, c.kind, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
	}
	return failure
}

// ages are those of a set's ready pods, for the metrics.
type ages struct {
	now      time.Time
	youngest time.Time // became ready, zero without one
}

func agesOf(pods []*corev1.Pod) ages {
	a := ages{now: time.Now()}
	for _, pod := range pods {
		if since, ready := podstate.Ready(pod); ready && since.After(a.youngest) {
			a.youngest = since
		}
	}
	return a
}

// ratio is a ready pod's age over that of the youngest.
func (a ages) ratio(pod *corev1.Pod) (float64, bool) {
	since, ready := podstate.Ready(pod)
	if !ready || since.IsZero() || !a.youngest.Before(a.now) {
		return 0, false
	}
	return float64(a.now.Sub(since)) / float64(a.now.Sub(a.youngest)), true
}
