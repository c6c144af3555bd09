// SPDX-License-Identifier: Apache-2.0

package crd_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/crd"
	"kaji/internal/client"
)

// large returns a definition with hundreds of fields, each described in words
// of its own, 200 KB of JSON.
func large(i int) *apiextensionsv1.CustomResourceDefinition {
	var fields strings.Builder
	for f := range 800 {
		fmt.Fprintf(&fields, "      field%d: {type: string, maxLength: 253, description: 'Field %d of definition %d: %s'}\n", f, f, i, strings.Repeat("what it is for and when to set it. ", 4))
	}
	d := &apiextensionsv1.CustomResourceDefinition{}
	err := yaml.Unmarshal(fmt.Appendf(nil, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: large%[1]ds.example.com
  annotations: {kubectl.kubernetes.io/last-applied-configuration: all of it, api-approved.kubernetes.io: unapproved}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: large%[1]ds, kind: Large%[1]d}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {
%[2]s    }}}
  - name: v2
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}], default: 1, enum: [1, x]}}}}
`, i, strings.ReplaceAll(fields.String(), "}\n", "},\n")), d)
	if err != nil {
		panic(err)
	}
	return d
}

// What is held of definitions is small, and the whole of them can be had.
func TestHold(t *testing.T) {
	const n = 20
	slim := crd.NewSlim()
	held, whole := make([]api.Object, n), make([]cache.Packed, n)
	used := func() uint64 {
		var m runtime.MemStats
		// What pools hold goes at the second collection.
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	for i := range held {
		held[i], whole[i] = slim.Hold(nil, large(i))
	}
	if each := (used() - min(before, used())) / n; each > 100<<10 {
		t.Errorf("a definition takes %d bytes", each)
	}
	for i := range held {
		got := whole[i].Whole()
		if want := large(i); !equality.Semantic.DeepEqual(got, want) {
			t.Fatalf("definition %d changed", i)
		}
		d := held[i].(*apiextensionsv1.CustomResourceDefinition)
		if d.Spec.Versions[0].Schema != nil || len(d.Annotations) != 1 || d.Spec.Names.Kind == "" || d.APIVersion == "" {
			t.Errorf("held: %v", d)
		}
	}
	if pod, whole := slim.Hold(nil, &metav1.PartialObjectMetadata{}); pod == nil || whole != nil {
		t.Error("an object that is no definition is not held as it is")
	}
}

// Who asks for a definition gets all of it, however it is asked for.
func TestWholeDefinition(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	want := large(1)
	delete(want.Annotations, apiextensionsv1.KubeAPIApprovedAnnotation)
	if _, err := b.client.Create(ctx, definitions, "", want, metav1.CreateOptions{FieldManager: "tester"}); err != nil {
		t.Fatal(err)
	}
	b.established(want.Name)
	check := func(how string, obj any) {
		t.Helper()
		d, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
		if !ok {
			t.Fatalf("%s: %T", how, obj)
		}
		schema := d.Spec.Versions[0].Schema
		if schema == nil || len(schema.OpenAPIV3Schema.Properties) != 800 || len(d.ManagedFields) == 0 || len(d.Annotations) != 1 || d.ResourceVersion == "" {
			t.Errorf("%s: not all of it", how)
		}
	}
	got, err := b.client.Get(ctx, definitions, want.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check("get", got)
	list, err := b.client.List(ctx, definitions, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	items, err := meta.ExtractList(list)
	if err != nil || len(items) != 1 {
		t.Fatal(items, err)
	}
	check("list", items[0])
	w, err := b.client.Watch(ctx, definitions, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	check("watch", (<-w.ResultChan()).Object)
	informer := b.client.Informer(definitions.GroupVersionResource, client.InformerOptions{})
	thin := b.client.Informer(definitions.GroupVersionResource, client.InformerOptions{Metadata: true})
	b.client.Start(ctx)
	if !client.WaitForSync(ctx, informer, thin) {
		t.Fatal("not synced")
	}
	check("informer", informer.GetStore().List()[0])
	only, err := meta.Accessor(thin.GetStore().List()[0])
	if err != nil || only.GetName() != want.Name || only.GetUID() == "" {
		t.Error("informer of metadata:", only, err)
	}
	if err := b.client.Delete(ctx, definitions, want.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for e := range w.ResultChan() {
		if e.Type == "DELETED" {
			check("deletion", e.Object)
			break
		}
	}
}
