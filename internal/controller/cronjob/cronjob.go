// SPDX-License-Identifier: Apache-2.0

// Package cronjob makes Jobs at the times of CronJobs and deletes the oldest of
// those that ended. The controller manager runs it; package job runs the Jobs.
//
// The name of a Job holds its scheduled time, so that a crash after the creation
// and before the status knows of it makes no second one.
package cronjob

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/adopt"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

const workers = 5

var (
	kind    = batchv1.SchemeGroupVersion.WithKind("CronJob")
	jobKind = batchv1.SchemeGroupVersion.WithKind("Job")
)

// Controller makes Jobs.
type Controller struct {
	crons  client.Typed[*batchv1.CronJob]
	jobs   client.Typed[*batchv1.Job]
	events *event.Recorder
	queue  *queue.Queue[queue.Key]
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{crons: client.For[*batchv1.CronJob](api), jobs: client.For[*batchv1.Job](api), events: event.New(api, "cronjob-controller", log)}
	c.queue = queue.New("cronjob", log, c.reconcile)
	adopt.Index(c.jobs)
	add := func(cron *batchv1.CronJob) { c.queue.Add(queue.Key{Namespace: cron.Namespace, Name: cron.Name}) }
	c.crons.AddHandler(client.Handler[*batchv1.CronJob]{Add: add, Update: func(old, cron *batchv1.CronJob) {
		if old.Spec.Schedule != cron.Spec.Schedule || !ptr.Equal(old.Spec.TimeZone, cron.Spec.TimeZone) {
			c.rescheduled(cron)
			return
		}
		add(cron)
	}})
	c.jobs.AddHandler(client.Handler[*batchv1.Job]{Add: c.jobChanged, Update: func(old, job *batchv1.Job) {
		if before := metav1.GetControllerOf(old); before != nil {
			if now := metav1.GetControllerOf(job); now == nil || now.UID != before.UID {
				c.jobChanged(old)
			}
		}
		c.jobChanged(job)
	}, Delete: c.jobChanged})
	return c
}

// rescheduled comes back at the first time of a new schedule: the times that the
// new one would have had before are none that were missed.
func (c *Controller) rescheduled(cron *batchv1.CronJob) {
	key, now := queue.Key{Namespace: cron.Namespace, Name: cron.Name}, time.Now()
	times, err := parse(cron)
	if err != nil {
		c.queue.Add(key) // the reconciliation tells
		return
	}
	if wait := untilNext(times, cron, now); wait > 0 {
		c.queue.AddAfter(key, wait)
	}
}

func (c *Controller) jobChanged(job *batchv1.Job) {
	if ref := metav1.GetControllerOf(job); ref != nil && ref.Kind == kind.Kind {
		c.queue.Add(queue.Key{Namespace: job.Namespace, Name: ref.Name})
	}
}

// Run makes Jobs until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.crons.Informer(), c.jobs.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

// run is one reconciliation of a CronJob.
type run struct {
	*Controller
	cron    *batchv1.CronJob // a copy
	jobs    []*batchv1.Job
	changed bool // the status differs
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	cached, err := c.crons.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	r := &run{Controller: c, cron: cached.DeepCopy(), jobs: adopt.Owned(c.jobs, cached.UID)}
	r.clean(ctx)
	failure := r.observe(ctx)
	var next time.Duration
	if failure == nil {
		next, failure = r.schedule(ctx)
	}
	if r.changed {
		if _, err := c.crons.UpdateStatus(ctx, r.cron); err != nil {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}
	}
	if next > 0 {
		c.queue.AddAfter(key, next)
	}
	return failure
}

func (r *run) event(ctx context.Context, severity, reason, format string, args ...any) {
	r.events.Record(ctx, r.cron, kind, severity, reason, format, args...)
}

// ended returns how a Job ended; empty if it has not.
func ended(job *batchv1.Job) batchv1.JobConditionType {
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

func active(cron *batchv1.CronJob, uid types.UID) bool {
	return slices.ContainsFunc(cron.Status.Active, func(ref corev1.ObjectReference) bool { return ref.UID == uid })
}

func (r *run) drop(uid types.UID) {
	r.cron.Status.Active = slices.DeleteFunc(r.cron.Status.Active, func(ref corev1.ObjectReference) bool { return ref.UID == uid })
	r.changed = true
}

// observe brings the status into line with the Jobs.
func (r *run) observe(ctx context.Context) error {
	present := map[types.UID]bool{}
	for _, job := range r.jobs {
		present[job.UID] = true
		how, listed := ended(job), active(r.cron, job.UID)
		switch {
		case !listed && how == "":
			fresh, err := r.crons.Get(ctx, r.cron.Namespace, r.cron.Name)
			if err != nil {
				return err
			}
			if active(fresh, job.UID) {
				r.cron = fresh.DeepCopy() // the informer was behind
				continue
			}
			r.event(ctx, corev1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", job.Name)
		case listed && how != "":
			r.drop(job.UID)
			r.event(ctx, corev1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %v", job.Name, how)
		}
		if at := job.Status.CompletionTime; how == batchv1.JobComplete && at != nil {
			if last := r.cron.Status.LastSuccessfulTime; last == nil || last.Before(at) {
				r.cron.Status.LastSuccessfulTime, r.changed = at, true
			}
		}
	}
	for _, ref := range slices.Clone(r.cron.Status.Active) {
		if present[ref.UID] {
			continue
		}
		_, err := r.Controller.jobs.Get(ctx, ref.Namespace, ref.Name)
		if apierrors.IsNotFound(err) {
			r.event(ctx, corev1.EventTypeNormal, "MissingJob", "Active job went missing: %v", ref.Name)
			r.drop(ref.UID)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// clean deletes the oldest Jobs beyond those that are kept.
func (r *run) clean(ctx context.Context) {
	for how, limit := range map[batchv1.JobConditionType]*int32{
		batchv1.JobComplete: r.cron.Spec.SuccessfulJobsHistoryLimit, batchv1.JobFailed: r.cron.Spec.FailedJobsHistoryLimit} {
		if limit == nil {
			continue
		}
		var done []*batchv1.Job
		for _, job := range r.jobs {
			if ended(job) == how && job.DeletionTimestamp == nil {
				done = append(done, job)
			}
		}
		slices.SortFunc(done, oldestFirst)
		for _, job := range done[:max(0, len(done)-int(*limit))] {
			_ = r.remove(ctx, job) // the event tells; the next run tries again
		}
	}
}

func oldestFirst(a, b *batchv1.Job) int {
	switch s, t := a.Status.StartTime, b.Status.StartTime; {
	case s == nil && t == nil:
		return cmp.Compare(a.Name, b.Name)
	case t == nil:
		return -1
	case s == nil:
		return 1
	default:
		return cmp.Or(s.Compare(t.Time), cmp.Compare(a.Name, b.Name))
	}
}

// remove deletes a Job with its pods.
func (r *run) remove(ctx context.Context, job *batchv1.Job) error {
	policy := metav1.DeletePropagationBackground
	err := r.Controller.jobs.Delete(ctx, job.Namespace, job.Name, metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &job.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		r.event(ctx, corev1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
		return err
	}
	r.drop(job.UID)
	r.event(ctx, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job %v", job.Name)
	return nil
}
