// SPDX-License-Identifier: Apache-2.0

package kajitest_test

import (
	"testing"
	"testing/synctest"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"kaji/internal/client"
	"kaji/kajitest"
)

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Data:       map[string]string{"k": value},
	}
}

func TestOverHTTPS(t *testing.T) {
	ctx := t.Context()
	cs := kubernetes.NewForConfigOrDie(kajitest.Start(t).RESTConfig())
	maps := cs.CoreV1().ConfigMaps("default")
	w, err := maps.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	made, err := maps.Create(ctx, configMap("a", "1"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if made.UID == "" || made.ResourceVersion == "" || made.CreationTimestamp.IsZero() {
		t.Errorf("created without system fields: %+v", made.ObjectMeta)
	}
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*corev1.ConfigMap).ResourceVersion != made.ResourceVersion {
		t.Errorf("first event is %v %v", e.Type, e.Object)
	}
	if _, err := maps.Create(ctx, configMap("a", "1"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	made.Data["k"] = "2"
	changed, err := maps.Update(ctx, made, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("stale update: %v", err)
	}
	for kind, patch := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"add","path":"/data/json","value":"y"}]`,
		types.MergePatchType:          `{"data":{"merge":"y"}}`,
		types.StrategicMergePatchType: `{"data":{"strategic":"y"}}`,
	} {
		if changed, err = maps.Patch(ctx, "a", kind, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	if len(changed.Data) != 4 {
		t.Errorf("after patches: %v", changed.Data)
	}
	applied, err := maps.Apply(ctx, applycorev1.ConfigMap("a", "default").WithData(map[string]string{"applied": "y"}), metav1.ApplyOptions{FieldManager: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if applied.Data["applied"] != "y" || len(applied.ManagedFields) < 2 {
		t.Errorf("after apply: %v %v", applied.Data, applied.ManagedFields)
	}
	_, err = maps.Apply(ctx, applycorev1.ConfigMap("a", "default").WithData(map[string]string{"k": "3"}), metav1.ApplyOptions{FieldManager: "me"})
	if !apierrors.IsConflict(err) {
		t.Errorf("apply of somebody else's field: %v", err)
	}
	list, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("list: %v %v", list, err)
	}
	if err := maps.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get after delete: %v", err)
	}
}

func TestInProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		cluster := kajitest.Start(t)
		maps := client.For[*corev1.ConfigMap](cluster.Client())
		if !client.WaitForSync(ctx, maps.Informer()) {
			t.Fatal("informer not synced")
		}
		made, err := maps.Create(ctx, configMap("a", "1"))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cached, err := maps.Cached("default", "a")
		if err != nil || cached.UID != made.UID {
			t.Fatalf("informer has %v, %v", cached, err)
		}
		if _, err := maps.MergePatch(ctx, "default", "a", map[string]any{"data": map[string]string{"k": "2"}}, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if cached, _ = maps.Cached("default", "a"); cached.Data["k"] != "2" {
			t.Errorf("informer has %v", cached.Data)
		}
		cluster.Reset()
		synctest.Wait()
		if left := maps.CachedList("", nil); len(left) != 0 {
			t.Errorf("after reset: %v", left)
		}
	})
}

// A client acts as another user, as operators under test do.
func TestImpersonation(t *testing.T) {
	config := kajitest.Start(t).RESTConfig()
	config.Impersonate.UserName = "zoe"
	who, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := who.Status.UserInfo.Username; got != "zoe" {
		t.Errorf("acts as %q", got)
	}
}
