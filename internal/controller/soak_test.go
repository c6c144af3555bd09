// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller"
	"kaji/internal/controller/controllertest"
	"kaji/kajitest"
)

// soak is a cluster whose controllers' calls fail again and again: each kind of
// call anew in every round.
type soak struct {
	*testing.T
	api  client.Interface
	jobs client.Typed[*batchv1.Job]
	pods client.Typed[*corev1.Pod]
}

// rounds is how often the faults begin anew.
const rounds = 4

// TestSoak claims that Jobs, CronJobs and Deployments that are made, resized and
// deleted under timeouts, conflicts and lost answers end with exact counts, and
// that nothing of them is left.
func TestSoak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, faults := kajitest.Start(t, kajitest.WithRBAC()), &controllertest.Faults{}
		used := accounts{}
		defer used.allowed(t, cluster)
		ctx, cancel := context.WithCancel(t.Context())
		m, err := controller.New(controller.Config{Client: used.faulty(cluster, faults),
			Controllers: []string{"deployment", "replicaset", "job", "cronjob", "ttl-after-finished", "garbagecollector", "podgc"}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		api := cluster.Client()
		s := soak{t, api, client.For[*batchv1.Job](api), client.For[*corev1.Pod](api)}
		for i := range 12 {
			s.must(s.jobs.Create(ctx, soakJob(i)))
		}
		for i := range 4 {
			s.must(client.For[*appsv1.Deployment](api).Create(ctx, soakDeployment(i)))
			s.must(client.For[*batchv1.CronJob](api).Create(ctx, soakCronJob(i)))
		}
		for round := range rounds {
			faults.Again()
			for _, name := range []string{"d0", "d1", "d2", "d3"} {
				s.must(client.For[*appsv1.Deployment](api).MergePatch(ctx, "default", name, map[string]any{"spec": map[string]any{"replicas": 1 + (round*3)%7}}, ""))
			}
			s.live(6)
		}
		s.settled()
		s.clear()
		faults.Again()
		s.live(20)
		s.empty()
	})
}

func (s soak) must(_ any, err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func soakTemplate(labels map[string]string, policy corev1.RestartPolicy) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{RestartPolicy: policy, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

// soakJob makes plain and indexed Jobs by turns.
func soakJob(i int) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("j", i)}, Spec: batchv1.JobSpec{
		Completions: ptr.To[int32](6), Parallelism: ptr.To[int32](3), BackoffLimit: ptr.To[int32](100), Template: soakTemplate(map[string]string{"fails": "once"}, corev1.RestartPolicyNever)}}
	if i%2 == 1 {
		j.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion)
	}
	return j
}

func soakDeployment(i int) *appsv1.Deployment {
	labels := map[string]string{"app": fmt.Sprint("d", i)}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("d", i)}, Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: soakTemplate(labels, corev1.RestartPolicyAlways)}}
}

func soakCronJob(i int) *batchv1.CronJob {
	return &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("c", i)}, Spec: batchv1.CronJobSpec{
		Schedule: "* * * * *", SuccessfulJobsHistoryLimit: ptr.To[int32](2),
		JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: soakTemplate(map[string]string{"app": "cron"}, corev1.RestartPolicyNever)}}}}
}

// live plays the node for so many half minutes: pods of Jobs end, the first of
// each Job fails, those of Deployments are ready.
func (s soak) live(steps int) {
	s.Helper()
	for range steps {
		<-time.After(30 * time.Second)
		synctest.Wait()
		all, err := s.pods.List(s.Context(), "default", metav1.ListOptions{})
		s.must(nil, err)
		failed := map[string]bool{}
		for _, p := range all {
			if p.Status.Phase == corev1.PodFailed {
				failed[p.Labels[batchv1.JobNameLabel]] = true
			}
		}
		for _, p := range all {
			if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil {
				continue
			}
			p, job := p.DeepCopy(), p.Labels[batchv1.JobNameLabel]
			switch {
			case job == "":
				p.Status.Phase = corev1.PodRunning
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			case p.Labels["fails"] == "once" && !failed[job]:
				p.Status.Phase, failed[job] = corev1.PodFailed, true
			default:
				p.Status.Phase = corev1.PodSucceeded
			}
			if _, err := s.pods.UpdateStatus(s.Context(), p); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				s.Fatal(err)
			}
		}
	}
}

// settled checks the counts.
func (s soak) settled() {
	s.Helper()
	for i := range 12 {
		j, err := s.jobs.Get(s.Context(), "default", fmt.Sprint("j", i))
		s.must(nil, err)
		if st := j.Status; st.Succeeded != 6 || st.Failed != 1 || st.Active != 0 || st.CompletionTime == nil ||
			st.UncountedTerminatedPods != nil && len(st.UncountedTerminatedPods.Succeeded)+len(st.UncountedTerminatedPods.Failed) != 0 {
			s.Errorf("%s: %+v", j.Name, st)
		}
	}
	want := int32(1 + (rounds-1)*3%7)
	all, err := s.pods.List(s.Context(), "default", metav1.ListOptions{})
	s.must(nil, err)
	for i := range 4 {
		name := fmt.Sprint("d", i)
		d, err := client.For[*appsv1.Deployment](s.api).Get(s.Context(), "default", name)
		s.must(nil, err)
		if st := d.Status; st.Replicas != want || st.AvailableReplicas != want || st.ObservedGeneration != d.Generation {
			s.Errorf("%s: %+v, want %d replicas", name, st, want)
		}
		n := int32(0)
		for _, p := range all {
			if p.Labels["app"] == name && p.DeletionTimestamp == nil {
				n++
			}
		}
		if n != want {
			s.Errorf("%s has %d pods, want %d", name, n, want)
		}
	}
	s.cronJobs()
}

// cronJobs checks that every minute had one Job and that few are kept.
func (s soak) cronJobs() {
	s.Helper()
	for i := range 4 {
		c, err := client.For[*batchv1.CronJob](s.api).Get(s.Context(), "default", fmt.Sprint("c", i))
		s.must(nil, err)
		jobs, err := s.jobs.List(s.Context(), "default", metav1.ListOptions{})
		s.must(nil, err)
		kept := 0
		for _, j := range jobs {
			if metav1.IsControlledBy(j, c) && j.DeletionTimestamp == nil {
				kept++
			}
		}
		if len(c.Status.Active) > 1 || kept > 3 || kept == 0 || c.Status.LastScheduleTime == nil || time.Since(c.Status.LastScheduleTime.Time) > 2*time.Minute {
			s.Errorf("%s keeps %d jobs: %+v", c.Name, kept, c.Status)
		}
	}
}

// clear deletes everything by its owners.
func (s soak) clear() {
	s.Helper()
	background := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	for i := range 12 {
		s.must(nil, s.jobs.Delete(s.Context(), "default", fmt.Sprint("j", i), background))
	}
	for i := range 4 {
		s.must(nil, client.For[*appsv1.Deployment](s.api).Delete(s.Context(), "default", fmt.Sprint("d", i), background))
		s.must(nil, client.For[*batchv1.CronJob](s.api).Delete(s.Context(), "default", fmt.Sprint("c", i), background))
	}
}

// empty checks that nothing is left.
func (s soak) empty() {
	s.Helper()
	pods, err := s.pods.List(s.Context(), "default", metav1.ListOptions{})
	s.must(nil, err)
	for _, p := range pods {
		s.Errorf("pod %s is left: finalizers %v, owners %v", p.Name, p.Finalizers, p.OwnerReferences)
	}
	jobs, err := s.jobs.List(s.Context(), "default", metav1.ListOptions{})
	s.must(nil, err)
	for _, j := range jobs {
		s.Errorf("job %s is left: finalizers %v, owners %v", j.Name, j.Finalizers, j.OwnerReferences)
	}
	sets, err := client.For[*appsv1.ReplicaSet](s.api).List(s.Context(), "default", metav1.ListOptions{})
	s.must(nil, err)
	for _, r := range sets {
		s.Errorf("replica set %s is left", r.Name)
	}
}
