// SPDX-License-Identifier: Apache-2.0

package protection_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/protection"
	"kaji/kajitest"
)

// A group goes when its last pod has gone; without the gate pods have none.
func TestGroupsStayWithTheirPods(t *testing.T) {
	api := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { c.Kinds = catalog.WithGroups(catalog.Current()) })).Client()
	ctx, cancel := context.WithCancel(t.Context())
	c := protection.NewGroups(api, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	api.Start(ctx)
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	groups, pods := client.For[*schedulingv1beta1.PodGroup](api), client.For[*corev1.Pod](api)
	group := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "g"}}
	group.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	made, err := groups.Create(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	if p := made.Spec.Priority; len(made.Finalizers) != 1 || p == nil || *p != 0 {
		t.Errorf("made without finalizer or priority: %+v", made)
	}
	name := "g"
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "i"}}, SchedulingGroup: &corev1.PodSchedulingGroup{PodGroupName: &name}}}
	if made, err := pods.Create(ctx, pod); err != nil || made.Spec.SchedulingGroup == nil {
		t.Fatal("the pod is in no group:", err)
	}
	if err := groups.Delete(ctx, "default", "g", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := groups.Get(ctx, "default", "g"); err != nil {
		t.Fatal("the group went before its pod:", err)
	}
	if err := pods.Delete(ctx, "default", "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := groups.Get(ctx, "default", "g"); apierrors.IsNotFound(err) {
			return
		} else if time.Now().After(deadline) {
			t.Fatal("the group is still there:", err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}
