// SPDX-License-Identifier: Apache-2.0

package resourcequota_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/resourcequota"
	"kaji/internal/controller/served"
	"kaji/kajitest"
)

// account is the controller's own: the tests run with its rights only.
const account = "resourcequota-controller"

type values map[corev1.ResourceName]string

var widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}

// bench is a cluster with the controller, on the bubble's clock.
type bench struct {
	t *testing.T
	*kajitest.Cluster
	quotas client.Typed[*corev1.ResourceQuota]
	pods   client.Typed[*corev1.Pod]
}

// in runs a test in a bubble.
func in(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		cluster := kajitest.Start(t, kajitest.WithRBAC())
		defer bubble.Allowed(t, cluster, account)
		c := resourcequota.New(resourcequota.Config{Client: bubble.Account(cluster, account), Served: func(context.Context) ([]served.Resource, error) {
			if cluster.Server().Kinds().Resource(widgets) == nil {
				return nil, nil
			}
			return []served.Resource{{GroupVersionResource: widgets, Kind: "Widget", Namespaced: true, Verbs: []string{"list", "watch"}}}, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		defer func() { cancel(); <-done }()
		test(&bench{t, cluster, client.For[*corev1.ResourceQuota](cluster.Client()), client.For[*corev1.Pod](cluster.Client())})
	})
}

func (b *bench) limit(hard values, scopes ...corev1.ResourceQuotaScope) {
	b.t.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{}, Scopes: scopes}}
	for name, v := range hard {
		q.Spec.Hard[name] = resource.MustParse(v)
	}
	if _, err := b.quotas.Create(b.t.Context(), q); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) pod(name string, cpu string) {
	b.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if cpu != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	if _, err := b.pods.Create(b.t.Context(), p); err != nil {
		b.t.Fatal(err)
	}
}

// want compares the status once nothing moves any more.
func (b *bench) want(hard, used values) {
	b.t.Helper()
	time.Sleep(time.Second) // the bubble's clock
	synctest.Wait()
	q, err := b.quotas.Get(b.t.Context(), "default", "q")
	if err != nil {
		b.t.Fatal(err)
	}
	show := func(l corev1.ResourceList) values {
		v := values{}
		for name, q := range l {
			v[name] = q.String()
		}
		return v
	}
	if got, want := fmt.Sprint(show(q.Status.Hard)), fmt.Sprint(hard); got != want {
		b.t.Errorf("hard: got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(show(q.Status.Used)), fmt.Sprint(used); got != want {
		b.t.Errorf("used: got %s, want %s", got, want)
	}
}

// Raised limits show in the status, with a count of what is new.
func TestChangedLimits(t *testing.T) {
	in(t, func(b *bench) {
		maps := client.For[*corev1.ConfigMap](b.Client())
		if _, err := maps.Create(b.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}}); err != nil {
			b.t.Fatal(err)
		}
		b.limit(values{"configmaps": "3"})
		b.want(values{"configmaps": "3"}, values{"configmaps": "1"})
		if _, err := b.quotas.MergePatch(b.t.Context(), "default", "q", map[string]any{"spec": map[string]any{"hard": values{"configmaps": "7", "secrets": "2", "count/services": "1"}}}, ""); err != nil {
			b.t.Fatal(err)
		}
		b.want(values{"configmaps": "7", "secrets": "2", "count/services": "1"}, values{"configmaps": "1", "secrets": "0", "count/services": "0"})
	})
}

// Pods that end or go give back what they had, at once.
func TestPodsGiveBack(t *testing.T) {
	in(t, func(b *bench) {
		b.pod("a", "100m")
		b.pod("b", "200m")
		hard := values{"pods": "5", "requests.cpu": "1", "count/pods": "9"}
		b.limit(hard)
		b.want(hard, values{"pods": "2", "requests.cpu": "300m", "count/pods": "2"})
		if _, err := b.pods.MergePatch(b.t.Context(), "default", "a", map[string]any{"status": map[string]any{"phase": "Succeeded"}}, "status"); err != nil {
			b.t.Fatal(err)
		}
		b.want(hard, values{"pods": "1", "requests.cpu": "200m", "count/pods": "2"})
		for _, name := range []string{"a", "b"} {
			if err := b.pods.Delete(b.t.Context(), "default", name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
				b.t.Fatal(err)
			}
		}
		b.want(hard, values{"pods": "0", "requests.cpu": "0", "count/pods": "0"})
	})
}

func TestScope(t *testing.T) {
	in(t, func(b *bench) {
		b.pod("idle", "")
		b.pod("busy", "1m")
		b.limit(values{"pods": "5"}, corev1.ResourceQuotaScopeBestEffort)
		b.want(values{"pods": "5"}, values{"pods": "1"})
	})
}

// What the count of new limits missed, as late informers do, is there soon.
func TestSecondCount(t *testing.T) {
	in(t, func(b *bench) {
		b.pod("a", "")
		b.limit(values{"pods": "5"})
		b.want(values{"pods": "5"}, values{"pods": "1"})
		if _, err := b.quotas.MergePatch(b.t.Context(), "default", "q", map[string]any{"status": map[string]any{"used": values{"pods": "0"}}}, "status"); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		b.want(values{"pods": "5"}, values{"pods": "1"})
	})
}

// A count that falls between the charge and the object it is for takes nothing
// back: somebody else would get it.
func TestChargeBeforeObject(t *testing.T) {
	in(t, func(b *bench) {
		b.pod("a", "")
		b.limit(values{"pods": "5"})
		b.want(values{"pods": "5"}, values{"pods": "1"})
		time.Sleep(5 * time.Second)
		if _, err := b.quotas.MergePatch(b.t.Context(), "default", "q", map[string]any{"status": map[string]any{"used": values{"pods": "2"}}}, "status"); err != nil {
			b.t.Fatal(err)
		}
		if err := b.pods.Delete(b.t.Context(), "default", "a", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		q, err := b.quotas.Get(b.t.Context(), "default", "q")
		if err != nil {
			b.t.Fatal(err)
		}
		if pods := q.Status.Used[corev1.ResourcePods]; pods.String() != "2" {
			t.Errorf("the count made %s of what was charged", pods.String())
		}
		b.want(values{"pods": "5"}, values{"pods": "0"})
	})
}

// A wrong status is corrected when all quotas are counted afresh.
func TestCorrection(t *testing.T) {
	in(t, func(b *bench) {
		b.limit(values{"pods": "5"})
		b.want(values{"pods": "5"}, values{"pods": "0"})
		time.Sleep(5 * time.Second)
		if _, err := b.quotas.MergePatch(b.t.Context(), "default", "q", map[string]any{"status": map[string]any{"used": values{"pods": "4"}}}, "status"); err != nil {
			b.t.Fatal(err)
		}
		b.want(values{"pods": "5"}, values{"pods": "4"})
		time.Sleep(5 * time.Minute)
		b.want(values{"pods": "5"}, values{"pods": "0"})
	})
}

// Objects of a kind that is defined after the quota are counted, too; what
// nothing measures has no usage.
func TestCustomResources(t *testing.T) {
	in(t, func(b *bench) {
		hard := values{"count/widgets.example.com": "3", "count/nothing.example.com": "1"}
		b.limit(hard)
		b.want(hard, values{})
		crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com"}}
		crd.Spec = apiextensionsv1.CustomResourceDefinitionSpec{
			Group: widgets.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Kind: "Widget"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}}}},
		}
		definitions := client.Resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}
		if _, err := b.Client().Create(b.t.Context(), definitions, "", crd, metav1.CreateOptions{}); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(time.Minute)
		b.want(hard, values{"count/widgets.example.com": "0"})
		w := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": "w"}}}
		r := client.Resource{GroupVersionResource: widgets, Namespace: "default"}
		if _, err := b.Client().Create(b.t.Context(), r, "", w, metav1.CreateOptions{}); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		b.want(hard, values{"count/widgets.example.com": "1"})
		if err := b.Client().Delete(b.t.Context(), r, "w", metav1.DeleteOptions{}); err != nil {
			b.t.Fatal(err)
		}
		b.want(hard, values{"count/widgets.example.com": "0"})
	})
}
