// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/podspec"
	"kaji/internal/api/table"
)

// Labels that tie pods to their job; the short ones are from before labels had
// prefixes.
const (
	legacyUIDLabel  = "controller-uid"
	legacyNameLabel = "job-name"
)

func job() *api.Kind {
	return &api.Kind{
		Group: batchv1.GroupName, Name: "Job", Resource: "jobs", Singular: "job",
		Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: batchv1.SchemeGroupVersion,
			New:          api.New[batchv1.Job], NewList: api.NewList[batchv1.JobList],
			Default: api.Default(defaultJob),
		}},
		Storage: batchv1.SchemeGroupVersion,
		Prefix:  "/registry/jobs",
		New:     api.New[batchv1.Job], NewList: api.NewList[batchv1.JobList],
		Rules: api.For[*batchv1.Job]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, j *batchv1.Job) {
				if j.Spec.ManualSelector == nil || !*j.Spec.ManualSelector {
					generateSelector(j)
				}
				j.Status = batchv1.JobStatus{}
				j.Generation = 1
				dropDisabled(&j.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, j, old *batchv1.Job) {
				j.Status = old.Status
				dropDisabled(&j.Spec, &old.Spec)
				if !apiequality.Semantic.DeepEqual(j.Spec, old.Spec) {
					j.Generation = old.Generation + 1
				}
			},
			Validate:       func(j *batchv1.Job) field.ErrorList { return validateJob(j, nil) },
			ValidateUpdate: validateJobUpdate,
			Warnings: func(j, old *batchv1.Job) []string {
				path := field.NewPath("spec")
				if old == nil {
					return append(podNameWarnings(j.Name), jobSpecWarnings(&j.Spec, path)...)
				}
				if j.Generation == old.Generation {
					return nil
				}
				return jobSpecWarnings(&j.Spec, path)
			},
			Fields: func(j *batchv1.Job) fields.Set {
				return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
			},
			Columns: append([]metav1.TableColumnDefinition{
				table.Name(),
				table.String("Status", "Status of the job."),
				table.String("Completions", batchv1.JobStatus{}.SwaggerDoc()["succeeded"]),
				table.String("Duration", "Time required to complete the job."),
				table.Age(),
			}, append(table.ContainerColumns(), table.Wide(table.String("Selector", batchv1.JobSpec{}.SwaggerDoc()["selector"])))...),
			Cells: func(j *batchv1.Job) []any {
				names, images := table.Containers(j.Spec.Template.Spec.Containers)
				return []any{j.Name, jobState(j), completions(j), jobDuration(j), table.Since(j.CreationTimestamp),
					names, images, metav1.FormatLabelSelector(j.Spec.Selector)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, j, old *batchv1.Job) {
				j.Spec = old.Spec
			}),
			ValidateUpdate: api.Update(validateJobStatusUpdate),
			ResetFields:    []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
		GarbageCollection:        api.GCOrphan,
		OrphanWarning:            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
	}
}

// setDefault gives a field that is absent its default.
func setDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

// deref is the value of a field, or its zero value when it is absent.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func defaultJob(j *batchv1.Job) {
	spec := &j.Spec
	defaultJobSpec(spec)
	if spec.Completions == nil && spec.Parallelism == nil {
		setDefault(&spec.Completions, 1)
	}
	setDefault(&spec.Parallelism, 1)
	if spec.BackoffLimitPerIndex != nil {
		setDefault(&spec.BackoffLimit, math.MaxInt32)
	}
	setDefault(&spec.BackoffLimit, 6)
	if spec.Template.Labels != nil && len(j.Labels) == 0 {
		j.Labels = maps.Clone(spec.Template.Labels)
	}
	setDefault(&spec.CompletionMode, batchv1.NonIndexedCompletion)
	setDefault(&spec.Suspend, false)
	if spec.PodFailurePolicy != nil {
		setDefault(&spec.PodReplacementPolicy, batchv1.Failed)
	}
	setDefault(&spec.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	setDefault(&spec.ManualSelector, false)
}

// defaultJobSpec fills what a job and the job template of a CronJob share.
func defaultJobSpec(spec *batchv1.JobSpec) {
	podspec.DefaultTemplate(&spec.Template)
	if spec.PodFailurePolicy == nil {
		return
	}
	for i := range spec.PodFailurePolicy.Rules {
		patterns := spec.PodFailurePolicy.Rules[i].OnPodConditions
		for n := range patterns {
			if patterns[n].Status == "" {
				patterns[n].Status = corev1.ConditionTrue
			}
		}
	}
}

// generateSelector makes a job select the pods it makes and no others. Labels
// that the user gave stay, and validation reports those that do not fit.
func generateSelector(j *batchv1.Job) {
	labels := map[string]string{
		legacyNameLabel: j.Name, batchv1.JobNameLabel: j.Name,
		legacyUIDLabel: string(j.UID), batchv1.ControllerUidLabel: string(j.UID),
	}
	// A job without labels of its own has those of its template, also the
	// generated ones.
	inherits := len(j.Labels) == 0 || maps.Equal(j.Labels, j.Spec.Template.Labels)
	maps.Copy(labels, j.Spec.Template.Labels)
	j.Spec.Template.Labels = labels
	if inherits {
		j.Labels = maps.Clone(labels)
	}
	selector := &metav1.LabelSelector{}
	if j.Spec.Selector != nil {
		selector = j.Spec.Selector.DeepCopy()
	}
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	if _, found := selector.MatchLabels[batchv1.ControllerUidLabel]; !found {
		selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
	j.Spec.Selector = selector
}

func jobState(j *batchv1.Job) string {
	switch {
	case holds(j, batchv1.JobComplete):
		return "Complete"
	case holds(j, batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case holds(j, batchv1.JobSuspended):
		return "Suspended"
	case holds(j, batchv1.JobFailureTarget):
		return "FailureTarget"
	case holds(j, batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func completions(j *batchv1.Job) string {
	switch parallelism := deref(j.Spec.Parallelism); {
	case j.Spec.Completions != nil:
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	case parallelism > 1:
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, parallelism)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func jobDuration(j *batchv1.Job) string {
	switch start, end := j.Status.StartTime, j.Status.CompletionTime; {
	case start == nil:
		return ""
	case end == nil:
		return duration.HumanDuration(time.Since(start.Time))
	default:
		return duration.HumanDuration(end.Sub(start.Time))
	}
}

// hasCondition says whether the condition t stands at status.
func hasCondition(j *batchv1.Job, t batchv1.JobConditionType, status corev1.ConditionStatus) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == t && c.Status == status {
			return true
		}
	}
	return false
}

func holds(j *batchv1.Job, t batchv1.JobConditionType) bool {
	return hasCondition(j, t, corev1.ConditionTrue)
}

func finished(j *batchv1.Job) bool {
	return holds(j, batchv1.JobComplete) || holds(j, batchv1.JobFailed)
}

func indexed(spec *batchv1.JobSpec) bool {
	return deref(spec.CompletionMode) == batchv1.IndexedCompletion
}

// podNameWarnings warns of names that do not suit the pods.
func podNameWarnings(name string) []string {
	if msgs := validation.IsDNS1123Label(name); len(msgs) != 0 {
		return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs)}
	}
	return nil
}

func jobSpecWarnings(spec *batchv1.JobSpec, path *field.Path) []string {
	var warnings []string
	if indexed(spec) && deref(spec.Completions) > highCompletions && deref(spec.Parallelism) > 10_000 {
		warnings = append(warnings, fmt.Sprintf("%s: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail", path))
	}
	return append(warnings, podspec.TemplateWarnings(&spec.Template, path.Child("template"))...)
}
