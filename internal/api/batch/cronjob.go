// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

func cronJob() *api.Kind {
	spec := batchv1.CronJobSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: batchv1.GroupName, Name: "CronJob", Resource: "cronjobs", Singular: "cronjob",
		ShortNames: []string{"cj"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: batchv1.SchemeGroupVersion,
			New:          api.New[batchv1.CronJob], NewList: api.NewList[batchv1.CronJobList],
			Default: api.Default(defaultCronJob),
		}},
		Storage: batchv1.SchemeGroupVersion,
		Prefix:  "/registry/cronjobs",
		New:     api.New[batchv1.CronJob], NewList: api.NewList[batchv1.CronJobList],
		Rules: api.For[*batchv1.CronJob]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, c *batchv1.CronJob) {
				c.Status = batchv1.CronJobStatus{}
				c.Generation = 1
				dropDisabled(&c.Spec.JobTemplate.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, c, old *batchv1.CronJob) {
				c.Status = old.Status
				dropDisabled(&c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec)
				if !apiequality.Semantic.DeepEqual(c.Spec, old.Spec) {
					c.Generation = old.Generation + 1
				}
			},
			Validate: func(c *batchv1.CronJob) field.ErrorList {
				errs := validateCronJobSpec(&c.Spec, nil, field.NewPath("spec"))
				// The jobs are named after the CronJob and a time of 11 characters.
				if len(c.Name) > 52 {
					errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters"))
				}
				return errs
			},
			ValidateUpdate: func(c, old *batchv1.CronJob) field.ErrorList {
				return validateCronJobSpec(&c.Spec, &old.Spec, field.NewPath("spec"))
			},
			Warnings: cronJobWarnings,
			Columns: append([]metav1.TableColumnDefinition{
				table.Name(),
				table.String("Schedule", spec["schedule"]),
				table.String("Timezone", spec["timeZone"]),
				table.Boolean("Suspend", spec["suspend"]),
				table.Integer("Active", "A list of pointers to currently running jobs."),
				table.String("Last Schedule", batchv1.CronJobStatus{}.SwaggerDoc()["lastScheduleTime"]),
				table.Age(),
			}, append(table.ContainerColumns(), table.Wide(table.String("Selector", batchv1.JobSpec{}.SwaggerDoc()["selector"])))...),
			Cells: func(c *batchv1.CronJob) []any {
				names, images := table.Containers(c.Spec.JobTemplate.Spec.Template.Spec.Containers)
				zone, suspend, last := "<none>", "<unset>", "<none>"
				if c.Spec.TimeZone != nil {
					zone = *c.Spec.TimeZone
				}
				if c.Spec.Suspend != nil {
					suspend = cellBool(*c.Spec.Suspend)
				}
				if c.Status.LastScheduleTime != nil {
					last = table.Since(*c.Status.LastScheduleTime)
				}
				return []any{c.Name, c.Spec.Schedule, zone, suspend, int64(len(c.Status.Active)), last,
					table.Since(c.CreationTimestamp), names, images, metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, c, old *batchv1.CronJob) {
				c.Spec = old.Spec
			}),
			ResetFields: []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
	}
}

func cellBool(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

func defaultCronJob(c *batchv1.CronJob) {
	defaultJobSpec(&c.Spec.JobTemplate.Spec)
	if c.Spec.ConcurrencyPolicy == "" {
		c.Spec.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	setDefault(&c.Spec.Suspend, false)
	setDefault(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	setDefault(&c.Spec.FailedJobsHistoryLimit, 1)
}

func validateCronJobSpec(spec, old *batchv1.CronJobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.Schedule == "" {
		errs = append(errs, field.Required(path.Child("schedule"), ""))
	} else {
		errs = append(errs, validateSchedule(spec, old, path.Child("schedule"))...)
	}
	errs = append(errs, nonNegative(spec.StartingDeadlineSeconds, path.Child("startingDeadlineSeconds"))...)
	if old == nil || !apiequality.Semantic.DeepEqual(old.TimeZone, spec.TimeZone) {
		errs = append(errs, validateTimeZone(spec.TimeZone, path.Child("timeZone"))...)
	}
	errs = append(errs, validateConcurrency(spec.ConcurrencyPolicy, path.Child("concurrencyPolicy"))...)
	var oldTemplate *batchv1.JobSpec
	if old != nil {
		oldTemplate = &old.JobTemplate.Spec
	}
	errs = append(errs, validateJobTemplate(&spec.JobTemplate.Spec, oldTemplate, path.Child("jobTemplate", "spec"))...)
	errs = append(errs, nonNegative(spec.SuccessfulJobsHistoryLimit, path.Child("successfulJobsHistoryLimit"))...)
	return append(errs, nonNegative(spec.FailedJobsHistoryLimit, path.Child("failedJobsHistoryLimit"))...)
}

func validateConcurrency(policy batchv1.ConcurrencyPolicy, path *field.Path) field.ErrorList {
	switch policy {
	case batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent:
		return nil
	case "":
		return field.ErrorList{field.Required(path, "")}
	}
	return field.ErrorList{field.NotSupported(path, policy, []batchv1.ConcurrencyPolicy{
		batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent})}
}

func validateSchedule(spec, old *batchv1.CronJobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if err := parseSchedule(spec.Schedule); err != nil {
		errs = append(errs, field.Invalid(path, spec.Schedule, err.Error()))
	}
	zoned := strings.Contains(spec.Schedule, "TZ")
	switch wasZoned := old != nil && strings.Contains(old.Schedule, "TZ"); {
	case wasZoned && zoned && spec.TimeZone != nil:
		errs = append(errs, field.Invalid(path, spec.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	case !wasZoned && zoned:
		errs = append(errs, field.Invalid(path, spec.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	}
	return errs
}

// parseSchedule checks a schedule; the parser panics on some input, such as a
// time zone with nothing after it.
func parseSchedule(schedule string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("invalid schedule format: %v", r)
		}
	}()
	_, err = cron.ParseStandard(schedule)
	return err
}

func validateTimeZone(zone *string, path *field.Path) field.ErrorList {
	if zone == nil {
		return nil
	}
	if *zone == "" {
		return field.ErrorList{field.Invalid(path, *zone, "timeZone must be nil or non-empty string")}
	}
	valid := regexp.MustCompile(`^[A-Za-z\.\-_0-9+]{1,14}$`)
	var errs field.ErrorList
	for part := range strings.SplitSeq(*zone, "/") {
		if part == "." || part == ".." || strings.HasPrefix(part, "-") || !valid.MatchString(part) {
			return field.ErrorList{field.Invalid(path, *zone, "unknown time zone "+*zone)}
		}
	}
	if strings.EqualFold(*zone, "Local") {
		errs = append(errs, field.Invalid(path, *zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
	}
	if _, err := time.LoadLocation(*zone); err != nil {
		errs = append(errs, field.Invalid(path, *zone, err.Error()))
	}
	return errs
}

func cronJobWarnings(c, old *batchv1.CronJob) []string {
	path := field.NewPath("spec", "jobTemplate", "spec")
	if old == nil {
		return append(podNameWarnings(c.Name), jobSpecWarnings(&c.Spec.JobTemplate.Spec, path)...)
	}
	var warnings []string
	if c.Generation != old.Generation {
		warnings = jobSpecWarnings(&c.Spec.JobTemplate.Spec, path)
	}
	if strings.Contains(c.Spec.Schedule, "TZ") {
		warnings = append(warnings, "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return warnings
}
