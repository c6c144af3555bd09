// SPDX-License-Identifier: Apache-2.0

package statefulset_test

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/statefulset"
)

// world is a bubble with a StatefulSet "web" of one pod and one claim.
type world struct {
	*bubble.Bubble
	sets      client.Typed[*appsv1.StatefulSet]
	claims    client.Typed[*corev1.PersistentVolumeClaim]
	revisions client.Typed[*appsv1.ControllerRevision]
}

func run(t *testing.T, policy appsv1.PersistentVolumeClaimRetentionPolicyType, f func(w world)) {
	t.Helper()
	start := func(api client.Interface) []bubble.Controller { return []bubble.Controller{statefulset.New(api, nil)} }
	bubble.RunAs(t, "statefulset-controller", start, func(b *bubble.Bubble) {
		w := world{b, client.For[*appsv1.StatefulSet](b.API), client.For[*corev1.PersistentVolumeClaim](b.API), client.For[*appsv1.ControllerRevision](b.API)}
		labels, one := map[string]string{"app": "a"}, int32(1)
		bubble.Must(w.sets.Create(b.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Finalizers: []string{"kaji.test/hold"}},
			Spec: appsv1.StatefulSetSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: labels},
				PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: policy, WhenScaled: policy},
				Template:                             corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "one"}}}},
				VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}}},
			}}))(b)
		w.Settle()
		f(w)
	})
}

// owners are the owners of the set's claim.
func (w world) owners() []metav1.OwnerReference {
	w.Helper()
	return bubble.Must(w.claims.Get(w.Context(), "default", "data-web-0"))(w.Bubble).OwnerReferences
}

// The claims of a pod that is not ready yet follow the retention policy, too.
func TestPolicyOfUnready(t *testing.T) {
	run(t, appsv1.DeletePersistentVolumeClaimRetentionPolicyType, func(w world) {
		if refs := w.owners(); len(refs) != 1 || refs[0].Kind != "StatefulSet" {
			t.Fatalf("owners %v, want the set", refs)
		}
		retain := map[string]any{"whenDeleted": "Retain", "whenScaled": "Retain"}
		bubble.Must(w.sets.MergePatch(w.Context(), "default", "web", map[string]any{"spec": map[string]any{"persistentVolumeClaimRetentionPolicy": retain}}, ""))(w.Bubble)
		w.Settle()
		if refs := w.owners(); len(refs) != 0 {
			t.Errorf("owners %v, want none", refs)
		}
	})
}

// That a ready pod's claims follow another retention policy is told as an update of
// the pod.
func TestPolicyOfReady(t *testing.T) {
	run(t, appsv1.DeletePersistentVolumeClaimRetentionPolicyType, func(w world) {
		pods := client.For[*corev1.Pod](w.API)
		pod := bubble.Must(pods.Get(w.Context(), "default", "web-0"))(w.Bubble).DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		bubble.Must(pods.UpdateStatus(w.Context(), pod))(w.Bubble)
		w.Settle()
		told := func() bool {
			return slices.ContainsFunc(bubble.Must(client.For[*corev1.Event](w.API).List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble), func(e *corev1.Event) bool {
				return strings.HasPrefix(e.Message, "Update Pod web-0 in StatefulSet web ") // successful, or failed where the answer was lost
			})
		}
		if told() {
			t.Error("an update is told of where there is none")
		}
		retain := map[string]any{"whenDeleted": "Retain", "whenScaled": "Retain"}
		bubble.Must(w.sets.MergePatch(w.Context(), "default", "web", map[string]any{"spec": map[string]any{"persistentVolumeClaimRetentionPolicy": retain}}, ""))(w.Bubble)
		w.Settle()
		if refs := w.owners(); len(refs) != 0 || !told() {
			t.Errorf("owners %v, told %v", refs, told())
		}
	})
}

// A set whose revision was orphaned while it is deleted makes no other one.
func TestOrphanedRevision(t *testing.T) {
	run(t, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, func(w world) {
		if err := w.sets.Delete(w.Context(), "default", "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		all := bubble.Must(w.revisions.List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble)
		if len(all) != 1 {
			t.Fatalf("%d revisions, want one", len(all))
		}
		bubble.Must(w.revisions.MergePatch(w.Context(), "default", all[0].Name, map[string]any{"metadata": map[string]any{"ownerReferences": nil}}, ""))(w.Bubble)
		bubble.Must(w.sets.MergePatch(w.Context(), "default", "web", map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "b"}}}, ""))(w.Bubble)
		w.Settle()
		if all = bubble.Must(w.revisions.List(w.Context(), "default", metav1.ListOptions{}))(w.Bubble); len(all) != 1 || len(all[0].OwnerReferences) != 0 {
			t.Errorf("%d revisions, want the orphan alone", len(all))
		}
	})
}
