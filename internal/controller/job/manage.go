// SPDX-License-Identifier: Apache-2.0

package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/controller/adopt"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/podstate"
)

// errNamespaceEnds says that nothing can be made in a Job's namespace any more.
var errNamespaceEnds = errors.New("the namespace is being terminated")

// claim returns all pods of a Job.
func (c *Controller) claim(ctx context.Context, job *batchv1.Job) ([]*corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(job.Spec.Selector)
	if err != nil || selector.Empty() {
		selector = labels.Nothing() // validation keeps such Jobs out
	}
	return adopt.Claim[*corev1.Pod]{Owner: job, Kind: kind, Selector: selector, Objects: c.pods, Finalizer: batchv1.JobTrackingFinalizer,
		Fresh: func() (metav1.Object, error) { return c.jobs.Get(ctx, job.Namespace, job.Name) }}.Claimed(ctx)
}

// manage brings the number of active pods to what is wanted.
func (c *Controller) manage(ctx context.Context, v *view) error {
	job := v.job
	if suspended(job) {
		return c.remove(ctx, v, v.active, true)
	}
	wanted := int(*job.Spec.Parallelism)
	if job.Spec.Completions != nil {
		wanted = max(0, min(wanted, int(*job.Spec.Completions)-v.succeeded))
	} else if v.succeeded > 0 {
		wanted = len(v.active) // the work is done or being finished
	}
	if excess := v.excess(len(v.active) - wanted); len(excess) > 0 {
		return c.remove(ctx, v, excess[:min(len(excess), burst)], true)
	}
	missing := wanted - len(v.active)
	if replacesFailedOnly(job) {
		missing -= int(v.terminating)
	}
	if missing <= 0 {
		return nil
	}
	return c.add(ctx, v, min(missing, burst))
}

// excess are the pods to delete: of indexed ones those without a valid index
// and all but one of each index, then what is missed least.
func (v *view) excess(n int) []*corev1.Pod {
	var out, left []*corev1.Pod
	if indexed(v.job) {
		byIndex := map[int][]*corev1.Pod{}
		for _, pod := range v.active {
			if i, ok := validIndex(v.job, pod); ok {
				byIndex[i] = append(byIndex[i], pod)
			} else {
				out = append(out, pod)
			}
		}
		for _, pods := range byIndex {
			slices.SortStableFunc(pods, leastMissed)
			out, left = append(out, pods[:len(pods)-1]...), append(left, pods[len(pods)-1])
		}
	} else {
		left = slices.Clone(v.active)
	}
	if more := n - len(out); more > 0 {
		slices.SortStableFunc(left, leastMissed)
		out = append(out, left[:more]...)
	}
	return out
}

// leastMissed orders pods by how much work is lost with them.
func leastMissed(a, b *corev1.Pod) int {
	phase := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	aSince, aReady := podstate.Ready(a)
	bSince, bReady := podstate.Ready(b)
	number := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(number(a.Spec.NodeName != ""), number(b.Spec.NodeName != "")),
		cmp.Compare(phase[a.Status.Phase], phase[b.Status.Phase]),
		cmp.Compare(number(aReady), number(bReady)),
		bSince.Compare(aSince),
		b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
	)
}

// remove deletes pods. Freed ones lose their finalizer before, so that they
// count neither as failed nor as succeeded.
func (c *Controller) remove(ctx context.Context, v *view, pods []*corev1.Pod, free bool) error {
	var mu sync.Mutex
	var failure error
	inParallel(len(pods), func(i int) {
		pod := pods[i]
		err := c.removeOne(ctx, v.job, pod, free)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failure = errors.Join(failure, err)
			return
		}
		v.activeCount--
		v.terminating++
		if _, ready := podstate.Ready(pod); ready {
			v.ready--
		}
	})
	return failure
}

func (c *Controller) removeOne(ctx context.Context, job *batchv1.Job, pod *corev1.Pod, free bool) error {
	c.pending.Delete(job.UID, pod.UID)
	if free && tracked(pod) {
		if err := c.untrack(ctx, pod); err != nil {
			c.pending.Gone(job.UID, pod.UID)
			return err
		}
	}
	uid := pod.UID
	err := c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err == nil {
		c.events.Record(ctx, job, kind, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
		return nil
	}
	c.pending.Gone(job.UID, pod.UID)
	if apierrors.IsNotFound(err) {
		return nil
	}
	c.events.Record(ctx, job, kind, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
	return err
}

// add makes n pods, as soon as their predecessors' back-off allows.
func (c *Controller) add(ctx context.Context, v *view, n int) error {
	job, wait := v.job, time.Duration(0)
	if !perIndex(job) {
		wait = backoff(v.memory.failures, v.memory.lastFailure)
	}
	var indexes []int
	if indexed(job) && wait == 0 {
		if indexes, wait = v.nextIndexes(n); wait == 0 {
			n = len(indexes)
		}
	}
	if wait > 0 {
		c.queue.AddAfter(keyOf(job), wait)
		return nil
	}
	// Batches double while all succeeds, so that a full quota costs one refusal
	// and not hundreds.
	for size, done := 1, 0; done < n; size = min(2*size, n-done) {
		errs := make([]error, size)
		inParallel(size, func(i int) {
			index := -1
			if indexes != nil {
				index = indexes[done+i]
			}
			errs[i] = c.create(ctx, v, index)
		})
		for _, err := range errs {
			if err == nil {
				v.activeCount++
			}
		}
		err := errors.Join(errs...)
		if errors.Is(err, errNamespaceEnds) {
			// Failed pods need not wait for successors, or they would hold the
			// namespace for ever.
			v.waiting = nil
			return nil
		}
		if err != nil {
			return err
		}
		done += size
	}
	return nil
}

// nextIndexes returns up to n indexes that may have a pod now; if there are
// none, wait is the time to the first.
func (v *view) nextIndexes(n int) (now []int, wait time.Duration) {
	taken := v.indexes.with(indexesOf(v.active)).with(v.failedIndexes)
	if replacesFailedOnly(v.job) {
		var ending []*corev1.Pod
		for _, pod := range v.pods {
			if pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
				ending = append(ending, pod)
			}
		}
		taken = taken.with(indexesOf(ending))
	}
	for _, i := range taken.missing(n, int(*v.job.Spec.Completions)) {
		var left time.Duration
		if before := v.waiting[i]; before != nil {
			left = backoff(allFailures(before)+1, endOf(before))
		}
		if left == 0 {
			now = append(now, i)
		} else if wait == 0 || left < wait {
			wait = left
		}
	}
	if len(now) > 0 {
		wait = 0
	}
	return now, wait
}

func (c *Controller) create(ctx context.Context, v *view, index int) error {
	job := v.job
	pod := podFor(job, index, v.waiting[index])
	made, err := c.pods.Create(ctx, pod)
	meter.From(ctx).JobPodMade(v.whyNew(), err)
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return errNamespaceEnds
		}
		c.events.Record(ctx, job, kind, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	c.pending.Create(job.UID, made.UID, func() bool {
		seen, err := c.pods.Cached(made.Namespace, made.Name)
		return err == nil && seen.UID == made.UID
	})
	c.events.Record(ctx, job, kind, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", made.Name)
	return nil
}

// whyNew says for the metrics why pods are made.
func (v *view) whyNew() string {
	switch {
	case v.failed == 0 && v.terminating == 0:
		return "new"
	case replacesFailedOnly(v.job):
		return "recreate_failed"
	}
	return "recreate_terminating_or_failed"
}

// podFor returns a pod of the Job, for a completion index unless that is
// negative; before is the failed pod it replaces, if it does.
func podFor(job *batchv1.Job, index int, before *corev1.Pod) *corev1.Pod {
	pod := podstate.FromTemplate(&job.Spec.Template, job.Namespace, job.Name, *metav1.NewControllerRef(job, kind))
	if !tracked(pod) {
		pod.Finalizers = append(pod.Finalizers, batchv1.JobTrackingFinalizer)
	}
	if index < 0 {
		return pod
	}
	text := strconv.Itoa(index)
	pod.GenerateName = indexedName(job.Name, text)
	pod.Spec.Hostname = job.Name + "-" + text
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Annotations[batchv1.JobCompletionIndexAnnotation], pod.Labels[batchv1.JobCompletionIndexAnnotation] = text, text
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			addIndexVariable(&list[i])
		}
	}
	if perIndex(job) {
		countFailure(job, pod, before)
	}
	return pod
}

// indexedName leaves room for the index in a generated name.
func indexedName(job, index string) string {
	const longest = 63 - 5 // a name's bound, without what the server appends
	suffix := "-" + index + "-"
	return job[:min(len(job), longest-len(suffix))] + suffix
}

func addIndexVariable(c *corev1.Container) {
	const name = "JOB_COMPLETION_INDEX"
	if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name }) {
		return
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)}}})
}

// countFailure lets a pod carry on how often its index has failed.
func countFailure(job *batchv1.Job, pod, before *corev1.Pod) {
	failed, ignored := 0, 0
	if before != nil {
		failed, ignored = failureCount(before, batchv1.JobIndexFailureCountAnnotation), failureCount(before, batchv1.JobIndexIgnoredFailureCountAnnotation)
		if judge(job.Spec.PodFailurePolicy, before).counts() {
			failed++
		} else {
			ignored++
		}
	}
	pod.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(failed)
	if ignored > 0 {
		pod.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(ignored)
	}
}

// inParallel calls f for each of n, at most 16 at a time, and waits.
func inParallel(n int, f func(i int)) {
	room := make(chan struct{}, 16)
	var group sync.WaitGroup
	for i := range n {
		room <- struct{}{}
		group.Go(func() { defer func() { <-room }(); f(i) })
	}
	group.Wait()
}
