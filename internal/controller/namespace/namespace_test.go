// SPDX-License-Identifier: Apache-2.0

package namespace_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/namespace"
	"kaji/internal/controller/served"
	"kaji/kajitest"
)

// account is the controller's own: the tests run with its rights only.
const account = "namespace-controller"

type world struct {
	*testing.T
	client.Interface
}

// with runs f beside the controller.
func with(t *testing.T, change func(client.Interface, *namespace.Config), f func(w world)) {
	synctest.Test(t, func(t *testing.T) {
		cluster := kajitest.Start(t, kajitest.WithRBAC())
		defer bubble.Allowed(t, cluster, account)
		api := cluster.Client()
		ctx, cancel := context.WithCancel(t.Context())
		cfg := namespace.Config{Client: bubble.Account(cluster, account), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
		if change != nil {
			change(api, &cfg)
		}
		done := make(chan error, 1)
		go func() { done <- namespace.New(cfg).Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		w := world{t, api}
		w.settle()
		if _, err := client.For[*corev1.Namespace](w).Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}); err != nil {
			t.Fatal(err)
		}
		f(w)
	})
}

func (w world) settle() {
	<-time.After(3 * time.Second)
	synctest.Wait()
}

func (w world) config(name string, finalizers ...string) {
	w.Helper()
	if _, err := client.For[*corev1.ConfigMap](w).Create(w.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, Finalizers: finalizers}}); err != nil {
		w.Fatal(err)
	}
}

func (w world) remove() {
	w.Helper()
	if err := client.For[*corev1.Namespace](w).Delete(w.Context(), "", "x", metav1.DeleteOptions{}); err != nil {
		w.Fatal(err)
	}
	w.settle()
}

func (w world) gone() {
	w.Helper()
	if ns, err := client.For[*corev1.Namespace](w).Get(w.Context(), "", "x"); !apierrors.IsNotFound(err) {
		w.Errorf("the namespace is still there: %v %v", ns, err)
	}
}

// says checks the one condition.
func (w world) says(kind corev1.NamespaceConditionType, reason, message string) {
	w.Helper()
	ns, err := client.For[*corev1.Namespace](w).Get(w.Context(), "", "x")
	if err != nil {
		w.Fatal(err)
	}
	for _, c := range ns.Status.Conditions {
		if c.Type == kind && c.Status == corev1.ConditionTrue && c.Reason == reason && strings.Contains(c.Message, message) {
			return
		}
	}
	w.Errorf("conditions are %v, want %s %s %q", ns.Status.Conditions, kind, reason, message)
}

func TestEverythingGoes(t *testing.T) {
	with(t, nil, func(w world) {
		for i := range 100 {
			w.config(fmt.Sprint("c", i))
		}
		w.remove()
		w.gone()
	})
}

func TestFinalizersHold(t *testing.T) {
	with(t, nil, func(w world) {
		w.config("a", "example.com/hold")
		w.config("b")
		w.remove()
		w.says(corev1.NamespaceContentRemaining, "SomeResourcesRemain", "Some resources are remaining: configmaps. has 1 resource instances")
		w.says(corev1.NamespaceFinalizersRemaining, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances")
		if _, err := client.For[*corev1.ConfigMap](w).MergePatch(w.Context(), "x", "a", map[string]any{"metadata": map[string]any{"finalizers": nil}}, ""); err != nil {
			w.Fatal(err)
		}
		<-time.After(10 * time.Second)
		w.settle()
		w.gone()
	})
}

func TestPodsGoFirst(t *testing.T) {
	with(t, nil, func(w world) {
		w.config("a")
		pod, err := client.For[*corev1.Pod](w).Create(w.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p", Finalizers: []string{"example.com/hold"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
		if err != nil {
			w.Fatal(err)
		}
		w.remove()
		if _, err := client.For[*corev1.ConfigMap](w).Get(w.Context(), "x", "a"); err != nil {
			w.Errorf("the pod runs and lost its configuration: %v", err)
		}
		w.says(corev1.NamespaceContentRemaining, "SomeResourcesRemain", "pods. has 1 resource instances")
		if _, err := client.For[*corev1.Pod](w).MergePatch(w.Context(), "x", pod.Name, map[string]any{"metadata": map[string]any{"finalizers": nil}}, ""); err != nil {
			w.Fatal(err)
		}
		<-time.After(10 * time.Second)
		w.settle()
		w.gone()
	})
}

func TestGroupThatIsAway(t *testing.T) {
	var back atomic.Bool
	away := &discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{{Group: "example.com", Version: "v1"}: errors.New("no answer")}}
	with(t, func(api client.Interface, cfg *namespace.Config) {
		ask := served.By(api)
		cfg.Served = func(ctx context.Context) ([]served.Resource, error) {
			all, err := ask(ctx)
			if back.Load() {
				return all, err
			}
			return all, errors.Join(err, away)
		}
	}, func(w world) {
		w.config("a")
		w.remove()
		w.says(corev1.NamespaceDeletionDiscoveryFailure, "DiscoveryFailed", "Discovery failed for some groups, 1 failing: ")
		if _, err := client.For[*corev1.ConfigMap](w).Get(w.Context(), "x", "a"); !apierrors.IsNotFound(err) {
			w.Errorf("what can be deleted is still there: %v", err)
		}
		back.Store(true)
		<-time.After(time.Minute)
		w.settle()
		w.gone()
	})
}
