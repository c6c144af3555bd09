// SPDX-License-Identifier: Apache-2.0

package deployment_test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/deployment"
)

// world is a bubble without a ReplicaSet controller: statuses say what the test
// says, however late.
type world struct {
	*bubble.Bubble
	deployments client.Typed[*appsv1.Deployment]
	sets        client.Typed[*appsv1.ReplicaSet]
}

func run(t *testing.T, f func(w world)) {
	t.Helper()
	start := func(api client.Interface) []bubble.Controller { return []bubble.Controller{deployment.New(api, nil)} }
	bubble.RunAs(t, "deployment-controller", start, func(b *bubble.Bubble) {
		f(world{b, client.For[*appsv1.Deployment](b.API), client.For[*appsv1.ReplicaSet](b.API)})
	})
}

func rolling(replicas int32, surge, unavailable int) *appsv1.Deployment {
	labels := map[string]string{"app": "a"}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
			MaxSurge: ptr.To(intstr.FromInt(surge)), MaxUnavailable: ptr.To(intstr.FromInt(unavailable))}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "one"}}}},
	}}
}

// sizes are the wanted replicas of the sets, by image.
func (w world) sizes() map[string]int32 {
	w.Helper()
	out := map[string]int32{}
	for _, rs := range bubble.Must(w.sets.List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble) {
		out[rs.Spec.Template.Spec.Containers[0].Image] = *rs.Spec.Replicas
	}
	return out
}

// report gives the set of an image a status of so many available pods.
func (w world) report(image string, n int32) {
	w.Helper()
	for _, cached := range bubble.Must(w.sets.List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble) {
		if cached.Spec.Template.Spec.Containers[0].Image == image {
			rs := cached.DeepCopy()
			rs.Status = appsv1.ReplicaSetStatus{Replicas: n, FullyLabeledReplicas: n, ReadyReplicas: n, AvailableReplicas: n, ObservedGeneration: rs.Generation}
			bubble.Must(w.sets.UpdateStatus(w.Context(), rs))(w.Bubble)
		}
	}
	w.Settle()
}

func (w world) image(image string) {
	w.Helper()
	d := bubble.Must(w.deployments.Get(w.Context(), "default", "d"))(w.Bubble).DeepCopy()
	d.Spec.Template.Spec.Containers[0].Image = image
	bubble.Must(w.deployments.Update(w.Context(), d))(w.Bubble)
	w.Settle()
}

func (w world) want(one, two int32) {
	w.Helper()
	if got := w.sizes(); got["one"] != one || got["two"] != two {
		w.Errorf("sizes %v, want %d of the old and %d of the new", got, one, two)
	}
}

// A rollout never ends more old pods than may be unavailable, even while the
// sets' statuses do not yet tell of the pods that end.
func TestLateStatus(t *testing.T) {
	run(t, func(w world) {
		bubble.Must(w.deployments.Create(w.Context(), rolling(10, 3, 2)))(w.Bubble)
		w.Settle()
		w.report("one", 10)
		w.image("two")
		w.want(8, 5)
		// A count of new pods alone says nothing of the old ones.
		w.report("two", 1)
		w.want(7, 6)
		w.report("one", 7)
		w.want(7, 6)
	})
}

// annotate asks for something by an annotation.
func (w world) annotate(name, value string) {
	w.Helper()
	bubble.Must(w.deployments.MergePatch(w.Context(), "default", "d", map[string]any{"metadata": map[string]any{"annotations": map[string]string{name: value}}}, ""))(w.Bubble)
	w.Settle()
}

// told says whether there is an event with this reason.
func (w world) told(reason string) bool {
	w.Helper()
	return slices.ContainsFunc(bubble.Must(client.For[*corev1.Event](w.API).List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble),
		func(e *corev1.Event) bool { return e.Reason == reason })
}

// The annotation of the first API's rollback still does what it did: it names a
// revision, or the one before with 0, and is taken away in any case.
func TestRollbackByAnnotation(t *testing.T) {
	run(t, func(w world) {
		bubble.Must(w.deployments.Create(w.Context(), rolling(1, 1, 0)))(w.Bubble)
		w.Settle()
		w.annotate(appsv1.DeprecatedRollbackTo, "0")
		w.annotate(appsv1.DeprecatedRollbackTo, "1")
		w.annotate("example.com/note", "first")
		w.image("two")
		w.annotate("example.com/note", "second")
		w.annotate(appsv1.DeprecatedRollbackTo, "7")
		for _, reason := range []string{"DeploymentRollbackRevisionNotFound", "DeploymentRollbackTemplateUnchanged"} {
			if !w.told(reason) {
				w.Errorf("no event %s", reason)
			}
		}
		want := func(image, revision, note string) {
			w.Helper()
			d := bubble.Must(w.deployments.Get(w.Context(), "default", "d"))(w.Bubble)
			_, asks := d.Annotations[appsv1.DeprecatedRollbackTo]
			if got := d.Spec.Template.Spec.Containers[0].Image; got != image || asks || d.Annotations["deployment.kubernetes.io/revision"] != revision || d.Annotations["example.com/note"] != note {
				w.Errorf("image %s, annotations %v, want %s, revision %s, note %s", got, d.Annotations, image, revision, note)
			}
		}
		want("two", "2", "second")
		w.annotate(appsv1.DeprecatedRollbackTo, "0")
		want("one", "3", "first")
		w.annotate(appsv1.DeprecatedRollbackTo, "2")
		want("two", "4", "second")
		if !w.told("DeploymentRollback") {
			w.Error("no event of the rollback")
		}
	})
}
