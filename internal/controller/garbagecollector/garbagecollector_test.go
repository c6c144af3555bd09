// SPDX-License-Identifier: Apache-2.0

package garbagecollector_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/garbagecollector"
	"kaji/kajitest"
)

// account is the controller's own: the tests run with its rights only.
const account = "generic-garbage-collector"

type world struct {
	*testing.T
	client.Interface
}

// collect runs f beside a collector.
func collect(t *testing.T, f func(w world)) {
	synctest.Test(t, func(t *testing.T) {
		cluster := kajitest.Start(t, kajitest.WithRBAC())
		defer bubble.Allowed(t, cluster, account)
		api := cluster.Client()
		ctx, cancel := context.WithCancel(t.Context())
		c := garbagecollector.New(garbagecollector.Config{Client: bubble.Account(cluster, account), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		w := world{t, api}
		w.settle()
		f(w)
	})
}

func (w world) settle() {
	<-time.After(2 * time.Second)
	synctest.Wait()
}

func (w world) config(name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
	w.Helper()
	cm, err := client.For[*corev1.ConfigMap](w).Create(w.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, OwnerReferences: owners}})
	if err != nil {
		w.Fatal(err)
	}
	return cm
}

func refer(cm *corev1.ConfigMap, block bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID, BlockOwnerDeletion: ptr.To(block)}
}

func (w world) remove(name string, policy metav1.DeletionPropagation) {
	w.Helper()
	if err := client.For[*corev1.ConfigMap](w).Delete(w.Context(), "default", name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		w.Fatal(err)
	}
}

func (w world) there(name string) *corev1.ConfigMap {
	w.Helper()
	cm, err := client.For[*corev1.ConfigMap](w).Get(w.Context(), "default", name)
	if err != nil {
		w.Errorf("%s: %v", name, err)
	}
	return cm
}

func (w world) gone(names ...string) {
	w.Helper()
	for _, name := range names {
		if _, err := client.For[*corev1.ConfigMap](w).Get(w.Context(), "default", name); !apierrors.IsNotFound(err) {
			w.Errorf("%s is still there (%v)", name, err)
		}
	}
}

func TestBackground(t *testing.T) {
	collect(t, func(w world) {
		a := w.config("a")
		b := w.config("b", refer(a, true))
		w.config("c", refer(b, false))
		w.config("other", refer(w.config("stays"), true))
		w.settle()
		w.remove("a", metav1.DeletePropagationBackground)
		w.settle()
		w.gone("a", "b", "c")
		w.there("other")
	})
}

func TestForeground(t *testing.T) {
	collect(t, func(w world) {
		a := w.config("a")
		b := w.config("b", refer(a, true))
		w.config("c", refer(b, true))
		held := w.config("held", refer(b, true))
		if _, err := client.For[*corev1.ConfigMap](w).MergePatch(w.Context(), "default", "held", map[string]any{"metadata": map[string]any{"finalizers": []string{"example.com/hold"}}}, ""); err != nil {
			w.Fatal(err)
		}
		w.settle()
		w.remove("a", metav1.DeletePropagationForeground)
		w.settle()
		w.gone("c")
		if w.there("a").DeletionTimestamp == nil || w.there("b").DeletionTimestamp == nil || w.there(held.Name).DeletionTimestamp == nil {
			w.Error("the owners do not wait in deletion")
		}
		if _, err := client.For[*corev1.ConfigMap](w).MergePatch(w.Context(), "default", "held", map[string]any{"metadata": map[string]any{"finalizers": nil}}, ""); err != nil {
			w.Fatal(err)
		}
		w.settle()
		w.gone("a", "b", "held")
	})
}

func TestForegroundWithoutBlocking(t *testing.T) {
	collect(t, func(w world) {
		a := w.config("a")
		w.config("b", refer(a, false))
		w.settle()
		w.remove("a", metav1.DeletePropagationForeground)
		w.settle()
		w.gone("a", "b")
	})
}

func TestForegroundCircle(t *testing.T) {
	collect(t, func(w world) {
		a := w.config("a")
		b := w.config("b", refer(a, true))
		if _, err := client.For[*corev1.ConfigMap](w).MergePatch(w.Context(), "default", "a", map[string]any{"metadata": map[string]any{"ownerReferences": []any{refer(b, true)}}}, ""); err != nil {
			w.Fatal(err)
		}
		w.settle()
		w.remove("a", metav1.DeletePropagationForeground)
		w.settle()
		w.gone("a", "b")
	})
}

func TestOrphan(t *testing.T) {
	collect(t, func(w world) {
		a, keep := w.config("a"), w.config("keep")
		w.config("b", refer(a, true))
		w.config("c", refer(a, true), refer(keep, false))
		w.settle()
		w.remove("a", metav1.DeletePropagationOrphan)
		w.settle()
		w.gone("a")
		if refs := w.there("b").OwnerReferences; len(refs) != 0 {
			w.Errorf("b refers to %v", refs)
		}
		if refs := w.there("c").OwnerReferences; len(refs) != 1 || refs[0].Name != "keep" {
			w.Errorf("c refers to %v", refs)
		}
	})
}

func TestOneOwnerLeft(t *testing.T) {
	collect(t, func(w world) {
		a, b := w.config("a"), w.config("b")
		w.config("c", refer(a, true), refer(b, true))
		w.settle()
		w.remove("a", metav1.DeletePropagationBackground)
		w.settle()
		if refs := w.there("c").OwnerReferences; len(refs) != 1 || refs[0].Name != "b" {
			w.Errorf("c refers to %v", refs)
		}
	})
}

func TestAbsentOwners(t *testing.T) {
	collect(t, func(w world) {
		w.config("a", metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "never", UID: "0"})
		w.config("reborn")
		w.config("b", metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "reborn", UID: "0"})
		w.config("unknown", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Nothing", Name: "x", UID: "1"})
		w.settle()
		w.gone("a", "b")
		w.there("unknown") // its owner cannot be judged
	})
}

func TestOwnerInAnotherNamespace(t *testing.T) {
	collect(t, func(w world) {
		if _, err := client.For[*corev1.Namespace](w).Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "far"}}); err != nil {
			w.Fatal(err)
		}
		owner, err := client.For[*corev1.ConfigMap](w).Create(w.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "far", Name: "o"}})
		if err != nil {
			w.Fatal(err)
		}
		w.settle()
		w.config("a", refer(owner, true))
		w.settle()
		w.gone("a")
		events, err := client.For[*corev1.Event](w).List(w.Context(), "default", metav1.ListOptions{})
		if err != nil {
			w.Fatal(err)
		}
		want := fmt.Sprintf("ownerRef [v1/ConfigMap, namespace: default, name: o, uid: %s] does not exist in namespace \"default\"", owner.UID)
		if len(events) != 1 || events[0].Reason != "OwnerRefInvalidNamespace" || events[0].Message != want {
			w.Errorf("events: %v", events)
		}
	})
}

func TestCustomResources(t *testing.T) {
	collect(t, func(w world) {
		crd := &apiextensionsv1.CustomResourceDefinition{
			TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
			ObjectMeta: metav1.ObjectMeta{Name: "things.example.com"},
			Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
				Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "things", Kind: "Thing"},
				Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
					Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}}}}}}
		definitions := client.Resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}
		if _, err := w.Create(w.Context(), definitions, "", crd, metav1.CreateOptions{}); err != nil {
			w.Fatal(err)
		}
		w.settle()
		things := client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "things"}, Namespace: "default"}
		thing := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": "t", "namespace": "default"}}}
		made, err := w.Create(w.Context(), things, "", thing, metav1.CreateOptions{})
		if err != nil {
			w.Fatal(err)
		}
		w.config("a", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Thing", Name: "t", UID: made.(*unstructured.Unstructured).GetUID()})
		w.settle()
		w.there("a")
		if err := w.Delete(w.Context(), things, "t", metav1.DeleteOptions{}); err != nil {
			w.Fatal(err)
		}
		w.settle()
		w.gone("a")
	})
}

func TestManyDependents(t *testing.T) {
	collect(t, func(w world) {
		a := w.config("a")
		for i := range 2000 {
			w.config(fmt.Sprint("d", i), refer(a, true))
		}
		w.settle()
		w.remove("a", metav1.DeletePropagationForeground)
		w.settle()
		left, err := client.For[*corev1.ConfigMap](w).List(w.Context(), "default", metav1.ListOptions{})
		if err != nil {
			w.Fatal(err)
		}
		for _, cm := range left {
			if cm.Name == "a" || cm.Name[0] == 'd' {
				w.Errorf("%s is left", cm.Name)
			}
		}
	})
}

// A reference that names an owner's UID under another kind or name leads nowhere,
// and says nothing of the owner itself.
func TestOwnerUnderAnotherName(t *testing.T) {
	collect(t, func(w world) {
		owner := w.config("owner")
		other, absent := refer(owner, false), refer(owner, false)
		other.Kind = "Secret"
		w.config("of-a-secret", other)
		w.settle()
		other = refer(owner, false)
		other.Name = "not-the-owner"
		w.config("of-another-name", other)
		w.settle()
		absent.Name, absent.UID = "absent", "c3f9d3a4-0000-0000-0000-000000000000"
		w.config("dependent", refer(owner, false), absent)
		w.settle()
		w.gone("of-a-secret", "of-another-name")
		if cm := w.there("dependent"); len(cm.OwnerReferences) != 1 || cm.OwnerReferences[0].UID != owner.UID {
			t.Errorf("owners %v", cm.OwnerReferences)
		}
	})
}
