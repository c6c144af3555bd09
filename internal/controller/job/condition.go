// SPDX-License-Identifier: Apache-2.0

package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func newCondition(t batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) *batchv1.JobCondition {
	now := metav1.Now()
	return &batchv1.JobCondition{Type: t, Status: status, Reason: reason, Message: message, LastProbeTime: now, LastTransitionTime: now}
}

func failureTarget(reason, message string) *batchv1.JobCondition {
	return newCondition(batchv1.JobFailureTarget, corev1.ConditionTrue, reason, message)
}

func successCriteriaMet(reason, message string) *batchv1.JobCondition {
	return newCondition(batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue, reason, message)
}

// holds returns the condition of a type if it is true.
func holds(job *batchv1.Job, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; c.Type == t && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// finished returns the condition that says so, of a Job that has ended.
func finished(job *batchv1.Job) *batchv1.JobCondition {
	if c := holds(job, batchv1.JobComplete); c != nil {
		return c
	}
	return holds(job, batchv1.JobFailed)
}

// setCondition changes a condition and says whether it did; one that is absent
// is false already.
func setCondition(status *batchv1.JobStatus, c *batchv1.JobCondition) bool {
	for i := range status.Conditions {
		if old := &status.Conditions[i]; old.Type == c.Type {
			if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
				return false
			}
			*old = *c
			return true
		}
	}
	if c.Status == corev1.ConditionFalse {
		return false
	}
	status.Conditions = append(status.Conditions, *c)
	return true
}

func suspended(job *batchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }

func indexed(job *batchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion
}

// perIndex says whether failures are counted for each index.
func perIndex(job *batchv1.Job) bool { return job.Spec.BackoffLimitPerIndex != nil }

// replacesFailedOnly says whether a pod that ends has a successor only when it
// has ended.
func replacesFailedOnly(job *batchv1.Job) bool {
	return job.Spec.PodFailurePolicy != nil || job.Spec.PodReplacementPolicy != nil && *job.Spec.PodReplacementPolicy == batchv1.Failed
}

// podFailed says whether a pod counts as failed. One that is being deleted does,
// since its node may never tell how it ended, unless only ended ones count.
func podFailed(job *batchv1.Job, pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodFailed {
		return true
	}
	return !replacesFailedOnly(job) && pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded
}

// restartedTooOften counts the restarts within pods against the limit.
func restartedTooOften(job *batchv1.Job, pods []*corev1.Pod) bool {
	if job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	var restarts int32
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodRunning && pod.Status.Phase != corev1.PodPending {
			continue
		}
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for i := range list {
				restarts += list[i].RestartCount
			}
		}
	}
	return restarts > 0 && restarts >= *job.Spec.BackoffLimit
}

// untilDeadline is the time a Job may still be active; false says that it has no
// deadline now.
func untilDeadline(job *batchv1.Job) (time.Duration, bool) {
	if job.Spec.ActiveDeadlineSeconds == nil || job.Status.StartTime == nil || suspended(job) {
		return 0, false
	}
	return time.Until(job.Status.StartTime.Add(time.Duration(*job.Spec.ActiveDeadlineSeconds) * time.Second)), true
}
