// SPDX-License-Identifier: Apache-2.0

package cronjob

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/controller/meter"
)

const (
	// delta lets a reconciliation come surely after its time.
	delta = 100 * time.Millisecond
	// tooMany missed times are not looked at one by one, and warned of.
	tooMany = 100
)

// schedule makes the Job whose time has come, if it may start; next is when to
// look again, zero if only a change of the CronJob gives a reason to.
func (r *run) schedule(ctx context.Context) (next time.Duration, err error) {
	spec, now := &r.cron.Spec, time.Now()
	if r.cron.DeletionTimestamp != nil {
		return 0, nil
	}
	if spec.TimeZone != nil {
		if _, err := time.LoadLocation(*spec.TimeZone); err != nil {
			r.event(ctx, corev1.EventTypeWarning, "UnknownTimeZone", "invalid timeZone: %q: %s", *spec.TimeZone, err)
			return 0, nil
		}
	}
	if spec.Suspend != nil && *spec.Suspend {
		return 0, nil
	}
	if strings.Contains(spec.Schedule, "TZ") {
		r.event(ctx, corev1.EventTypeWarning, "UnsupportedSchedule", "CRON_TZ or TZ used in schedule %q is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", spec.Schedule)
	}
	times, err := parse(r.cron)
	if err != nil {
		r.event(ctx, corev1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule: %q : %s", spec.Schedule, err)
		return 0, nil
	}
	due, missed, err := latest(times, earliest(r.cron, now, true), now)
	if err != nil {
		r.event(ctx, corev1.EventTypeWarning, "InvalidSchedule", "invalid schedule: %s : %s", spec.Schedule, err)
		return 0, nil
	}
	if missed > tooMany {
		r.event(ctx, corev1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	next = untilNext(times, r.cron, now)
	if due.IsZero() {
		return next, nil
	}
	return next, r.start(ctx, due, now)
}

// parse reads the schedule in the CronJob's time zone.
func parse(c *batchv1.CronJob) (cron.Schedule, error) {
	text := c.Spec.Schedule
	if c.Spec.TimeZone != nil && !strings.Contains(text, "TZ") {
		text = "TZ=" + *c.Spec.TimeZone + " " + text
	}
	return cron.ParseStandard(text)
}

// earliest is the time after which starts count: the last one, or the CronJob's
// creation, and none that is past the deadline to start.
func earliest(c *batchv1.CronJob, now time.Time, deadline bool) time.Time {
	from := c.CreationTimestamp.Time
	if c.Status.LastScheduleTime != nil {
		from = c.Status.LastScheduleTime.Time
	}
	if deadline && c.Spec.StartingDeadlineSeconds != nil {
		if limit := now.Add(-time.Duration(*c.Spec.StartingDeadlineSeconds) * time.Second); limit.After(from) {
			from = limit
		}
	}
	return from
}

// latest returns the last time of a schedule after from that is not after now,
// zero if there is none, and about how many there were.
func latest(times cron.Schedule, from, now time.Time) (due time.Time, n int, err error) {
	first := times.Next(from)
	second := times.Next(first)
	if !first.IsZero() && now.Before(first) {
		return due, 0, nil
	}
	step := second.Sub(first)
	if first.IsZero() || second.IsZero() || step < time.Second {
		// Such as the 31st of February.
		return due, 0, errors.New("time difference between two schedules is less than 1 second")
	}
	// After a long time only the last ones are looked at, however far back, for
	// schedules with gaps, that is.
	start := first
	for back := step; now.Add(-back).After(first); back *= 2 {
		if t := times.Next(now.Add(-back)); !t.After(now) {
			start = t
			break
		}
	}
	for t := start; !t.After(now); t = times.Next(t) {
		due = t
	}
	return due, int(min(now.Sub(first)/step, 1<<30)) + 1, nil
}

// untilNext is the time to the next start, zero if there is none.
func untilNext(times cron.Schedule, c *batchv1.CronJob, now time.Time) time.Duration {
	from := earliest(c, now, false)
	if due, n, err := latest(times, from, now); err != nil {
		from = now
	} else if n > 0 {
		from = due
	}
	next := times.Next(from)
	if next.IsZero() {
		return 0
	}
	return max(delta, next.Sub(now)+delta)
}

// start makes the Job of a time unless the deadline, the status or another Job
// is against it.
func (r *run) start(ctx context.Context, due, now time.Time) error {
	spec := &r.cron.Spec
	if spec.StartingDeadlineSeconds != nil && due.Add(time.Duration(*spec.StartingDeadlineSeconds)*time.Second).Before(now) {
		r.event(ctx, corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z))
		return nil
	}
	job := jobAt(r.cron, due)
	if last := r.cron.Status.LastScheduleTime; last != nil && last.Time.Equal(due) {
		return nil
	}
	for _, ref := range r.cron.Status.Active {
		if ref.Name == job.Name && ref.Namespace == job.Namespace {
			return nil
		}
	}
	if len(r.cron.Status.Active) > 0 {
		switch spec.ConcurrencyPolicy {
		case batchv1.ForbidConcurrent:
			r.event(ctx, corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return nil
		case batchv1.ReplaceConcurrent:
			if err := r.replace(ctx); err != nil {
				return err
			}
		}
	}
	made, err := r.create(ctx, job)
	if err != nil || made == nil {
		return err
	}
	meter.From(ctx).CronJobMade(due)
	r.cron.Status.Active = append(r.cron.Status.Active, corev1.ObjectReference{Kind: jobKind.Kind, APIVersion: jobKind.GroupVersion().String(),
		Namespace: made.Namespace, Name: made.Name, UID: made.UID, ResourceVersion: made.ResourceVersion})
	r.cron.Status.LastScheduleTime, r.changed = ptr.To(metav1.NewTime(due)), true
	return nil
}

// replace deletes the Jobs that still run.
func (r *run) replace(ctx context.Context) error {
	for _, ref := range append([]corev1.ObjectReference(nil), r.cron.Status.Active...) {
		job, err := r.Controller.jobs.Get(ctx, ref.Namespace, ref.Name)
		if err != nil {
			r.event(ctx, corev1.EventTypeWarning, "FailedGet", "Get job: %v", err)
			return err
		}
		if err := r.remove(ctx, job); err != nil {
			return fmt.Errorf("could not replace job %s/%s: %w", job.Namespace, job.Name, err)
		}
	}
	return nil
}

// create makes a Job; a nil one without error needs no note in the status.
func (r *run) create(ctx context.Context, job *batchv1.Job) (*batchv1.Job, error) {
	made, err := r.Controller.jobs.Create(ctx, job)
	switch {
	case err == nil:
		r.event(ctx, corev1.EventTypeNormal, "SuccessfulCreate", "Created job %v", made.Name)
		return made, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil, nil
	case apierrors.IsAlreadyExists(err):
		// Ours, if the status could not be written the last time.
		there, err := r.Controller.jobs.Get(ctx, job.Namespace, job.Name)
		if err != nil || !metav1.IsControlledBy(there, r.cron) || active(r.cron, there.UID) || ended(there) != "" {
			return nil, err
		}
		return there, nil
	}
	r.event(ctx, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
	return nil, err
}

// jobAt returns the Job of a time. Its name is the same whenever it is made.
func jobAt(c *batchv1.CronJob, due time.Time) *batchv1.Job {
	zone, err := time.LoadLocation(ptr.Deref(c.Spec.TimeZone, ""))
	if err != nil {
		zone = time.UTC
	}
	annotations := maps.Clone(c.Spec.JobTemplate.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = due.In(zone).Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: fmt.Sprintf("%s-%d", c.Name, due.Unix()/60), Labels: maps.Clone(c.Spec.JobTemplate.Labels),
			Annotations: annotations, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(c, kind)}},
		Spec: *c.Spec.JobTemplate.Spec.DeepCopy(),
	}
}
