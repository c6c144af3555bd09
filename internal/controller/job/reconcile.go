// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"kaji/internal/controller/meter"
	"kaji/internal/controller/podstate"
	"kaji/internal/controller/queue"
)

// view is a Job and its pods in one reconciliation.
type view struct {
	job     *batchv1.Job // a copy; its status is written at the end
	pods    []*corev1.Pod
	active  []*corev1.Pod
	settled bool // the informer shows all pods that were made and deleted

	// What the status will say; the counts follow what this reconciliation does.
	activeCount, ready, terminating int32
	// succeeded and failed count what ended, whether the status has it yet or not.
	succeeded, failed int

	// removed are pods whose finalizer went though the informer shows it.
	removed map[types.UID]bool
	// uncounted are the pods in the status' lists.
	uncountedSucceeded, uncountedFailed map[types.UID]bool

	counted       spans               // succeeded indexes of the status
	indexes       spans               // these and those found now
	failedIndexes spans               // with perIndex only
	waiting       map[int]*corev1.Pod // failed pods whose successor takes over their counts
	memory        memory
	// finish is the condition the Job ends with, nil if it goes on.
	finish *batchv1.JobCondition
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	cached, err := c.jobs.Cached(key.Namespace, key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err != nil || finished(cached) != nil {
		c.mu.Lock()
		delete(c.memory, key)
		c.mu.Unlock()
		return nil
	}
	if foreign(cached) {
		return nil
	}
	v, err := c.look(ctx, cached.DeepCopy())
	if err != nil {
		return err
	}
	v.decide()
	if left, ok := untilDeadline(v.job); ok && v.finish == nil {
		c.queue.AddAfter(key, left)
	}
	began := time.Now()
	before := v.activeCount
	changed, failure := c.act(ctx, v)
	action := "reconciling"
	switch {
	case v.activeCount > before:
		action = "pods_created"
	case v.activeCount < before:
		action = "pods_deleted"
	case changed:
		action = "tracking"
	}
	if err := c.track(ctx, v, changed); err != nil {
		failure = err
	} else {
		v.indexesEnded(ctx, &cached.Status)
	}
	meter.From(ctx).JobSynced(modeOf(v.job), action, began, failure)
	return failure
}

// indexesEnded counts the indexes that ended since a status.
func (v *view) indexesEnded(ctx context.Context, before *batchv1.JobStatus) {
	if !indexed(v.job) {
		return
	}
	m := meter.From(ctx)
	m.IndexesFinished("succeeded", perIndex(v.job), max(0, int(v.job.Status.Succeeded-before.Succeeded)))
	if perIndex(v.job) {
		failed := parseSpans(ptr.Deref(before.FailedIndexes, ""), int(ptr.Deref(v.job.Spec.Completions, 0)))
		m.IndexesFinished("failed", true, max(0, v.failedIndexes.total()-failed.total()))
	}
}

// modeOf names a Job's completion mode for the metrics.
func modeOf(job *batchv1.Job) string {
	if indexed(job) {
		return string(batchv1.IndexedCompletion)
	}
	return string(batchv1.NonIndexedCompletion)
}

// look gathers what is known of a Job. It marks the time, so that changes of
// pods that come soon are gathered.
func (c *Controller) look(ctx context.Context, job *batchv1.Job) (*view, error) {
	if job.Status.UncountedTerminatedPods == nil {
		job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	v := &view{job: job, removed: map[types.UID]bool{}, uncountedSucceeded: map[types.UID]bool{}, uncountedFailed: map[types.UID]bool{}}
	// Before the pods are read: what comes in between is waited for, not missed.
	if v.settled = c.pending.Settled(job.UID); !v.settled {
		meter.From(ctx).StaleSkip("job_controller")
	}
	var err error
	if v.pods, err = c.claim(ctx, job); err != nil {
		return nil, err
	}
	key := keyOf(job)
	c.mu.Lock()
	for uid := range c.removed[job.UID] {
		v.removed[uid] = true
	}
	if c.memory[key] == nil {
		c.memory[key] = &memory{}
	}
	c.memory[key].last = time.Now()
	v.memory = *c.memory[key]
	c.mu.Unlock()
	for _, uid := range job.Status.UncountedTerminatedPods.Succeeded {
		v.uncountedSucceeded[uid] = true
	}
	for _, uid := range job.Status.UncountedTerminatedPods.Failed {
		v.uncountedFailed[uid] = true
	}
	for _, pod := range v.pods {
		switch {
		case podstate.Active(pod):
			v.active = append(v.active, pod)
			if _, ready := podstate.Ready(pod); ready {
				v.ready++
			}
		case pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed:
			v.terminating++
		}
	}
	v.activeCount = int32(len(v.active))
	v.count()
	return v, nil
}

// uncountedPod says whether a pod is yet to be counted.
func (v *view) uncountedPod(pod *corev1.Pod) bool { return tracked(pod) && !v.removed[pod.UID] }

// count counts what has ended.
func (v *view) count() {
	var succeeded, failed []*corev1.Pod
	for _, pod := range v.pods {
		if !v.uncountedPod(pod) {
			continue
		}
		if indexed(v.job) {
			if _, ok := validIndex(v.job, pod); !ok {
				continue
			}
		}
		if pod.Status.Phase == corev1.PodSucceeded && !v.uncountedSucceeded[pod.UID] {
			succeeded = append(succeeded, pod)
		} else if podFailed(v.job, pod) && !v.uncountedFailed[pod.UID] {
			failed = append(failed, pod)
		}
	}
	v.memory = v.memory.after(succeeded, failed)
	v.succeeded = int(v.job.Status.Succeeded) + len(succeeded) + len(v.uncountedSucceeded)
	v.failed = int(v.job.Status.Failed) + len(v.uncountedFailed)
	for _, pod := range failed {
		if judge(v.job.Spec.PodFailurePolicy, pod).counts() {
			v.failed++
		}
	}
	if indexed(v.job) {
		v.countIndexes()
	}
}

func (v *view) countIndexes() {
	job, end := v.job, int(*v.job.Spec.Completions)
	v.counted = parseSpans(job.Status.CompletedIndexes, end)
	succeeded, failed := map[int]bool{}, map[int]bool{}
	for _, pod := range v.pods {
		i, ok := validIndex(job, pod)
		if !ok || !tracked(pod) {
			continue
		}
		if pod.Status.Phase == corev1.PodSucceeded {
			succeeded[i] = true
		}
		if perIndex(job) && indexFailed(job, pod) {
			failed[i] = true
		}
	}
	v.indexes = v.counted.with(spansOf(succeeded))
	v.succeeded = v.indexes.total()
	if !perIndex(job) {
		return
	}
	if job.Status.FailedIndexes != nil {
		v.failedIndexes = parseSpans(*job.Status.FailedIndexes, end)
	}
	v.failedIndexes = v.failedIndexes.with(spansOf(failed))
	v.waiting = v.predecessors()
}

// predecessors are the failed pods, one an index, that keep their finalizer
// until their successor has taken over how often the index failed.
func (v *view) predecessors() map[int]*corev1.Pod {
	out, active := map[int]*corev1.Pod{}, indexesOf(v.active)
	for _, pod := range v.pods {
		i, ok := validIndex(v.job, pod)
		if !ok || !v.uncountedPod(pod) || !podFailed(v.job, pod) || v.indexes.has(i) || v.failedIndexes.has(i) || active.has(i) {
			continue
		}
		if last := out[i]; last == nil || allFailures(last) <= allFailures(pod) && !endOf(pod).Before(endOf(last)) {
			out[i] = pod
		}
	}
	return out
}

// decide says whether and how the Job ends.
func (v *view) decide() {
	if c := holds(v.job, batchv1.JobSuccessCriteriaMet); c != nil {
		v.finish = successCriteriaMet(c.Reason, c.Message)
		return
	}
	if c := holds(v.job, batchv1.JobFailureTarget); c != nil {
		v.finish = newCondition(batchv1.JobFailed, corev1.ConditionTrue, c.Reason, c.Message)
		return
	}
	if v.finish = v.failure(); v.finish != nil {
		return
	}
	if indexed(v.job) {
		if message, met := succeededEarly(v.job, v.indexes); met {
			v.finish = successCriteriaMet(batchv1.JobReasonSuccessPolicy, message)
		}
	}
}

// failure returns the reason for which the Job fails now.
func (v *view) failure() *batchv1.JobCondition {
	job := v.job
	for _, pod := range v.pods {
		if job.Spec.PodFailurePolicy != nil && podFailed(job, pod) {
			if verdict := judge(job.Spec.PodFailurePolicy, pod); verdict.message != "" {
				return failureTarget(batchv1.JobReasonPodFailurePolicy, verdict.message)
			}
		}
	}
	if v.failed > int(*job.Spec.BackoffLimit) || restartedTooOften(job, v.pods) {
		return failureTarget(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	}
	if left, ok := untilDeadline(job); ok && left <= 0 {
		return failureTarget(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
	}
	if !perIndex(job) {
		return nil
	}
	failed := v.failedIndexes.total()
	switch {
	case job.Spec.MaxFailedIndexes != nil && failed > int(*job.Spec.MaxFailedIndexes):
		return failureTarget(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
	case failed > 0 && failed+v.indexes.total() >= int(*job.Spec.Completions):
		return failureTarget(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
	}
	return nil
}

// act makes and deletes pods, and brings the status' counts into line; changed
// says that the status differs.
func (c *Controller) act(ctx context.Context, v *view) (changed bool, failure error) {
	job := v.job
	if job.Status.StartTime == nil && !suspended(job) {
		now := metav1.Now()
		job.Status.StartTime, changed = &now, true
	}
	if v.finish != nil {
		failure = c.remove(ctx, v, v.active, false)
		if v.activeCount > 0 || !v.settled {
			v.finish = nil // pods may be left that are not counted
		}
	} else {
		managed := v.settled && job.DeletionTimestamp == nil
		if managed {
			failure = c.manage(ctx, v)
		}
		if v.complete() {
			v.finish = successCriteriaMet(batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
		} else if managed && c.setSuspended(ctx, job) {
			changed = true
		}
	}
	s := &job.Status
	if s.Active != v.activeCount || s.Ready == nil || *s.Ready != v.ready || s.Terminating == nil || *s.Terminating != v.terminating {
		changed = true
	}
	s.Active, s.Ready, s.Terminating = v.activeCount, &v.ready, &v.terminating
	return changed, failure
}

// complete says whether as many pods succeeded as were asked for: one, after
// which the others end by themselves, where no number was given.
func (v *view) complete() bool {
	if v.job.Spec.Completions == nil {
		return v.succeeded > 0 && v.activeCount == 0
	}
	return v.succeeded >= int(*v.job.Spec.Completions) && v.activeCount == 0
}

// setSuspended keeps the condition and tells of changes. The deadline of a
// resumed Job begins anew.
func (c *Controller) setSuspended(ctx context.Context, job *batchv1.Job) bool {
	if suspended(job) {
		changed := setCondition(&job.Status, newCondition(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended"))
		if changed {
			job.Status.StartTime = nil
			c.events.Record(ctx, job, kind, corev1.EventTypeNormal, "Suspended", "Job suspended")
		}
		return changed
	}
	changed := setCondition(&job.Status, newCondition(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed"))
	if changed {
		now := metav1.Now()
		job.Status.StartTime = &now
		c.events.Record(ctx, job, kind, corev1.EventTypeNormal, "Resumed", "Job resumed")
	}
	return changed
}
