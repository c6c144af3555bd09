// SPDX-License-Identifier: Apache-2.0

package object_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/store"
	"kaji/kajitest"
)

// What cannot be decoded makes its kind unreadable, and who is told to may remove
// it, finalizers or not; nothing else is removed so.
func TestDeletionOfTheUnreadable(t *testing.T) {
	var kept store.Store
	cluster := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { kept = c.Store }))
	maps := kubernetes.NewForConfigOrDie(cluster.RESTConfig()).CoreV1().ConfigMaps("default")
	ctx := t.Context()
	for _, name := range []string{"bad", "good"} {
		if _, err := maps.Create(ctx, configMap(name, "example.com/hold"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	const key = "/registry/configmaps/default/bad"
	garbage := []byte("k8s\x00garbage")
	if _, err := kept.Commit(ctx, store.Txn{Ops: []store.Op{{Key: key, Value: garbage}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := maps.List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("a list passes over what it cannot read")
	}
	if err := maps.Delete(ctx, "bad", metav1.DeleteOptions{}); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "illegal wireType") {
		t.Errorf("plain deletion: %v", err)
	}
	anyway := metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr.To(true)}
	if err := maps.Delete(ctx, "none", anyway); !apierrors.IsNotFound(err) {
		t.Errorf("nothing there: %v", err)
	}
	if err := maps.Delete(ctx, "good", anyway); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "unsafe deletion is not allowed") {
		t.Errorf("what can be read: %v", err)
	}
	dry := anyway
	dry.DryRun = []string{metav1.DryRunAll}
	if err := maps.Delete(ctx, "bad", dry); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if _, there, _, err := kept.Get(ctx, key); err != nil || !there {
		t.Errorf("after a dry run: %v, %v", there, err)
	}
	if err := maps.Delete(ctx, "bad", anyway); err != nil {
		t.Fatalf("unsafe deletion: %v", err)
	}
	list, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil || has(list, "bad") || !has(list, "good") {
		t.Errorf("afterwards: %v, %v", list, err)
	}
}

func has(list *corev1.ConfigMapList, name string) bool {
	for i := range list.Items {
		if list.Items[i].Name == name {
			return true
		}
	}
	return false
}
