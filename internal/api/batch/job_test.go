// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api/kindtest"
)

const template = `
  template:
    metadata: {labels: {app: a}}
    spec: {restartPolicy: Never, containers: [{name: c, image: i}]}
`

func TestJobDefaults(t *testing.T) {
	obj, errs := kindtest.Create(t, job(), "metadata: {name: j, uid: u}\nspec:"+template)
	kindtest.Expect(t, errs)
	j := obj.(*batchv1.Job)
	if *j.Spec.Completions != 1 || *j.Spec.Parallelism != 1 || *j.Spec.BackoffLimit != 6 || *j.Spec.PodReplacementPolicy != batchv1.TerminatingOrFailed {
		t.Errorf("defaults: %+v", j.Spec)
	}
	if j.Labels["app"] != "a" || j.Labels[batchv1.ControllerUidLabel] != "u" || j.Spec.Template.Labels["job-name"] != "j" {
		t.Errorf("labels %v, template labels %v", j.Labels, j.Spec.Template.Labels)
	}
	if got := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; got != "u" {
		t.Errorf("selector for %q", got)
	}
	kindtest.Cells(t, job(), j)
}

func TestJobValidation(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		want       []string
	}{
		{"index needs completions", "completionMode: Indexed\n  parallelism: 2", []string{
			"spec.completions: Required value: when completion mode is Indexed"}},
		{"too parallel", "completionMode: Indexed\n  completions: 5\n  parallelism: 100001", []string{
			"spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"}},
		{"high completions", "completionMode: Indexed\n  completions: 100001\n  parallelism: 10001\n  backoffLimitPerIndex: 1", []string{
			"spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
			"spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index"}},
		{"unknown mode", "completionMode: X", []string{
			`spec.completionMode: Unsupported value: "X": supported values: "NonIndexed", "Indexed"`}},
		{"exit codes", "podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, containerName: x, values: [2, 0, 2]}}]}", []string{
			`spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template`,
			"spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
			"spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
			"spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0,2]: must be ordered"}},
		{"success policy", "completionMode: Indexed\n  completions: 3\n  successPolicy: {rules: [{succeededIndexes: '0-1', succeededCount: 4}]}", []string{
			"spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of specified completions)",
			"spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)"}},
		{"manager", "managedBy: " + strings.Repeat("a", 60) + ".com/x", []string{
			"spec.managedBy: Too long: may not be more than 63 bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, errs := kindtest.Create(t, job(), "metadata: {name: j, uid: u}\nspec:\n  "+c.spec+template)
			kindtest.Expect(t, errs, c.want...)
		})
	}
}

func TestJobUpdate(t *testing.T) {
	old, _ := kindtest.Create(t, job(), "metadata: {name: j, uid: u}\nspec:\n  completions: 3"+template)
	obj := old.DeepCopyObject().(*batchv1.Job)
	n := int32(4)
	obj.Spec.Completions = &n
	kindtest.Expect(t, kindtest.Messages(validateJobUpdate(obj, old.(*batchv1.Job))), "spec.completions: Invalid value: 4: field is immutable")

	obj = old.DeepCopyObject().(*batchv1.Job)
	obj.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"}
	if errs := validateJobUpdate(obj, old.(*batchv1.Job)); len(errs) != 1 || errs[0].Field != "spec.template" {
		t.Errorf("changed template: %v", errs)
	}
	yes := true
	old.(*batchv1.Job).Spec.Suspend = &yes
	obj.Spec.Suspend = &yes
	kindtest.Expect(t, kindtest.Messages(validateJobUpdate(obj, old.(*batchv1.Job))))
}

func TestJobStatus(t *testing.T) {
	old, _ := kindtest.Create(t, job(), "metadata: {name: j, uid: u}\nspec:\n  completions: 3"+template)
	j := old.DeepCopyObject().(*batchv1.Job)
	j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
	j.Status.Active = 1
	kindtest.Expect(t, kindtest.Messages(validateJobStatusUpdate(j, old.(*batchv1.Job))),
		"status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
		"status.completionTime: Required value: completionTime is required for Complete jobs",
		"status.active: Invalid value: 1: active>0 is invalid for finished job",
		"status.startTime: Required value: startTime is required for finished job")
}

func TestCheckDisjoint(t *testing.T) {
	for _, c := range []struct {
		completed, failed, want string
	}{
		{"0-2,5", "3,4", ""},
		{"0-2,5", "1", "failedIndexes and completedIndexes overlap at index: 1"},
		{"1,x,5", "2-6", "failedIndexes and completedIndexes overlap at index: 5"},
		{"", "1", ""},
	} {
		got := ""
		if err := checkDisjoint(c.completed, c.failed, 10); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s and %s: %q", c.completed, c.failed, got)
		}
	}
}

func FuzzCountIndexes(f *testing.F) {
	f.Add("1,3-5,7", int32(10))
	f.Add("5-2", int32(3))
	f.Fuzz(func(t *testing.T, text string, completions int32) {
		if n, err := countIndexes(text, completions); err == nil && n > max(completions, 0) {
			t.Errorf("%q has %d of %d indexes", text, n, completions)
		}
	})
}

func TestCronJobValidation(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		want       []string
	}{
		{"good", "schedule: '*/5 * * * *'", nil},
		{"empty", "schedule: ''", []string{"spec.schedule: Required value"}},
		{"zone in schedule", "schedule: 'TZ=UTC * * * * *'", []string{
			`spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`}},
		{"malformed", "schedule: '* * *'", []string{
			`spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]`}},
		{"panics", "schedule: 'TZ='", []string{
			`spec.schedule: Invalid value: "TZ=": invalid schedule format: runtime error: slice bounds out of range [:-1]`,
			`spec.schedule: Invalid value: "TZ=": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`}},
		{"zone", "schedule: '* * * * *'\n  timeZone: Local", []string{
			`spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones`}},
		{"policy", "schedule: '* * * * *'\n  concurrencyPolicy: X", []string{
			`spec.concurrencyPolicy: Unsupported value: "X": supported values: "Allow", "Forbid", "Replace"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "metadata: {name: j}\nspec:\n  " + c.spec + "\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}"
			obj, errs := kindtest.Create(t, cronJob(), text)
			kindtest.Expect(t, errs, c.want...)
			kindtest.Cells(t, cronJob(), obj)
		})
	}
}
