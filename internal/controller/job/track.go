// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/controller/meter"
)

func tracked(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}

// untrack takes the finalizer off a pod.
func (c *Controller) untrack(ctx context.Context, pod *corev1.Pod) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pod.UID, "$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer}}})
	if err != nil {
		return err
	}
	_, err = c.pods.Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, data, "")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err // a conflict, too: it may be another pod of the name, or the same in other words
}

// track counts ended pods, in the order that loses and doubles none: their UIDs
// into the status, their finalizers off, their UIDs into the counters; the last
// write carries the condition with which the Job ends.
func (c *Controller) track(ctx context.Context, v *view, changed bool) error {
	s := &v.job.Status
	held := map[types.UID]bool{}
	for _, pod := range v.pods {
		if v.uncountedPod(pod) {
			held[pod.UID] = true
		}
	}
	changed = settle(s, held) || changed
	free, all, more := v.gather()
	changed = v.setIndexes() || more || changed
	changed = v.announce() || changed
	if changed {
		if err := c.write(ctx, v, "adding uncounted pods to status"); err != nil {
			return err
		}
		c.remember(v)
		s = &v.job.Status
	}
	failure := c.release(ctx, v.job, free, held)
	changed = settle(s, held)
	if failure != nil {
		if changed {
			if err := c.write(ctx, v, "removing uncounted pods from status"); err != nil {
				return err
			}
		}
		return failure
	}
	ended := all && v.end()
	if changed || ended {
		if err := c.write(ctx, v, "removing uncounted pods from status"); err != nil {
			return err
		}
	}
	if ended {
		c.tell(ctx, v)
	}
	if !all {
		c.queue.Add(keyOf(v.job)) // more pods are to be counted
	}
	return nil
}

func (c *Controller) write(ctx context.Context, v *view, what string) error {
	job, err := c.jobs.UpdateStatus(ctx, v.job)
	if err != nil {
		if apierrors.IsNotFound(err) && v.job.DeletionTimestamp != nil {
			return nil
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	v.job = job.DeepCopy()
	if v.job.Status.UncountedTerminatedPods == nil {
		v.job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	return nil
}

// remember keeps the failures for the back-off once the status has them.
func (c *Controller) remember(v *view) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.memory[keyOf(v.job)]; m != nil {
		m.failures, m.lastFailure = v.memory.failures, v.memory.lastFailure
	}
}

// settle moves pods without finalizer from the lists into the counters.
func settle(s *batchv1.JobStatus, held map[types.UID]bool) (changed bool) {
	lists := s.UncountedTerminatedPods
	for _, l := range []struct {
		uids  *[]types.UID
		count *int32
	}{{&lists.Succeeded, &s.Succeeded}, {&lists.Failed, &s.Failed}} {
		var left []types.UID
		for _, uid := range *l.uids {
			if held[uid] {
				left = append(left, uid)
			}
		}
		if n := len(*l.uids) - len(left); n > 0 {
			*l.count += int32(n)
			*l.uids, changed = left, true
		}
	}
	return changed
}

// gather puts newly ended pods into the status' lists and returns those whose
// finalizer may go. all says that none was left for the next time, more that
// the lists grew.
func (v *view) gather() (free []*corev1.Pod, all, more bool) {
	lists := v.job.Status.UncountedTerminatedPods
	found := map[int]bool{}
	for _, pod := range v.pods {
		if !v.uncountedPod(pod) || !v.mayFree(pod) {
			continue
		}
		if len(found)+len(lists.Succeeded)+len(lists.Failed) >= burst {
			v.indexes = v.counted.with(spansOf(found))
			return free, false, more
		}
		free = append(free, pod)
		i, valid := 0, true
		if indexed(v.job) {
			i, valid = validIndex(v.job, pod)
		}
		switch {
		case pod.Status.Phase == corev1.PodSucceeded && !v.uncountedFailed[pod.UID]:
			if indexed(v.job) {
				// The index itself says that it is counted.
				if valid && !v.counted.has(i) {
					found[i], more = true, true
				}
			} else if !v.uncountedSucceeded[pod.UID] {
				lists.Succeeded, more = append(lists.Succeeded, pod.UID), true
			}
		case podFailed(v.job, pod) || v.finish != nil && v.finish.Type != batchv1.JobSuccessCriteriaMet:
			if !v.uncountedFailed[pod.UID] && valid && judge(v.job.Spec.PodFailurePolicy, pod).counts() {
				lists.Failed, more = append(lists.Failed, pod.UID), true
			}
		}
	}
	if indexed(v.job) {
		v.indexes = v.counted.with(spansOf(found))
	}
	return free, true, more
}

// mayFree says whether a pod's finalizer may go.
func (v *view) mayFree(pod *corev1.Pod) bool {
	if v.job.DeletionTimestamp != nil || v.finish != nil || pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	if !podFailed(v.job, pod) {
		return false
	}
	i, ok := indexOf(pod)
	return !ok || v.waiting[i] == nil || v.waiting[i].UID != pod.UID
}

func (v *view) setIndexes() (changed bool) {
	if !indexed(v.job) {
		return false
	}
	s := &v.job.Status
	completed := v.indexes.String()
	changed = completed != s.CompletedIndexes || s.Succeeded != int32(v.indexes.total())
	s.CompletedIndexes, s.Succeeded = completed, int32(v.indexes.total())
	if perIndex(v.job) {
		failed := v.failedIndexes.String()
		changed = changed || s.FailedIndexes == nil || *s.FailedIndexes != failed
		s.FailedIndexes = &failed
	} else if s.FailedIndexes != nil {
		s.FailedIndexes, changed = nil, true
	}
	return changed
}

// announce puts the interim condition into the status, before any pod that was
// the reason may go, and turns finish into the final one.
func (v *view) announce() (changed bool) {
	if v.finish == nil {
		return false
	}
	final := batchv1.JobFailed
	switch v.finish.Type {
	case batchv1.JobSuccessCriteriaMet:
		final = batchv1.JobComplete
	case batchv1.JobFailed:
		return false // announced before
	}
	if holds(v.job, v.finish.Type) == nil {
		changed = setCondition(&v.job.Status, v.finish)
	}
	v.finish = newCondition(final, corev1.ConditionTrue, v.finish.Reason, v.finish.Message)
	return changed
}

// release takes the finalizers off; held loses those that went.
func (c *Controller) release(ctx context.Context, job *batchv1.Job, pods []*corev1.Pod, held map[types.UID]bool) error {
	var mu sync.Mutex
	var failure error
	inParallel(len(pods), func(i int) {
		pod := pods[i]
		c.expectRemoved(job.UID, pod.UID)
		err := c.untrack(ctx, pod)
		if err != nil {
			c.shown(job.UID, pod.UID)
		} else if now, err := c.pods.Cached(pod.Namespace, pod.Name); err != nil || now.UID != pod.UID || !tracked(now) {
			c.shown(job.UID, pod.UID) // the informer was faster
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failure = errors.Join(failure, fmt.Errorf("removing tracking finalizer: %w", err))
			return
		}
		delete(held, pod.UID)
		result := "failed"
		if pod.Status.Phase == corev1.PodSucceeded {
			result = "succeeded"
		}
		m := meter.From(ctx)
		if action := judge(job.Spec.PodFailurePolicy, pod).action; result == "failed" && action != "" {
			m.FailureByPolicy(string(action))
		}
		m.JobPodsFinished(modeOf(job), result, 1)
		m.JobPodTracked("add")
		m.JobPodTracked("delete")
	})
	return failure
}

func (c *Controller) expectRemoved(job, pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removed[job] == nil {
		c.removed[job] = map[types.UID]bool{}
	}
	c.removed[job][pod] = true
}

// end puts the final condition into the status when all pods have ended and are
// counted.
func (v *view) end() bool {
	s := &v.job.Status
	if v.finish == nil || len(s.UncountedTerminatedPods.Succeeded)+len(s.UncountedTerminatedPods.Failed) > 0 || v.terminating > 0 {
		return false
	}
	setCondition(s, v.finish)
	if v.finish.Type == batchv1.JobComplete {
		s.CompletionTime = &v.finish.LastTransitionTime
	}
	return true
}

// tell records how the Job ended.
func (c *Controller) tell(ctx context.Context, v *view) {
	result := "failed"
	if v.finish.Type == batchv1.JobComplete {
		result = "succeeded"
	}
	meter.From(ctx).JobFinished(modeOf(v.job), result, v.finish.Reason)
	if v.finish.Type != batchv1.JobComplete {
		c.events.Record(ctx, v.job, kind, corev1.EventTypeWarning, v.finish.Reason, "%s", v.finish.Message)
		return
	}
	if v.job.Spec.Completions != nil && v.job.Status.Succeeded > *v.job.Spec.Completions {
		c.events.Record(ctx, v.job, kind, corev1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached")
	}
	c.events.Record(ctx, v.job, kind, corev1.EventTypeNormal, "Completed", "Job completed")
}
