// SPDX-License-Identifier: Apache-2.0

package storageversionmigrator_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
	"kaji/internal/controller/storageversionmigrator"
	"kaji/internal/store"
	"kaji/kajitest"
)

// reachable is a client with a way to the server's discovery, which is told of
// each look at it.
type reachable struct {
	client.Interface
	config *rest.Config
	looks  chan<- struct{}
}

func (r reachable) RESTConfig() *rest.Config {
	select {
	case r.looks <- struct{}{}:
	default:
	}
	return r.config
}

func start(t *testing.T) *kajitest.Cluster {
	cluster, _ := startAt(t, time.Now)
	return cluster
}

// startAt runs a controller with a clock of its own. The channel holds the
// looks at what is served.
func startAt(t *testing.T, now func() time.Time) (*kajitest.Cluster, <-chan struct{}) {
	t.Helper()
	cluster := kajitest.Start(t)
	looks := make(chan struct{}, 16)
	c := storageversionmigrator.New(reachable{cluster.Client(), cluster.RESTConfig(), looks}, slog.New(slog.DiscardHandler))
	c.SetClock(now)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return cluster, looks
}

var crds = client.Resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}

// until watches a resource until an event suits.
func until(t *testing.T, c *kajitest.Cluster, r client.Resource, suits func(watch.Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w, err := c.Client().Watch(ctx, r, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if suits(e) {
			return
		}
	}
	t.Fatal("the watch ended")
}

// migrate starts a migration and returns it when it has ended.
func migrate(t *testing.T, c *kajitest.Cluster, of metav1.GroupResource) *storagemigrationv1.StorageVersionMigration {
	t.Helper()
	create(t, c, "m", of)
	return end(t, c, "m")
}

// create starts a migration.
func create(t *testing.T, c *kajitest.Cluster, name string, of metav1.GroupResource) {
	t.Helper()
	migrations := client.For[*storagemigrationv1.StorageVersionMigration](c.Client())
	if _, err := migrations.Create(t.Context(), &storagemigrationv1.StorageVersionMigration{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagemigrationv1.StorageVersionMigrationSpec{Resource: of},
	}); err != nil {
		t.Fatal(err)
	}
}

// end waits for the end of a migration.
func end(t *testing.T, c *kajitest.Cluster, name string) *storagemigrationv1.StorageVersionMigration {
	t.Helper()
	migrations := client.For[*storagemigrationv1.StorageVersionMigration](c.Client())
	var last *storagemigrationv1.StorageVersionMigration
	until(t, c, migrations.Resource(""), func(e watch.Event) bool {
		last = e.Object.(*storagemigrationv1.StorageVersionMigration)
		return last.Name == name && (meta.IsStatusConditionTrue(last.Status.Conditions, "Succeeded") || meta.IsStatusConditionTrue(last.Status.Conditions, "Failed"))
	})
	return last
}

// stored are the versions that the objects of a group are stored in.
func stored(t *testing.T, c *kajitest.Cluster, group string) []string {
	t.Helper()
	prefix := "/registry/" + group + "/"
	all, err := c.Store().Range(t.Context(), store.Range{Start: prefix, End: store.PrefixEnd(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, kv := range all.KVs {
		for _, v := range []string{"v1", "v2"} {
			if strings.Contains(string(kv.Value), fmt.Sprintf(`"apiVersion":"%s/%s"`, group, v)) && !slices.Contains(versions, v) {
				versions = append(versions, v)
			}
		}
	}
	slices.Sort(versions)
	return versions
}

// definition defines widgets in two versions, stored in the first.
func definition() *apiextensionsv1.CustomResourceDefinition {
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com"}}
	crd.Spec = apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
		Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Kind: "Widget"}}
	for _, v := range []string{"v1", "v2"} {
		crd.Spec.Versions = append(crd.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{Name: v, Served: true, Storage: v == "v1",
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}}})
	}
	return crd
}

// After a migration all objects are stored in the new version, and the
// definition knows of no other.
func TestCustomResources(t *testing.T) {
	c := start(t)
	crd := definition()
	if _, err := c.Client().Create(t.Context(), crds, "", crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	current := func(e watch.Event) *apiextensionsv1.CustomResourceDefinition {
		return e.Object.(*apiextensionsv1.CustomResourceDefinition)
	}
	until(t, c, crds, func(e watch.Event) bool {
		return slices.ContainsFunc(current(e).Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
		})
	})
	widgets := client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}, Namespace: "default"}
	for i := range 3 {
		w := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": fmt.Sprint("w", i)}}}
		if _, err := c.Client().Create(t.Context(), widgets, "", w, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	obj, err := c.Client().Get(t.Context(), crds, crd.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	next := obj.(*apiextensionsv1.CustomResourceDefinition).DeepCopy()
	next.Spec.Versions[0].Storage, next.Spec.Versions[1].Storage = false, true
	if _, err := c.Client().Update(t.Context(), crds, crd.Name, next, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, c, crds, func(e watch.Event) bool { return slices.Equal(current(e).Status.StoredVersions, []string{"v1", "v2"}) })
	if got := stored(t, c, "example.com"); !slices.Equal(got, []string{"v1"}) {
		t.Fatalf("stored before: %v", got)
	}
	m := migrate(t, c, metav1.GroupResource{Group: "example.com", Resource: "widgets"})
	if !meta.IsStatusConditionTrue(m.Status.Conditions, "Succeeded") || !meta.IsStatusConditionFalse(m.Status.Conditions, "Running") || m.Status.ResourceVersion == "" {
		t.Errorf("got %+v", m.Status)
	}
	if got := stored(t, c, "example.com"); !slices.Equal(got, []string{"v2"}) {
		t.Errorf("stored after: %v", got)
	}
	told := func(e watch.Event, message string) bool {
		return slices.ContainsFunc(current(e).Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.StorageMigrating && c.Message == message
		})
	}
	const ended = "The migration has succeeded and the stored versions have been updated"
	until(t, c, crds, func(e watch.Event) bool {
		return slices.Equal(current(e).Status.StoredVersions, []string{"v2"}) && told(e, ended)
	})
	// Two more, one after the other.
	create(t, c, "a", metav1.GroupResource{Group: "example.com", Resource: "widgets"})
	create(t, c, "b", metav1.GroupResource{Group: "example.com", Resource: "widgets"})
	for _, name := range []string{"a", "b"} {
		if m := end(t, c, name); !meta.IsStatusConditionTrue(m.Status.Conditions, "Succeeded") {
			t.Errorf("%s: %+v", name, m.Status)
		}
	}
	until(t, c, crds, func(e watch.Event) bool {
		return slices.Equal(current(e).Status.StoredVersions, []string{"v2"}) && told(e, ended)
	})
}

// What cannot be listed and written is not migrated, and the condition says so.
func TestUnsuitableResource(t *testing.T) {
	c := start(t)
	m := migrate(t, c, metav1.GroupResource{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"})
	failed := meta.FindStatusCondition(m.Status.Conditions, "Failed")
	want := `resource "authorization.k8s.io/v1, Resource=subjectaccessreviews" does not support discovery operations: [update patch list]`
	if failed == nil || failed.Message != want || !meta.IsStatusConditionFalse(m.Status.Conditions, "Running") {
		t.Errorf("got %+v", m.Status)
	}
}

// What is not served a minute after the migration was made never will be.
func TestUnknownResource(t *testing.T) {
	c, _ := startAt(t, func() time.Time { return time.Now().Add(time.Minute + time.Second) })
	m := migrate(t, c, metav1.GroupResource{Group: "example.com", Resource: "nothing"})
	failed := meta.FindStatusCondition(m.Status.Conditions, "Failed")
	if failed == nil || failed.Reason != "StorageVersionMigrationFailed" || failed.Message != "resource does not exist in discovery" {
		t.Errorf("got %+v", m.Status)
	}
}

// A migration waits for a resource that is defined soon after it.
func TestLateResource(t *testing.T) {
	made := time.Now()
	c, looks := startAt(t, func() time.Time { return made })
	create(t, c, "m", metav1.GroupResource{Group: "example.com", Resource: "widgets"})
	<-looks
	<-looks // the first was in vain
	if _, err := c.Client().Create(t.Context(), crds, "", definition(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if m := end(t, c, "m"); !meta.IsStatusConditionTrue(m.Status.Conditions, "Succeeded") {
		t.Errorf("got %+v", m.Status)
	}
}

// late hears of everything from another cluster, as if from an earlier time of
// this one.
type late struct {
	client.Interface
	heard client.Interface
}

func (l late) Informer(gvr schema.GroupVersionResource, opts client.InformerOptions) cache.SharedIndexInformer {
	return l.heard.Informer(gvr, opts)
}

// A migration that ended while the controller had not heard of it is not begun
// once more: nobody would unmark its definition.
func TestEndedUnheard(t *testing.T) {
	c, past := kajitest.Start(t), kajitest.Start(t)
	crd, err := c.Client().Create(t.Context(), crds, "", definition(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	widgets := metav1.GroupResource{Group: "example.com", Resource: "widgets"}
	create(t, past, "m", widgets)
	create(t, c, "m", widgets)
	migrations := client.For[*storagemigrationv1.StorageVersionMigration](c.Client())
	m, err := migrations.Get(t.Context(), "", "m")
	if err != nil {
		t.Fatal(err)
	}
	m = m.DeepCopy()
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: "Succeeded", Status: metav1.ConditionTrue, Reason: "StorageVersionMigrationSucceeded"})
	if _, err := migrations.UpdateStatus(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	controller := storageversionmigrator.New(late{c.Client(), past.Client()}, slog.New(slog.DiscardHandler))
	informer := past.Client().Informer(migrations.Resource("").GroupVersionResource, client.InformerOptions{})
	if !client.WaitForSync(t.Context(), informer) {
		t.Fatal("nothing was heard")
	}
	if err := controller.Reconcile(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	now, err := c.Client().Get(t.Context(), crds, crd.(metav1.Object).GetName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, is := range now.(*apiextensionsv1.CustomResourceDefinition).Status.Conditions {
		if is.Type == apiextensionsv1.StorageMigrating {
			t.Errorf("the definition is marked: %+v", is)
		}
	}
}
