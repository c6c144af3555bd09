// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/badvalue"
)

// validateJobStatusUpdate judges a status written by a job controller. Most
// rules bind only a write that touches what they speak of, so that a status
// from before the rule can still be brought forward.
func validateJobStatusUpdate(j, old *batchv1.Job) field.ErrorList {
	path := field.NewPath("status")
	errs := validateJobCounters(j, path)
	errs = append(errs, validateJobConditions(j, old, path)...)
	errs = append(errs, validateJobTimes(j, old, path)...)
	errs = append(errs, validateFinishedJob(j, old, path)...)
	errs = append(errs, validateJobIndexes(j, old, path)...)
	if j.Status.Failed < old.Status.Failed {
		errs = append(errs, field.Invalid(path.Child("failed"), j.Status.Failed, "cannot decrease the failed counter"))
	}
	scales := indexed(&j.Spec) && apiequality.Semantic.DeepEqual(j.Spec.Completions, j.Spec.Parallelism)
	if !scales && j.Status.Succeeded < old.Status.Succeeded {
		errs = append(errs, field.Invalid(path.Child("succeeded"), j.Status.Succeeded, "cannot decrease the succeeded counter"))
	}
	return errs
}

func validateJobCounters(j *batchv1.Job, path *field.Path) field.ErrorList {
	s := &j.Status
	errs := nonNegative(&s.Active, path.Child("active"))
	errs = append(errs, nonNegative(&s.Succeeded, path.Child("succeeded"))...)
	errs = append(errs, nonNegative(&s.Failed, path.Child("failed"))...)
	errs = append(errs, nonNegative(s.Ready, path.Child("ready"))...)
	errs = append(errs, nonNegative(s.Terminating, path.Child("terminating"))...)
	if pods := s.UncountedTerminatedPods; pods != nil {
		seen := sets.New[types.UID]()
		where := path.Child("uncountedTerminatedPods")
		errs = append(errs, validateUIDs(pods.Succeeded, seen, where.Child("succeeded"))...)
		errs = append(errs, validateUIDs(pods.Failed, seen, where.Child("failed"))...)
	}
	return errs
}

func validateUIDs(uids []types.UID, seen sets.Set[types.UID], path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, uid := range uids {
		switch {
		case uid == "":
			errs = append(errs, field.Invalid(path.Index(i), uid, "must not be empty"))
		case seen.Has(uid):
			errs = append(errs, field.Duplicate(path.Index(i), uid))
		}
		seen.Insert(uid)
	}
	return errs
}

// changed says whether one of the conditions came or went.
func changed(j, old *batchv1.Job, conditions ...batchv1.JobConditionType) bool {
	for _, t := range conditions {
		if holds(j, t) != holds(old, t) {
			return true
		}
	}
	return false
}

func validateJobConditions(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	const complete, failed = batchv1.JobComplete, batchv1.JobFailed
	const target, success = batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet
	var errs field.ErrorList
	check := func(bad bool, detail string) {
		if bad {
			errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, detail))
		}
	}
	isComplete, isFailed, isTarget, isSuccess := holds(j, complete), holds(j, failed), holds(j, target), holds(j, success)
	failedIndexesChanged := !apiequality.Semantic.DeepEqual(j.Status.FailedIndexes, old.Status.FailedIndexes)

	check(changed(j, old, complete, failed) && isComplete && isFailed, "cannot set Complete=True and Failed=true conditions")
	check(changed(j, old, complete, target) && isComplete && isTarget, "cannot set Complete=True and FailureTarget=true conditions")
	check((changed(j, old, failed) || failedIndexesChanged) && isFailed && !isTarget, "cannot set Failed=True condition without the FailureTarget=true condition")
	check(changed(j, old, complete, success) && isComplete && !isSuccess, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	check(isSuccess && isFailed, "cannot set SuccessCriteriaMet=True and Failed=true conditions")
	check(isSuccess && isTarget, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	check(j.Spec.SuccessPolicy != nil && !isSuccess && isComplete, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
	for _, t := range []batchv1.JobConditionType{failed, complete, target} {
		check(holds(old, t) && !holds(j, t), fmt.Sprintf("cannot disable the terminal %s=True condition", t))
	}
	check(holds(old, success) && !isSuccess, "cannot disable the SuccessCriteriaMet=True condition")
	check(holds(old, complete) && !holds(old, success) && isSuccess, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
	return errs
}

func validateJobTimes(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	start, end := j.Status.StartTime, j.Status.CompletionTime
	isComplete := holds(j, batchv1.JobComplete)
	startChanged := !start.Equal(old.Status.StartTime)
	endChanged := !end.Equal(old.Status.CompletionTime)
	if endChanged || changed(j, old, batchv1.JobComplete) {
		if end != nil && !isComplete {
			errs = append(errs, field.Invalid(path.Child("completionTime"), end, "cannot set completionTime when there is no Complete=True condition"))
		}
		if end == nil && isComplete {
			errs = append(errs, field.Required(path.Child("completionTime"), "completionTime is required for Complete jobs"))
		}
	}
	if (startChanged || endChanged) && start != nil && end != nil && end.Before(start) {
		errs = append(errs, field.Invalid(path.Child("completionTime"), end, "must be equal to or after `startTime`"))
	}
	if end != nil && old.Status.CompletionTime != nil && endChanged {
		errs = append(errs, field.Invalid(path.Child("completionTime"), end, "field is immutable"))
	}
	resuming := holds(old, batchv1.JobSuspended) && hasCondition(j, batchv1.JobSuspended, corev1.ConditionFalse)
	if startChanged && !resuming && old.Status.StartTime != nil && !deref(j.Spec.Suspend) {
		errs = append(errs, field.Invalid(path.Child("startTime"), start, "field is immutable for unsuspended job once set"))
	}
	return errs
}

func validateFinishedJob(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	s, was := &j.Status, &old.Status
	done := finished(j)
	doneChanged := done != finished(old)
	if (doneChanged || s.Active != was.Active) && s.Active > 0 && done {
		errs = append(errs, field.Invalid(path.Child("active"), s.Active, "active>0 is invalid for finished job"))
	}
	emptyAndSuspended := deref(j.Spec.Suspend) && j.Spec.Completions != nil && *j.Spec.Completions == 0
	if (doneChanged || !s.StartTime.Equal(was.StartTime)) && !emptyAndSuspended && s.StartTime == nil && done {
		errs = append(errs, field.Required(path.Child("startTime"), "startTime is required for finished job"))
	}
	pods := s.UncountedTerminatedPods
	if (doneChanged || !apiequality.Semantic.DeepEqual(pods, was.UncountedTerminatedPods)) && done && pods != nil && len(pods.Failed)+len(pods.Succeeded) > 0 {
		errs = append(errs, field.Invalid(path.Child("uncountedTerminatedPods"), badvalue.Of(pods), "must be empty for finished job"))
	}
	if (doneChanged || !apiequality.Semantic.DeepEqual(s.Terminating, was.Terminating)) && deref(s.Terminating) > 0 && done {
		errs = append(errs, field.Invalid(path.Child("terminating"), *s.Terminating, "terminating>0 is invalid for finished job"))
	}
	if (!apiequality.Semantic.DeepEqual(s.Ready, was.Ready) || s.Active != was.Active) && s.Ready != nil && *s.Ready > s.Active {
		errs = append(errs, field.Invalid(path.Child("ready"), *s.Ready, "cannot set more ready pods than active"))
	}
	return errs
}

func validateJobIndexes(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	s := &j.Status
	completedChanged := s.CompletedIndexes != old.Status.CompletedIndexes
	failedChanged := !apiequality.Semantic.DeepEqual(s.FailedIndexes, old.Status.FailedIndexes)
	completedPath, failedPath := path.Child("completedIndexes"), path.Child("failedIndexes")
	bounded := j.Spec.Completions != nil
	if completedChanged && bounded {
		if _, err := countIndexes(s.CompletedIndexes, *j.Spec.Completions); err != nil {
			errs = append(errs, field.Invalid(completedPath, s.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %v", err)))
		}
	}
	if failedChanged && bounded && j.Spec.BackoffLimitPerIndex != nil && s.FailedIndexes != nil {
		if _, err := countIndexes(*s.FailedIndexes, *j.Spec.Completions); err != nil {
			errs = append(errs, field.Invalid(failedPath, *s.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %v", err)))
		}
	}
	if completedChanged && s.CompletedIndexes != "" && !indexed(&j.Spec) {
		errs = append(errs, field.Invalid(completedPath, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
	}
	if failedChanged && j.Spec.BackoffLimitPerIndex == nil && s.FailedIndexes != nil {
		errs = append(errs, field.Invalid(failedPath, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
	}
	if (completedChanged || failedChanged) && bounded && s.FailedIndexes != nil {
		if err := checkDisjoint(s.CompletedIndexes, *s.FailedIndexes, *j.Spec.Completions); err != nil {
			errs = append(errs, field.Invalid(failedPath, *s.FailedIndexes, err.Error()))
		}
	}
	return errs
}
