// SPDX-License-Identifier: Apache-2.0

package object_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/apiserver/object"
	"kaji/internal/client"
	"kaji/internal/store"
	"kaji/kajitest"
)

func configMap(name string, finalizers ...string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Finalizers: finalizers}}
}

func TestFinalizersHoldAnObject(t *testing.T) {
	ctx := t.Context()
	maps := client.For[*corev1.ConfigMap](kajitest.Start(t).Client())
	if _, err := maps.Create(ctx, configMap("a", "example.com/hold")); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(ctx, "default", "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	held, err := maps.Get(ctx, "default", "a")
	if err != nil || held.DeletionTimestamp == nil || *held.DeletionGracePeriodSeconds != 0 {
		t.Fatalf("held object is %+v, %v", held, err)
	}
	if _, err := maps.MergePatch(ctx, "default", "a", map[string]any{"metadata": map[string]any{"finalizers": nil}}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Get(ctx, "default", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("after the last finalizer: %v", err)
	}
}

func TestPropagationPolicyBecomesFinalizer(t *testing.T) {
	for policy, finalizer := range map[metav1.DeletionPropagation]string{
		metav1.DeletePropagationForeground: metav1.FinalizerDeleteDependents,
		metav1.DeletePropagationOrphan:     metav1.FinalizerOrphanDependents,
	} {
		ctx := t.Context()
		maps := client.For[*corev1.ConfigMap](kajitest.Start(t).Client())
		if _, err := maps.Create(ctx, configMap("a")); err != nil {
			t.Fatal(err)
		}
		if err := maps.Delete(ctx, "default", "a", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
			t.Fatal(err)
		}
		got, err := maps.Get(ctx, "default", "a")
		if err != nil || len(got.Finalizers) != 1 || got.Finalizers[0] != finalizer {
			t.Errorf("%s: %v, %v", policy, got, err)
		}
	}
}

func TestPreconditions(t *testing.T) {
	ctx := t.Context()
	maps := client.For[*corev1.ConfigMap](kajitest.Start(t).Client())
	made, err := maps.Create(ctx, configMap("a"))
	if err != nil {
		t.Fatal(err)
	}
	err = maps.Delete(ctx, "default", "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(types.UID("other"))}})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "the UID in the precondition (other) does not match the UID in record") {
		t.Errorf("other uid: %v", err)
	}
	if err := maps.Delete(ctx, "default", "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &made.UID, ResourceVersion: &made.ResourceVersion}}); err != nil {
		t.Error(err)
	}
}

func TestWriteWithoutChangeKeepsTheRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		maps := client.For[*corev1.ConfigMap](kajitest.Start(t).Client())
		made, err := maps.Create(ctx, configMap("a"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := maps.Update(ctx, made.DeepCopy())
		if err != nil || again.ResourceVersion != made.ResourceVersion {
			t.Errorf("revision %s, then %s, %v", made.ResourceVersion, again.ResourceVersion, err)
		}
	})
}

func TestConcurrentPatchesAllCount(t *testing.T) {
	ctx := t.Context()
	maps := client.For[*corev1.ConfigMap](kajitest.Start(t).Client())
	if _, err := maps.Create(ctx, configMap("a")); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for i := range 16 {
		writers.Go(func() {
			patch := map[string]any{"data": map[string]string{fmt.Sprint(i): "x"}}
			if _, err := maps.MergePatch(ctx, "default", "a", patch, ""); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	got, err := maps.Get(ctx, "default", "a")
	if err != nil || len(got.Data) != 16 {
		t.Errorf("%d keys, %v", len(got.Data), err)
	}
}

func TestGenerationCountsChangesOfTheSpec(t *testing.T) {
	ctx := t.Context()
	deployments := client.For[*appsv1.Deployment](kajitest.Start(t).Client())
	labels := map[string]string{"app": "a"}
	d, err := deployments.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Generation: 9},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			},
		},
	})
	if err != nil || d.Generation != 1 {
		t.Fatalf("generation %d, %v", d.Generation, err)
	}
	next := d.DeepCopy()
	next.Status.Replicas = 3
	if d, err = deployments.UpdateStatus(ctx, next); err != nil || d.Generation != 1 || d.Status.Replicas != 3 {
		t.Fatalf("after status: %+v, %v", d, err)
	}
	next = d.DeepCopy()
	next.Spec.Replicas = ptr.To[int32](2)
	next.Status.Replicas = 5
	if d, err = deployments.Update(ctx, next); err != nil || d.Generation != 2 || d.Status.Replicas != 3 {
		t.Errorf("after spec: %+v, %v", d, err)
	}
}

func TestNamespaceIsHeldBySpecFinalizers(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t).Client()
	namespaces := client.For[*corev1.Namespace](c)
	if _, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "z"}}); err != nil {
		t.Fatal(err)
	}
	if err := namespaces.Delete(ctx, "", "z", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	held, err := namespaces.Get(ctx, "", "z")
	if err != nil || held.Status.Phase != corev1.NamespaceTerminating || held.DeletionTimestamp == nil {
		t.Fatalf("deleted namespace is %+v, %v", held, err)
	}
	done := held.DeepCopy()
	done.Spec.Finalizers = nil
	r := namespaces.Resource("")
	r.Subresource = "finalize"
	if _, err := c.Update(ctx, r, "z", done, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := namespaces.Get(ctx, "", "z"); !apierrors.IsNotFound(err) {
		t.Errorf("after finalize: %v", err)
	}
}

func TestManager(t *testing.T) {
	for _, tc := range [][3]string{
		{"me", "kubectl/v1", "me"},
		{"", "kubectl/v1.37 (linux)", "kubectl"},
		{"", "a\x01b/1", "ab"},
		{"", "", "unknown"},
		{"", "/1", "unknown"},
	} {
		if got := object.Manager(tc[0], tc[1]); got != tc[2] {
			t.Errorf("%q, %q: %q", tc[0], tc[1], got)
		}
	}
	if got := object.Manager("", strings.Repeat("x", 500)); len(got) != 128 {
		t.Errorf("%d characters", len(got))
	}
}

// Causes of a refused update are told once, in spite of being found twice,
// except of those kinds whose reference tells them again.
func TestMetadataErrors(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t).Client()
	maps := client.For[*corev1.ConfigMap](c)
	if _, err := maps.Create(ctx, configMap("a")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		metadata map[string]any
		want     []string
	}{
		{map[string]any{"labels": map[string]any{"bad key!": "x"}}, []string{"metadata.labels"}},
		{map[string]any{"finalizers": []any{"bad"}}, []string{"metadata.finalizers[0]"}},
		{map[string]any{"ownerReferences": []any{map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "x"}}}, []string{"metadata.ownerReferences[0].uid"}},
	} {
		_, err := maps.MergePatch(ctx, "default", "a", map[string]any{"metadata": test.metadata}, "")
		var status *apierrors.StatusError
		if !errors.As(err, &status) || status.ErrStatus.Details == nil {
			t.Fatalf("%v: %v", test.metadata, err)
		}
		var got []string
		for _, cause := range status.ErrStatus.Details.Causes {
			got = append(got, cause.Field)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%v: causes in %q, want %q", test.metadata, got, test.want)
		}
	}
}

// Both groups of events serve the same objects, each in its own shape and
// under its own name.
func TestEventsOfBothGroups(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t).Client()
	events := client.For[*eventsv1.Event](c)
	made, err := events.Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"}, EventTime: metav1.NowMicro(), Type: "Normal",
		Reason: "R", Action: "A", ReportingController: "example.com/c", ReportingInstance: "i", Note: "n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.ManagedFields) != 1 || made.ManagedFields[0].APIVersion != "events.k8s.io/v1" || !strings.Contains(string(made.ManagedFields[0].FieldsV1.Raw), "f:note") {
		t.Errorf("managed fields %+v", made.ManagedFields)
	}
	if core, err := client.For[*corev1.Event](c).Get(ctx, "default", "e"); err != nil || core.Message != "n" {
		t.Errorf("in the core group: %+v, %v", core, err)
	}
	// Through events.k8s.io only the series may change.
	if _, err := events.MergePatch(ctx, "default", "e", map[string]any{"note": "other"}, ""); !apierrors.IsInvalid(err) {
		t.Errorf("a changed note: %v", err)
	}
	want := `events.events.k8s.io "nope" not found`
	if _, err := events.Get(ctx, "default", "nope"); err == nil || err.Error() != want {
		t.Errorf("an absent event: %v, want %s", err, want)
	}
}

// A pod that is deleted at once is marked first: watchers see both.
func TestDeletionAtOnceIsMarkedFirst(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t).Client()
	pods := client.For[*corev1.Pod](c)
	made, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "img"}}, ServiceAccountName: "default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Watch(ctx, pods.Resource("default"), metav1.ListOptions{ResourceVersion: made.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := pods.Delete(ctx, "default", "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Modified, watch.Deleted} {
		event := <-w.ResultChan()
		pod, ok := event.Object.(*corev1.Pod)
		if event.Type != want || !ok || pod.DeletionTimestamp == nil || pod.Generation != 2 {
			t.Fatalf("got %s %+v, want %s of a marked pod", event.Type, event.Object, want)
		}
	}
}

// TestDeletionAtOnceOfAVersion claims that the mark of a deletion is not taken
// for a change by somebody else.
func TestDeletionAtOnceOfAVersion(t *testing.T) {
	ctx := t.Context()
	pods := client.For[*corev1.Pod](kajitest.Start(t).Client())
	made, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	if err != nil {
		t.Fatal(err)
	}
	opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &made.UID, ResourceVersion: &made.ResourceVersion}}
	if err := pods.Delete(ctx, "default", "p", opts); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Get(ctx, "default", "p"); !apierrors.IsNotFound(err) {
		t.Errorf("the pod is still there: %v", err)
	}
}

// hasty is a store in which somebody removes an object as soon as it is marked, as
// a node's agent does.
type hasty struct {
	store.Store
	suffix string
	marked atomic.Bool
}

func (h *hasty) Commit(ctx context.Context, t store.Txn) (*store.TxnResult, error) {
	res, err := h.Store.Commit(ctx, t)
	if err == nil && res.Succeeded && strings.HasSuffix(t.Ops[0].Key, h.suffix) && len(t.Guards) > 0 && t.Guards[0].ModRevision > 0 {
		h.marked.Store(true)
	}
	return res, err
}

func (h *hasty) Get(ctx context.Context, key string) (store.KeyValue, bool, int64, error) {
	if strings.HasSuffix(key, h.suffix) && h.marked.Swap(false) {
		if _, err := h.Store.Commit(ctx, store.Txn{Ops: []store.Op{{Key: key, Delete: true}}}); err != nil {
			return store.KeyValue{}, false, 0, err
		}
	}
	return h.Store.Get(ctx, key)
}

// A deletion that somebody else finishes after the mark has succeeded.
func TestDeletionFinishedByAnother(t *testing.T) {
	h := &hasty{suffix: "/pods/default/p"}
	cluster := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { h.Store, c.Store = c.Store, h }))
	pods := client.For[*corev1.Pod](cluster.Client())
	if _, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}); err != nil {
		t.Fatal(err)
	}
	if err := pods.Delete(t.Context(), "default", "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := pods.Get(t.Context(), "default", "p"); !apierrors.IsNotFound(err) {
		t.Errorf("the pod is still there: %v", err)
	}
}

func TestDryRunAnswersWhatWouldBeStored(t *testing.T) {
	ctx := t.Context()
	c := kajitest.Start(t).Client()
	maps := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("configmaps"), Namespace: "default"}
	m := configMap("a")
	m.BinaryData = map[string][]byte{"none": nil}
	obj, err := c.Create(ctx, maps, "", m, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	if got := obj.(*corev1.ConfigMap).BinaryData["none"]; got == nil {
		t.Error("a value that is stored as empty is answered as null")
	}
}
