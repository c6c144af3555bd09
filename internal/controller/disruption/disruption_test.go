// SPDX-License-Identifier: Apache-2.0

package disruption_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/disruption"
	"kaji/kajitest"
)

// world is a bubble with a budget "b" over the pods of a ReplicaSet "rs".
type world struct {
	*bubble.Bubble
	pods    client.Typed[*corev1.Pod]
	budgets client.Typed[*policyv1.PodDisruptionBudget]
	owner   *appsv1.ReplicaSet
}

var labels = map[string]string{"app": "a"}

func run(t *testing.T, replicas int32, spec policyv1.PodDisruptionBudgetSpec, f func(w world)) {
	t.Helper()
	start := func(api client.Interface) []bubble.Controller { return []bubble.Controller{disruption.New(api, nil)} }
	bubble.RunAs(t, "disruption-controller", start, func(b *bubble.Bubble) {
		w := world{Bubble: b, pods: client.For[*corev1.Pod](b.API), budgets: client.For[*policyv1.PodDisruptionBudget](b.API)}
		selector := &metav1.LabelSelector{MatchLabels: labels}
		w.owner = bubble.Must(client.For[*appsv1.ReplicaSet](b.API).Create(b.Context(), &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "rs"},
			Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: selector, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec()}}}))(b)
		spec.Selector = selector
		bubble.Must(w.budgets.Create(b.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}, Spec: spec}))(b)
		f(w)
	})
}

func podSpec() corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}
}

// pod makes a running pod on a node, so that its deletion is only begun.
func (w world) pod(name string, owned, ready bool) {
	w.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}, Spec: podSpec()}
	p.Spec.NodeName = "n"
	if owned {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(w.owner, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	}
	p = bubble.Must(w.pods.Create(w.Context(), p))(w.Bubble).DeepCopy()
	p.Status.Phase = corev1.PodRunning
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Now()}}
	bubble.Must(w.pods.UpdateStatus(w.Context(), p))(w.Bubble)
}

func (w world) evict(name string) error {
	e := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	_, err := w.API.Create(w.Context(), client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("pods"), Namespace: "default", Subresource: "eviction"}, name, e, metav1.CreateOptions{})
	return err
}

// refused checks the answer to an eviction that the budget forbids.
func (w world) refused(name, cause string) {
	w.Helper()
	err := w.evict(name)
	status, ok := err.(apierrors.APIStatus)
	if !ok || status.Status().Code != 429 || status.Status().Message != "Cannot evict pod as it would violate the pod's disruption budget." ||
		status.Status().Reason != metav1.StatusReasonTooManyRequests || len(status.Status().Details.Causes) != 1 ||
		status.Status().Details.Causes[0] != (metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: cause}) {
		w.Errorf("eviction of %s: %+v, want 429 for %q", name, err, cause)
	}
}

// counts checks the status: healthy, desired, expected, allowed.
func (w world) counts(healthy, desired, expected, allowed int32) policyv1.PodDisruptionBudgetStatus {
	w.Helper()
	w.Settle()
	s := bubble.Must(w.budgets.Get(w.Context(), "default", "b"))(w.Bubble).Status
	if s.CurrentHealthy != healthy || s.DesiredHealthy != desired || s.ExpectedPods != expected || s.DisruptionsAllowed != allowed || s.ObservedGeneration != 1 {
		w.Errorf("status %+v, want %d healthy, %d desired, %d expected, %d allowed", s, healthy, desired, expected, allowed)
	}
	want := metav1.ConditionFalse
	if allowed > 0 {
		want = metav1.ConditionTrue
	}
	if c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition); c == nil || c.Status != want {
		w.Errorf("condition %+v", c)
	}
	return s
}

// Evictions take from the budget until it is used up, and the budget recovers
// with the pods.
func TestEvictions(t *testing.T) {
	run(t, 3, policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(1))}, func(w world) {
		w.counts(0, 0, 0, 0)
		for _, name := range []string{"a", "b", "c"} {
			w.pod(name, true, true)
		}
		w.counts(3, 2, 3, 1)
		if err := w.evict("a"); err != nil {
			w.Fatal(err)
		}
		if p := bubble.Must(w.pods.Get(w.Context(), "default", "a"))(w.Bubble); p.DeletionTimestamp == nil || p.Status.Conditions[len(p.Status.Conditions)-1].Reason != "EvictionByEvictionAPI" {
			w.Errorf("evicted pod %+v %+v", p.ObjectMeta, p.Status.Conditions)
		}
		if err := w.evict("b"); !apierrors.IsTooManyRequests(err) { // whether the controller has seen the first or not
			w.Errorf("the second eviction: %v", err)
		}
		if s := w.counts(2, 2, 3, 0); len(s.DisruptedPods) != 0 {
			w.Errorf("a pod that is being deleted is still waited for: %v", s.DisruptedPods)
		}
		w.refused("b", "The disruption budget b needs 2 healthy pods and has 2 currently")
		w.pod("d", true, true)
		w.counts(3, 2, 3, 1)
		if err := w.evict("b"); err != nil {
			w.Error(err)
		}
	})
}

// A pod that is not ready goes while the others meet the budget, or always.
func TestUnhealthy(t *testing.T) {
	for policy, free := range map[policyv1.UnhealthyPodEvictionPolicyType]bool{policyv1.IfHealthyBudget: false, policyv1.AlwaysAllow: true} {
		run(t, 2, policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(2)), UnhealthyPodEvictionPolicy: &policy}, func(w world) {
			w.pod("well", true, true)
			w.pod("ill", true, false)
			w.counts(1, 2, 2, 0)
			if free {
				if err := w.evict("ill"); err != nil {
					w.Error(err)
				}
				return
			}
			w.refused("ill", "The disruption budget b needs 2 healthy pods and has 1 currently")
			w.pod("too", true, true)
			w.counts(2, 2, 3, 0)
			if err := w.evict("ill"); err != nil {
				w.Error(err)
			}
			w.refused("well", "The disruption budget b needs 2 healthy pods and has 2 currently")
		})
	}
}

// A pod that was evicted and stays counts again after two minutes, and loses
// the mark.
func TestNotDeleted(t *testing.T) {
	run(t, 2, policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromString("50%"))}, func(w world) {
		w.pod("a", true, true)
		w.pod("b", true, true)
		w.counts(2, 1, 2, 1)
		b := bubble.Must(w.budgets.Get(w.Context(), "default", "b"))(w.Bubble).DeepCopy()
		b.Status.DisruptedPods, b.Status.DisruptionsAllowed = map[string]metav1.Time{"a": metav1.Now()}, 0
		bubble.Must(w.budgets.UpdateStatus(w.Context(), b))(w.Bubble)
		p := bubble.Must(w.pods.Get(w.Context(), "default", "a"))(w.Bubble).DeepCopy()
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", LastTransitionTime: metav1.Now()})
		bubble.Must(w.pods.UpdateStatus(w.Context(), p))(w.Bubble)
		w.counts(1, 1, 2, 0)
		w.Wait(2 * time.Minute)
		w.counts(2, 1, 2, 1)
		for _, c := range bubble.Must(w.pods.Get(w.Context(), "default", "a"))(w.Bubble).Status.Conditions {
			if c.Type == corev1.DisruptionTarget && c.Status != corev1.ConditionFalse {
				w.Errorf("%+v", c)
			}
		}
	})
}

// Pods without a controller are told of; an owner that cannot be found closes
// the budget and says why to those who evict.
func TestOwners(t *testing.T) {
	run(t, 1, policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(1))}, func(w world) {
		w.pod("a", false, true)
		w.counts(1, 0, 0, 0)
		var told bool
		for _, e := range bubble.Must(client.For[*corev1.Event](w.API).List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble) {
			told = told || e.Reason == "UnmanagedPods" && strings.Contains(e.Message, "unmanaged")
		}
		if !told {
			w.Error("no event about unmanaged pods")
		}
		w.owner = w.owner.DeepCopy()
		w.owner.Name, w.owner.UID = "gone", "no-such-uid"
		w.pod("b", true, true)
		w.Settle()
		const why = `found no controllers for pod "b"`
		s := bubble.Must(w.budgets.Get(w.Context(), "default", "b"))(w.Bubble).Status
		if c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition); c == nil || c.Reason != "SyncFailed" || c.Message != why || s.DisruptionsAllowed != 0 {
			w.Errorf("status %+v", s)
		}
		w.refused("b", "The disruption budget b does not allow evicting pods currently because it failed sync: "+why)
	})
}

// TestWithoutScale: a controller whose kind cannot be scaled is told of by name.
func TestWithoutScale(t *testing.T) {
	run(t, 1, policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(1))}, func(w world) {
		job := bubble.Must(client.For[*batchv1.Job](w.API).Create(w.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j"}, Spec: batchv1.JobSpec{
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: podSpec().Containers}}}}))(w.Bubble)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", Labels: labels, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}}, Spec: podSpec()}
		bubble.Must(w.pods.Create(w.Context(), pod))(w.Bubble)
		w.Settle()
		s := bubble.Must(w.budgets.Get(w.Context(), "default", "b"))(w.Bubble).Status
		if c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition); c == nil || c.Reason != "SyncFailed" || c.Message != "jobs.batch does not implement the scale subresource" {
			w.Errorf("status %+v", s)
		}
	})
}

// TestRights: the controller's own account may do all it does, with pods and without.
func TestRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := kajitest.Start(t, kajitest.WithRBAC())
		own := client.WithInformers(cluster.As(&user.DefaultInfo{Name: "system:serviceaccount:kube-system:disruption-controller",
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"}}), cluster.Client())
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := disruption.New(own, nil).Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer func() { cancel(); running.Wait() }()
		b := &bubble.Bubble{T: t, Cluster: cluster, API: cluster.Client()}
		w := world{Bubble: b, pods: client.For[*corev1.Pod](b.API), budgets: client.For[*policyv1.PodDisruptionBudget](b.API)}
		bubble.Must(w.budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"},
			Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, MinAvailable: ptr.To(intstr.FromInt32(1))}}))(b)
		for _, pods := range []int32{0, 1} {
			if pods == 1 {
				w.pod("p", false, true)
			}
			b.Settle()
			got := bubble.Must(w.budgets.Get(t.Context(), "default", "b"))(b)
			c := meta.FindStatusCondition(got.Status.Conditions, policyv1.DisruptionAllowedCondition)
			if got.Status.ObservedGeneration != 1 || got.Status.CurrentHealthy != pods || c == nil || c.Reason != policyv1.InsufficientPodsReason {
				t.Errorf("with %d pods: %+v", pods, got.Status)
			}
		}
	})
}

// A pod of several budgets has an event that names one of them.
func TestSeveralBudgets(t *testing.T) {
	run(t, 1, policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1))}, func(w world) {
		bubble.Must(w.budgets.Create(w.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"},
			Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}}}))(w.Bubble)
		w.Settle()
		w.pod("p", true, true)
		w.Settle()
		told := false
		for _, e := range bubble.Must(client.For[*corev1.Event](w.API).List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble) {
			told = told || e.InvolvedObject.Name == "p" && e.Type == corev1.EventTypeWarning && e.Reason == "MultiplePodDisruptionBudgets" &&
				e.Message == `Pod "default"/"p" matches multiple PodDisruptionBudgets.  Chose "a" arbitrarily.` && e.Source.Component == "controllermanager"
		}
		if !told {
			w.Error("nobody is told of the second budget")
		}
	})
}
