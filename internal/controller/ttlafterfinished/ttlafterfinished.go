// SPDX-License-Identifier: Apache-2.0

// Package ttlafterfinished deletes Jobs that ended as long ago as their
// ttlSecondsAfterFinished says. The controller manager runs it.
package ttlafterfinished

import (
	"context"
	"log/slog"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const workers = 5

// Controller deletes Jobs.
type Controller struct {
	jobs  client.Typed[*batchv1.Job]
	queue *queue.Queue[queue.Key]
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{jobs: client.For[*batchv1.Job](api)}
	c.queue = queue.New("ttl_jobs_to_delete", log, c.reconcile)
	add := func(job *batchv1.Job) {
		if _, ends := expiry(job); ends {
			c.queue.Add(queue.Key{Namespace: job.Namespace, Name: job.Name})
		}
	}
	c.jobs.AddHandler(client.Handler[*batchv1.Job]{Add: add, Update: func(_, job *batchv1.Job) { add(job) }})
	return c
}

// Run deletes Jobs until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.jobs.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

// expiry is when a Job is to be deleted; false says never, as things stand.
func expiry(job *batchv1.Job) (at time.Time, ends bool) {
	if job.DeletionTimestamp != nil || job.Spec.TTLSecondsAfterFinished == nil {
		return time.Time{}, false
	}
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Add(time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second), true
		}
	}
	return time.Time{}, false
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	job, err := c.jobs.Cached(key.Namespace, key.Name)
	if err == nil && c.due(key, job) {
		// The informer may not have a change of the time yet.
		if job, err = c.jobs.Get(ctx, key.Namespace, key.Name); err == nil && c.due(key, job) {
			policy := metav1.DeletePropagationForeground
			err = c.jobs.Delete(ctx, key.Namespace, key.Name, metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &job.UID}})
			if at, _ := expiry(job); err == nil {
				meter.From(ctx).JobExpired(at)
			}
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// due says whether the time has come, and comes back when it has.
func (c *Controller) due(key queue.Key, job *batchv1.Job) bool {
	at, ends := expiry(job)
	if !ends {
		return false
	}
	left := time.Until(at)
	if left > 0 {
		c.queue.AddAfter(key, left)
	}
	return left <= 0
}
