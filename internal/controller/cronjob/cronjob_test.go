// SPDX-License-Identifier: Apache-2.0

package cronjob_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/cronjob"
)

// world is a bubble with a CronJob "c"; the bubble's clock begins at midnight.
type world struct {
	*bubble.Bubble
	crons client.Typed[*batchv1.CronJob]
	jobs  client.Typed[*batchv1.Job]
}

func run(t *testing.T, change func(*batchv1.CronJobSpec), f func(w world)) {
	t.Helper()
	start := func(api client.Interface) []bubble.Controller { return []bubble.Controller{cronjob.New(api, nil)} }
	bubble.RunAs(t, "cronjob-controller", start, func(b *bubble.Bubble) {
		w := world{b, client.For[*batchv1.CronJob](b.API), client.For[*batchv1.Job](b.API)}
		c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Spec: batchv1.CronJobSpec{Schedule: "*/5 * * * *",
			JobTemplate: batchv1.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "v"}, Annotations: map[string]string{"a": "b"}},
				Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever,
					Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}}}
		change(&c.Spec)
		bubble.Must(w.crons.Create(b.Context(), c))(b)
		f(w)
	})
}

// made are the CronJob's Jobs, oldest first.
func (w world) made() []*batchv1.Job {
	w.Helper()
	jobs := bubble.Must(w.jobs.List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble)
	slices.SortFunc(jobs, func(a, b *batchv1.Job) int { return cmp.Compare(a.Name, b.Name) })
	return jobs
}

func (w world) cron() *batchv1.CronJob {
	w.Helper()
	return bubble.Must(w.crons.Get(w.Context(), "default", "c"))(w.Bubble)
}

// end plays the Job controller.
func (w world) end(job *batchv1.Job, how batchv1.JobConditionType) {
	w.Helper()
	job, now := job.DeepCopy(), metav1.Now()
	job.Status.StartTime = &now
	first := batchv1.JobSuccessCriteriaMet
	if how == batchv1.JobFailed {
		first = batchv1.JobFailureTarget
	} else {
		job.Status.CompletionTime = &now
	}
	for _, c := range []batchv1.JobConditionType{first, how} {
		job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	bubble.Must(w.jobs.UpdateStatus(w.Context(), job))(w.Bubble)
	w.Settle()
}

// reasons are the events about the CronJob, in order.
func (w world) reasons() string {
	w.Helper()
	events := bubble.Must(client.For[*corev1.Event](w.API).List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble)
	slices.SortStableFunc(events, func(a, b *corev1.Event) int { return a.FirstTimestamp.Compare(b.FirstTimestamp.Time) })
	var out []string
	for _, e := range events {
		out = append(out, e.Reason)
	}
	return strings.Join(out, " ")
}

func TestAJobATime(t *testing.T) {
	run(t, func(s *batchv1.CronJobSpec) { s.TimeZone = ptr.To("Asia/Tokyo") }, func(w world) {
		w.Wait(4 * time.Minute)
		if n := len(w.made()); n != 0 {
			w.Fatalf("%d jobs before the time", n)
		}
		w.Wait(7 * time.Minute)
		jobs := w.made()
		if len(jobs) != 2 {
			w.Fatalf("%d jobs, want 2", len(jobs))
		}
		first := jobs[0]
		at, err := time.Parse(time.RFC3339, first.Annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"])
		if _, zone := at.Zone(); err != nil || zone != 9*60*60 || at.Minute()%5 != 0 || first.Annotations["a"] != "b" || first.Labels["l"] != "v" ||
			!metav1.IsControlledBy(first, w.cron()) {
			w.Errorf("%+v (%v)", first.ObjectMeta, err)
		}
		s := w.cron().Status
		if len(s.Active) != 2 || s.Active[0].Name != first.Name || s.Active[0].APIVersion != "batch/v1" || s.LastScheduleTime == nil || !s.LastScheduleTime.Equal(ptr.To(metav1.NewTime(at.Add(5*time.Minute)))) {
			w.Errorf("status %+v", s)
		}
	})
}

func TestConcurrency(t *testing.T) {
	run(t, func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = batchv1.ForbidConcurrent }, func(w world) {
		w.Wait(14 * time.Minute)
		jobs := w.made()
		if len(jobs) != 1 || !strings.Contains(w.reasons(), "JobAlreadyActive") {
			w.Fatalf("%d jobs, events %s", len(jobs), w.reasons())
		}
		w.end(jobs[0], batchv1.JobComplete)
		w.Wait(5 * time.Minute)
		if jobs = w.made(); len(jobs) != 2 {
			w.Errorf("%d jobs after the first has ended, want 2", len(jobs))
		}
		if s := w.cron().Status; s.LastSuccessfulTime == nil || len(s.Active) != 1 {
			w.Errorf("status %+v", s)
		}
	})
	run(t, func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = batchv1.ReplaceConcurrent }, func(w world) {
		w.Wait(14 * time.Minute)
		jobs := w.made()
		if s := w.cron().Status; len(jobs) != 1 || len(s.Active) != 1 || s.Active[0].UID != jobs[0].UID {
			w.Errorf("%d jobs, status %+v", len(jobs), s)
		}
	})
}

func TestHistory(t *testing.T) {
	run(t, func(s *batchv1.CronJobSpec) {
		s.SuccessfulJobsHistoryLimit, s.FailedJobsHistoryLimit = ptr.To[int32](1), ptr.To[int32](2)
	}, func(w world) {
		ends := map[string]batchv1.JobConditionType{}
		for i := range 7 {
			w.Wait(5 * time.Minute)
			for _, job := range w.made() {
				if ends[job.Name] == "" {
					ends[job.Name] = []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed}[i%2]
					w.end(job, ends[job.Name])
				}
			}
		}
		var good, bad int
		for _, job := range w.made() {
			if ends[job.Name] == batchv1.JobComplete {
				good++
			} else {
				bad++
			}
		}
		if good != 1 || bad != 2 || len(w.cron().Status.Active) != 0 {
			w.Errorf("%d succeeded and %d failed are kept, active %v", good, bad, w.cron().Status.Active)
		}
	})
}

// A suspended CronJob makes none; one that missed too much says so and makes one.
func TestMissed(t *testing.T) {
	run(t, func(s *batchv1.CronJobSpec) { s.Schedule, s.Suspend = "* * * * *", ptr.To(true) }, func(w world) {
		w.Wait(3 * time.Hour)
		if n := len(w.made()); n != 0 {
			w.Fatalf("%d jobs while suspended", n)
		}
		bubble.Must(w.crons.MergePatch(w.Context(), "default", "c", map[string]any{"spec": map[string]any{"suspend": false}}, ""))(w.Bubble)
		w.Settle()
		if n := len(w.made()); n != 1 || !strings.Contains(w.reasons(), "TooManyMissedTimes") {
			w.Errorf("%d jobs, events %s", n, w.reasons())
		}
	})
	run(t, func(s *batchv1.CronJobSpec) { s.Suspend, s.StartingDeadlineSeconds = ptr.To(true), ptr.To[int64](60) }, func(w world) {
		w.Wait(3*time.Hour + 150*time.Second)
		bubble.Must(w.crons.MergePatch(w.Context(), "default", "c", map[string]any{"spec": map[string]any{"suspend": false}}, ""))(w.Bubble)
		w.Settle()
		if n := len(w.made()); n != 0 {
			w.Errorf("%d jobs past the deadline", n)
		}
	})
}

// A new schedule has missed nothing; one that cannot be read is told of once.
func TestScheduleChanges(t *testing.T) {
	run(t, func(s *batchv1.CronJobSpec) { s.Schedule = "0 0 1 1 *" }, func(w world) {
		w.Wait(62 * time.Minute)
		bubble.Must(w.crons.MergePatch(w.Context(), "default", "c", map[string]any{"spec": map[string]any{"schedule": "*/10 * * * *"}}, ""))(w.Bubble)
		w.Wait(6 * time.Minute)
		if n := len(w.made()); n != 0 {
			w.Errorf("%d jobs at once", n)
		}
		w.Wait(4 * time.Minute)
		if n := len(w.made()); n != 1 {
			w.Errorf("%d jobs at the first time, want 1", n)
		}
	})
}

// A Job that someone deleted leaves the status.
func TestMissingJob(t *testing.T) {
	run(t, func(*batchv1.CronJobSpec) {}, func(w world) {
		w.Wait(6 * time.Minute)
		if err := w.jobs.Delete(w.Context(), "default", w.made()[0].Name, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}); err != nil {
			w.Fatal(err)
		}
		w.Settle()
		if s := w.cron().Status; len(s.Active) != 0 || !strings.Contains(w.reasons(), "MissingJob") {
			w.Errorf("active %v, events %s", s.Active, w.reasons())
		}
		w.Wait(5 * time.Minute)
		if n := len(w.made()); n != 1 {
			w.Errorf("%d jobs, want one for the next time", n)
		}
	})
}
