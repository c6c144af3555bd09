// SPDX-License-Identifier: Apache-2.0

package verb_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/kajitest"
)

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "a"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func sub(name string) client.Resource {
	return client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("pods"), Namespace: "default", Subresource: name}
}

func TestBinding(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t).Client()
	pods := client.For[*corev1.Pod](c)
	if _, err := pods.Create(ctx, pod("p")); err != nil {
		t.Fatal(err)
	}
	nominate := []byte(`{"status":{"nominatedNodeName":"elsewhere"}}`)
	if p, err := pods.Patch(ctx, "default", "p", types.MergePatchType, nominate, "status"); err != nil || p.Status.NominatedNodeName == "" {
		t.Fatalf("nominated pod %+v, %v", p, err)
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if _, err := c.Create(ctx, sub("binding"), "p", binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := pods.Get(ctx, "default", "p")
	if err != nil || got.Spec.NodeName != "n" {
		t.Fatalf("bound pod %+v, %v", got, err)
	}
	if got.Status.NominatedNodeName != "" {
		t.Errorf("the bound pod is still nominated for %s", got.Status.NominatedNodeName)
	}
	if len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Type != corev1.PodScheduled {
		t.Errorf("conditions %+v", got.Status.Conditions)
	}
	_, err = c.Create(ctx, sub("binding"), "p", binding, metav1.CreateOptions{})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `pod p is already assigned to node "n"`) {
		t.Errorf("second binding: %v", err)
	}
}

// A pod without a node goes at once, also when the deletion names its revision:
// the mark that comes before is a revision of the server's own.
func TestDeletionOfARevision(t *testing.T) {
	ctx := t.Context()
	pods := client.For[*corev1.Pod](kajitest.Start(t).Client())
	p, err := pods.Create(ctx, pod("p"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pods.Delete(ctx, "default", "p", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID, ResourceVersion: &p.ResourceVersion}}); err != nil {
		t.Fatal(err)
	}
	if left, err := pods.Get(ctx, "default", "p"); !apierrors.IsNotFound(err) {
		t.Errorf("still there: %+v, %v", left.ObjectMeta, err)
	}
}

func TestEvictionMindsTheBudget(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t).Client()
	pods, budgets := client.For[*corev1.Pod](c), client.For[*policyv1.PodDisruptionBudget](c)
	p, err := pods.Create(ctx, pod("p"))
	if err != nil {
		t.Fatal(err)
	}
	running := p.DeepCopy()
	running.Status.Phase = corev1.PodRunning
	running.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err = pods.UpdateStatus(ctx, running); err != nil {
		t.Fatal(err)
	}
	budget, err := budgets.Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}}
	evict := func() error {
		_, err := c.Create(ctx, sub("eviction"), "p", eviction, metav1.CreateOptions{})
		return err
	}
	if err := evict(); !apierrors.IsTooManyRequests(err) {
		t.Errorf("budget not processed yet: %v", err)
	}
	status := budget.DeepCopy()
	status.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: budget.Generation, DesiredHealthy: 1, CurrentHealthy: 1, ExpectedPods: 1}
	if budget, err = budgets.UpdateStatus(ctx, status); err != nil {
		t.Fatal(err)
	}
	if err := evict(); !apierrors.IsTooManyRequests(err) {
		t.Errorf("no disruption allowed: %v", err)
	}
	status = budget.DeepCopy()
	status.Status.DisruptionsAllowed = 1
	if _, err = budgets.UpdateStatus(ctx, status); err != nil {
		t.Fatal(err)
	}
	if err := evict(); err != nil {
		t.Fatal(err)
	}
	if got, err := budgets.Get(ctx, "default", "b"); err != nil || got.Status.DisruptionsAllowed != 0 || len(got.Status.DisruptedPods) != 1 {
		t.Errorf("budget after eviction: %+v, %v", got.Status, err)
	}
	if _, err := pods.Get(ctx, "default", "p"); !apierrors.IsNotFound(err) {
		t.Errorf("evicted pod without a node: %v", err)
	}
}

// Old clients evict in the version before; options are judged before anything is done.
func TestEvictionRequests(t *testing.T) {
	c := kajitest.Start(t)
	pods := client.For[*corev1.Pod](c.Client())
	if _, err := pods.Create(t.Context(), pod("p")); err != nil {
		t.Fatal(err)
	}
	cfg := c.RESTConfig()
	cfg.GroupVersion, cfg.NegotiatedSerializer = &corev1.SchemeGroupVersion, scheme.Codecs.WithoutConversion()
	cfg.APIPath = "/api"
	r, err := rest.RESTClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	evict := func(options string) error {
		body := `{"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": ` + options + `}`
		return r.Post().Namespace("default").Resource("pods").Name("p").SubResource("eviction").
			SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error()
	}
	for options, want := range map[string]string{
		`{"propagationPolicy": "X"}`:       `propagationPolicy: Unsupported value: "X"`,
		`{"preconditions": {"uid": "no"}}`: `Operation cannot be fulfilled on Pod "p": the UID in the precondition (no) does not match`,
	} {
		if err := evict(options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", options, err, want)
		}
	}
	if err := evict("{}"); err != nil {
		t.Error(err)
	}
	if _, err := pods.Get(t.Context(), "default", "p"); !apierrors.IsNotFound(err) {
		t.Errorf("the evicted pod: %v", err)
	}
}
