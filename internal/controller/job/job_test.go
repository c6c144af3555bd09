// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/job"
	"kaji/kajitest"
)

// account is the controller's own: the tests run with its rights only.
const account = "job-controller"

// world is a control plane with the controller, in a bubble.
type world struct {
	*testing.T
	jobs client.Typed[*batchv1.Job]
	pods client.Typed[*corev1.Pod]
	api  client.Interface
}

// run starts the controller over what wrap makes of the client (nil: the client
// itself).
func run(t *testing.T, wrap func(client.Interface) client.Interface, f func(w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cluster := kajitest.Start(t, kajitest.WithRBAC())
		defer bubble.Allowed(t, cluster, account)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		api := bubble.Account(cluster, account)
		if wrap != nil {
			api = wrap(api)
		}
		c := job.New(api, nil)
		go func() { done <- c.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		api = cluster.Client()
		f(world{t, client.For[*batchv1.Job](api), client.For[*corev1.Pod](api), api})
	})
}

func (w world) settle(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (w world) create(change func(s *batchv1.JobSpec)) {
	w.Helper()
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j"}, Spec: batchv1.JobSpec{
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
	change(&j.Spec)
	if _, err := w.jobs.Create(w.Context(), j); err != nil {
		w.Fatal(err)
	}
	w.settle(3 * time.Second)
}

func (w world) job() *batchv1.Job {
	w.Helper()
	j, err := w.jobs.Get(w.Context(), "default", "j")
	if err != nil {
		w.Fatal(err)
	}
	return j
}

// running are the pods that have not ended, by index.
func (w world) running() []*corev1.Pod {
	w.Helper()
	all, err := w.pods.List(w.Context(), "default", metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil
	})
	slices.SortFunc(all, func(a, b *corev1.Pod) int { return cmp.Compare(index(a), index(b)) })
	return all
}

func index(p *corev1.Pod) string { return p.Annotations[batchv1.JobCompletionIndexAnnotation] }

// end lets a pod end with an exit code.
func (w world) end(p *corev1.Pod, code int32, conditions ...corev1.PodCondition) {
	w.Helper()
	p = p.DeepCopy()
	p.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		p.Status.Phase = corev1.PodFailed
	}
	p.Status.Conditions = append(p.Status.Conditions, conditions...)
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()}}}}
	if _, err := w.pods.UpdateStatus(w.Context(), p); err != nil {
		w.Fatal(err)
	}
}

// ended checks how the Job ended, in the form "Type Reason", and that no pod
// keeps the finalizer.
func (w world) ended(want string) {
	w.Helper()
	var got []string
	j := w.job()
	for _, c := range j.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			got = append(got, string(c.Type)+" "+c.Reason)
		}
	}
	slices.Sort(got)
	if have := strings.Join(got, ", "); have != want {
		w.Errorf("conditions %q, want %q; status %+v", have, want, j.Status)
	}
	all, err := w.pods.List(w.Context(), "default", metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	for _, p := range all {
		if len(p.Finalizers) > 0 && want != "" {
			w.Errorf("pod %s keeps %v", p.Name, p.Finalizers)
		}
	}
}

const (
	complete = "Complete CompletionsReached, SuccessCriteriaMet CompletionsReached"
	backoff  = "Failed BackoffLimitExceeded, FailureTarget BackoffLimitExceeded"
)

func TestCompletions(t *testing.T) {
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = ptr.To[int32](5), ptr.To[int32](2) })
		for range 3 {
			pods := w.running()
			if len(pods) > 2 {
				w.Fatalf("%d pods run", len(pods))
			}
			for _, p := range pods {
				w.end(p, 0)
			}
			w.settle(5 * time.Second)
		}
		w.ended(complete)
		if s := w.job().Status; s.Succeeded != 5 || s.Failed != 0 || s.Active != 0 || s.CompletionTime == nil {
			w.Errorf("status %+v", s)
		}
	})
}

func TestFailuresBackOff(t *testing.T) {
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) { s.BackoffLimit = ptr.To[int32](2) })
		for _, delay := range []time.Duration{10 * time.Second, 20 * time.Second} {
			w.end(w.running()[0], 1)
			w.settle(delay - 3*time.Second)
			if n := len(w.running()); n != 0 {
				w.Fatalf("%d pods %v after a failure", n, delay-3*time.Second)
			}
			w.settle(6 * time.Second)
			if n := len(w.running()); n != 1 {
				w.Fatalf("%d pods %v after a failure", n, delay+3*time.Second)
			}
		}
		w.end(w.running()[0], 1)
		w.settle(5 * time.Second)
		w.ended(backoff)
		if s := w.job().Status; s.Failed != 3 {
			w.Errorf("status %+v", s)
		}
	})
}

func TestIndexed(t *testing.T) {
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) {
			s.CompletionMode, s.Completions, s.Parallelism = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](4), ptr.To[int32](4)
			s.BackoffLimitPerIndex, s.MaxFailedIndexes = ptr.To[int32](1), ptr.To[int32](2)
		})
		pods := w.running()
		if len(pods) != 4 || index(pods[2]) != "2" || pods[2].Spec.Hostname != "j-2" || !strings.HasPrefix(pods[2].Name, "j-2-") ||
			pods[2].Labels[batchv1.JobCompletionIndexAnnotation] != "2" {
			w.Fatalf("pods %v", pods)
		}
		if e := pods[2].Spec.Containers[0].Env; len(e) != 1 || e[0].Name != "JOB_COMPLETION_INDEX" || e[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
			w.Errorf("variables %+v", e)
		}
		w.end(pods[0], 0)
		w.end(pods[2], 0)
		w.end(pods[3], 0)
		w.end(pods[1], 1)
		w.settle(5 * time.Second)
		if s := w.job().Status; s.CompletedIndexes != "0,2,3" || s.Succeeded != 3 || s.FailedIndexes == nil || *s.FailedIndexes != "" {
			w.Errorf("status %+v", s)
		}
		w.settle(10 * time.Second)
		again := w.running()
		if len(again) != 1 || index(again[0]) != "1" || again[0].Annotations[batchv1.JobIndexFailureCountAnnotation] != "1" {
			w.Fatalf("pods %v", again)
		}
		w.end(again[0], 1)
		w.settle(5 * time.Second)
		w.ended("Failed FailedIndexes, FailureTarget FailedIndexes")
		if s := w.job().Status; s.CompletedIndexes != "0,2,3" || *s.FailedIndexes != "1" || s.Failed != 2 {
			w.Errorf("status %+v", s)
		}
	})
}

// A Job grows and shrinks with its completions and parallelism (elastic).
func TestElastic(t *testing.T) {
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) {
			s.CompletionMode, s.Completions, s.Parallelism = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](3), ptr.To[int32](3)
		})
		w.end(w.running()[2], 0)
		w.settle(5 * time.Second)
		resize := func(n int) {
			if _, err := w.jobs.MergePatch(w.Context(), "default", "j", map[string]any{"spec": map[string]any{"completions": n, "parallelism": n}}, ""); err != nil {
				w.Fatal(err)
			}
			w.settle(5 * time.Second)
		}
		resize(2)
		if s := w.job().Status; s.Succeeded != 0 || s.CompletedIndexes != "" || s.Active != 2 {
			w.Errorf("smaller: %+v", s)
		}
		resize(4)
		if s := w.job().Status; s.Active != 4 {
			w.Errorf("larger: %+v", s)
		}
	})
}

func TestFailurePolicy(t *testing.T) {
	policy := &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
		{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}}},
	}}
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) { s.PodFailurePolicy, s.BackoffLimit = policy, ptr.To[int32](0) })
		w.end(w.running()[0], 42, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue})
		w.settle(15 * time.Second)
		if s := w.job().Status; s.Failed != 0 || s.Active != 1 {
			w.Fatalf("an ignored failure counts: %+v", s)
		}
		name := w.running()[0].Name
		w.end(w.running()[0], 42)
		w.settle(5 * time.Second)
		w.ended("Failed PodFailurePolicy, FailureTarget PodFailurePolicy")
		want := "Container c for pod default/" + name + " failed with exit code 42 matching FailJob rule at index 1"
		if c := w.job().Status.Conditions; len(c) != 2 || c[0].Message != want || c[1].Message != want {
			w.Errorf("conditions %+v, want %q", c, want)
		}
	})
}

func TestSuspendAndDeadline(t *testing.T) {
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](60) })
		suspend := func(yes bool) {
			if _, err := w.jobs.MergePatch(w.Context(), "default", "j", map[string]any{"spec": map[string]any{"suspend": yes}}, ""); err != nil {
				w.Fatal(err)
			}
			w.settle(3 * time.Second)
		}
		suspend(true)
		if s := w.job().Status; s.Active != 0 || s.StartTime != nil || s.Failed != 0 || len(w.running()) != 0 {
			w.Errorf("suspended: %+v, %d pods", s, len(w.running()))
		}
		w.settle(2 * time.Minute)
		suspend(false)
		w.settle(50 * time.Second)
		if n := len(w.running()); n != 1 {
			w.Fatalf("%d pods after the resumption", n)
		}
		w.settle(15 * time.Second)
		w.ended("Failed DeadlineExceeded, FailureTarget DeadlineExceeded")
	})
}

// A deleted Job leaves no pod held.
func TestDeletedJob(t *testing.T) {
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = ptr.To[int32](3), ptr.To[int32](3) })
		if err := w.jobs.Delete(w.Context(), "default", "j", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}); err != nil {
			w.Fatal(err)
		}
		w.settle(3 * time.Second)
		for _, p := range w.running() {
			if len(p.Finalizers) > 0 {
				w.Errorf("pod %s keeps %v", p.Name, p.Finalizers)
			}
		}
	})
}

// Another controller's Job is left alone.
func TestManagedBy(t *testing.T) {
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) { s.ManagedBy = ptr.To("example.com/other") })
		if n := len(w.running()); n != 0 || w.job().Status.StartTime != nil {
			w.Errorf("%d pods, status %+v", n, w.job().Status)
		}
	})
}

// With podReplacementPolicy Failed a pod that ends has a successor only then.
func TestReplacement(t *testing.T) {
	run(t, nil, func(w world) {
		w.create(func(s *batchv1.JobSpec) { s.PodReplacementPolicy = ptr.To(batchv1.Failed) })
		p := w.running()[0]
		bind(w, p)
		if err := w.pods.Delete(w.Context(), "default", p.Name, metav1.DeleteOptions{}); err != nil {
			w.Fatal(err)
		}
		w.settle(30 * time.Second)
		if s := w.job().Status; *s.Terminating != 1 || s.Active != 0 || s.Failed != 0 {
			w.Errorf("status %+v", s)
		}
		p, err := w.pods.Get(w.Context(), "default", p.Name)
		if err != nil {
			w.Fatal(err)
		}
		w.end(p, 1)
		w.settle(30 * time.Second)
		if s := w.job().Status; *s.Terminating != 0 || s.Active != 1 || s.Failed != 1 {
			w.Errorf("status %+v", s)
		}
	})
}

func bind(w world, p *corev1.Pod) {
	w.Helper()
	b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if _, err := w.api.Create(w.Context(), client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("pods"), Namespace: p.Namespace, Subresource: "binding"}, p.Name, b, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
}

// TestNamespaceEnds: a failed pod that waits for its successor does not hold a
// namespace in which no successor can be made.
func TestNamespaceEnds(t *testing.T) {
	run(t, nil, func(w world) {
		const ns = "ends"
		namespaces := client.For[*corev1.Namespace](w.api)
		if _, err := namespaces.Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}); err != nil {
			t.Fatal(err)
		}
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "j"}, Spec: batchv1.JobSpec{
			CompletionMode: ptr.To(batchv1.IndexedCompletion), Completions: ptr.To[int32](2), Parallelism: ptr.To[int32](2), BackoffLimitPerIndex: ptr.To[int32](3),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
		if _, err := w.jobs.Create(w.Context(), j); err != nil {
			t.Fatal(err)
		}
		w.settle(3 * time.Second)
		if err := namespaces.Delete(w.Context(), "", ns, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		pods, err := w.pods.List(w.Context(), ns, metav1.ListOptions{})
		if err != nil || len(pods) != 2 {
			t.Fatal(len(pods), err)
		}
		for _, p := range pods {
			if err := w.pods.Delete(w.Context(), ns, p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.pods.MergePatch(w.Context(), ns, p.Name, map[string]any{"status": map[string]any{"phase": "Failed"}}, "status"); err != nil {
				t.Fatal(err)
			}
		}
		w.settle(time.Minute)
		if left, err := w.pods.List(w.Context(), ns, metav1.ListOptions{}); err != nil || len(left) != 0 {
			t.Errorf("%d pods are left, %v: %v", len(left), err, left)
		}
		j, err = w.jobs.Get(w.Context(), ns, "j")
		if s := j.Status; err != nil || s.Active != 0 || s.Failed != 2 {
			t.Errorf("status %+v", s)
		}
	})
}
