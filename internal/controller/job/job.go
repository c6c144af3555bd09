// SPDX-License-Identifier: Apache-2.0

// Package job runs the pods of Jobs until as many succeeded as the Job asks
// for, or its policies say that it failed. The controller manager runs it;
// package cronjob makes some of the Jobs.
//
// Every pod is counted exactly once (KEP-2307): pods carry a finalizer; an ended
// pod's UID goes into status.uncountedTerminatedPods, then its finalizer goes,
// then the UID moves from the list into the counter. A crash between any two
// steps repeats the one that was not seen to succeed.
package job

import (
	"context"
	"log/slog"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/adopt"
	"kaji/internal/controller/event"
	"kaji/internal/controller/expect"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const (
	workers = 5
	// burst bounds the pods made or deleted, and those counted, in one
	// reconciliation: a large Job must not starve small ones, nor its status
	// grow without end.
	burst = 500
	// batch is how long changes of pods are gathered for a Job that was
	// reconciled just now.
	batch = time.Second
	// firstBackoff and lastBackoff bound the delay of a failed pod's successor.
	firstBackoff = 10 * time.Second
	lastBackoff  = 10 * time.Minute
)

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

// Controller runs Jobs.
type Controller struct {
	jobs   client.Typed[*batchv1.Job]
	pods   client.Typed[*corev1.Pod]
	events *event.Recorder
	log    *slog.Logger
	// queue holds Jobs, orphans holds pods that kept the finalizer though their
	// Job is gone or finished.
	queue, orphans *queue.Queue[queue.Key]
	pending        expect.Pending

	mu      sync.Mutex
	memory  map[queue.Key]*memory            // guarded by mu
	removed map[types.UID]map[types.UID]bool // by Job: pods whose finalizer went and that the informer shows with it; guarded by mu
}

// memory is what is remembered of a Job between reconciliations; after a
// restart of the process it starts anew.
type memory struct {
	last        time.Time // the last reconciliation
	failures    int       // since the last success
	lastFailure time.Time
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{jobs: client.For[*batchv1.Job](api), pods: client.For[*corev1.Pod](api), events: event.New(api, "job-controller", log), log: log,
		memory: map[queue.Key]*memory{}, removed: map[types.UID]map[types.UID]bool{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.queue, c.orphans = queue.New("job", log, c.reconcile).Between(time.Second, time.Minute), queue.New("job_orphan_pod", log, c.reconcileOrphan).Between(time.Second, time.Minute)
	adopt.Index(c.pods)
	c.jobs.AddHandler(client.Handler[*batchv1.Job]{Add: c.jobChanged, Update: func(_, job *batchv1.Job) { c.jobChanged(job) }, Delete: c.jobGone})
	c.pods.AddHandler(client.Handler[*corev1.Pod]{
		Add: c.podChanged,
		Update: func(old, pod *corev1.Pod) {
			if before := metav1.GetControllerOf(old); before != nil {
				if now := metav1.GetControllerOf(pod); now == nil || now.UID != before.UID {
					c.podChanged(old)
				}
			}
			c.podChanged(pod)
		},
		Delete: func(pod *corev1.Pod) {
			if ref := metav1.GetControllerOf(pod); ref != nil {
				c.pending.Gone(ref.UID, pod.UID)
				c.shown(ref.UID, pod.UID)
			}
			c.podChanged(pod)
		},
	})
	return c
}

// Run runs Jobs until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.jobs.Informer(), c.pods.Informer()) {
		return nil
	}
	c.jobs.AddHandler(client.Handler[*batchv1.Job]{Add: func(job *batchv1.Job) {
		if foreign(job) {
			meter.From(ctx).JobOfOther(*job.Spec.ManagedBy)
		}
	}})
	var group sync.WaitGroup
	group.Go(func() { c.orphans.Run(ctx, 1) })
	c.queue.Run(ctx, workers)
	group.Wait()
	return nil
}

func keyOf(o metav1.Object) queue.Key {
	return queue.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// foreign says whether another controller runs the Job.
func foreign(job *batchv1.Job) bool {
	return job.Spec.ManagedBy != nil && *job.Spec.ManagedBy != batchv1.JobControllerName
}

func (c *Controller) jobChanged(job *batchv1.Job) {
	if foreign(job) {
		return
	}
	if finished(job) != nil {
		c.freePods(job)
	}
	c.queue.Add(keyOf(job))
}

func (c *Controller) jobGone(job *batchv1.Job) {
	c.pending.Forget(job.UID)
	c.mu.Lock()
	delete(c.removed, job.UID)
	c.mu.Unlock()
	if !foreign(job) {
		c.freePods(job)
		c.queue.Add(keyOf(job))
	}
}

// freePods sees to it that no pod of an ended Job keeps the finalizer.
func (c *Controller) freePods(job *batchv1.Job) {
	for _, pod := range adopt.Owned(c.pods, job.UID) {
		if tracked(pod) {
			c.orphans.Add(keyOf(pod))
		}
	}
}

// podChanged wakes the pod's Job, or all that might adopt it.
func (c *Controller) podChanged(pod *corev1.Pod) {
	ref := metav1.GetControllerOf(pod)
	if ref == nil {
		if tracked(pod) {
			c.orphans.Add(keyOf(pod))
		}
		if pod.DeletionTimestamp != nil {
			return
		}
		for _, job := range c.jobs.CachedList(pod.Namespace, nil) {
			if s, err := metav1.LabelSelectorAsSelector(job.Spec.Selector); err == nil && !s.Empty() && s.Matches(labels.Set(pod.Labels)) && !foreign(job) {
				c.wake(keyOf(job))
			}
		}
		return
	}
	if ref.Kind != kind.Kind {
		return
	}
	c.pending.Seen(ref.UID, pod.UID)
	if pod.DeletionTimestamp != nil {
		c.pending.Gone(ref.UID, pod.UID)
	}
	if !tracked(pod) {
		c.shown(ref.UID, pod.UID)
	}
	job := c.ownerOf(pod)
	if tracked(pod) && (job == nil || finished(job) != nil) {
		c.orphans.Add(keyOf(pod))
	}
	if job != nil && !foreign(job) {
		c.wake(keyOf(job))
	}
}

// ownerOf returns the pod's Job; nil if there is none in the informer.
func (c *Controller) ownerOf(pod *corev1.Pod) *batchv1.Job {
	ref := metav1.GetControllerOf(pod)
	if ref == nil || ref.Kind != kind.Kind {
		return nil
	}
	job, err := c.jobs.Cached(pod.Namespace, ref.Name)
	if err != nil || job.UID != ref.UID {
		return nil
	}
	return job
}

// wake reconciles a Job now if it was quiet, and gathers changes otherwise.
func (c *Controller) wake(key queue.Key) {
	c.mu.Lock()
	var wait time.Duration
	if m := c.memory[key]; m != nil {
		wait = batch - time.Since(m.last)
	}
	c.mu.Unlock()
	c.queue.AddAfter(key, wait)
}

// shown notes that the informer shows a pod without the finalizer.
func (c *Controller) shown(job, pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pods := c.removed[job]; pods != nil {
		if delete(pods, pod); len(pods) == 0 {
			delete(c.removed, job)
		}
	}
}

// reconcileOrphan frees a pod whose Job counts it no more.
func (c *Controller) reconcileOrphan(ctx context.Context, key queue.Key) error {
	pod, err := c.pods.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) || err == nil && !tracked(pod) {
		return nil
	}
	if err != nil {
		return err
	}
	if metav1.GetControllerOf(pod) != nil {
		if job := c.ownerOf(pod); job != nil && (foreign(job) || finished(job) == nil) {
			return nil
		}
	}
	return c.untrack(ctx, pod)
}
