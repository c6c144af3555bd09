// SPDX-License-Identifier: Apache-2.0

package crd_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	kinds "kaji/internal/api/apiextensions"
	"kaji/internal/client"
	"kaji/kajitest"
)

// bench is a control plane that serves custom resources.
type bench struct {
	t       *testing.T
	client  client.Interface
	cluster *kajitest.Cluster
}

func start(t *testing.T) *bench {
	cluster := kajitest.Start(t)
	return &bench{t: t, client: cluster.Client(), cluster: cluster}
}

var (
	definitions = client.Resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}
	widgets     = client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}, Namespace: "default"}
)

const widgetDefinition = `
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns: [{name: Color, type: string, jsonPath: .spec.color}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              color: {type: string, default: red, enum: [red, blue]}
              replicas: {type: integer, minimum: 0}
              a: {type: string}
              size: {type: integer}
            x-kubernetes-validations:
            - {rule: "!has(self.a) || self.a != 'bad'", message: a must not be bad}
            - {rule: "!has(oldSelf.a) || has(self.a)", message: a may not go}
            - {rule: "!has(self.size) || self.size < 9007199254740993", message: that is too many}
          status: {type: object, properties: {replicas: {type: integer}}}
`

// define creates a definition from YAML.
func (b *bench) define(text string) error {
	d := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal([]byte(text), d); err != nil {
		b.t.Fatal(err)
	}
	_, err := b.client.Create(b.t.Context(), definitions, "", d, metav1.CreateOptions{})
	return err
}

func (b *bench) definition(name string) *apiextensionsv1.CustomResourceDefinition {
	b.t.Helper()
	obj, err := b.client.Get(b.t.Context(), definitions, name, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return obj.(*apiextensionsv1.CustomResourceDefinition)
}

// established waits, in a bubble, until a definition is.
func (b *bench) established(name string) {
	b.t.Helper()
	<-time.After(time.Second)
	if d := b.definition(name); !kinds.IsTrue(d, apiextensionsv1.Established) {
		b.t.Fatalf("not established: %+v", d.Status)
	}
}

func (b *bench) served() {
	b.t.Helper()
	if err := b.define(widgetDefinition); err != nil {
		b.t.Fatal(err)
	}
	b.established("widgets.example.com")
}

func widget(text string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON([]byte("apiVersion: example.com/v1\nkind: Widget\n" + text))
	if err != nil {
		panic(err)
	}
	if err := u.UnmarshalJSON(data); err != nil {
		panic(err)
	}
	return u
}

func (b *bench) create(text string) (*unstructured.Unstructured, error) {
	obj, err := b.client.Create(b.t.Context(), widgets, "", widget(text), metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return obj.(*unstructured.Unstructured), nil
}

func within(t *testing.T, test func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) { test(t, start(t)) })
}

// A definition is Installing before it is established, and served by then.
func TestEstablishing(t *testing.T) {
	within(t, func(t *testing.T, b *bench) {
		w, err := b.client.Watch(t.Context(), definitions, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		if err := b.define(widgetDefinition); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"", "Installing", "InitialNamesAccepted"} {
			d := (<-w.ResultChan()).Object.(*apiextensionsv1.CustomResourceDefinition)
			reason := ""
			for _, c := range d.Status.Conditions {
				if c.Type == apiextensionsv1.Established {
					reason = c.Reason
				}
			}
			if reason != want {
				t.Fatalf("got reason %q, want %q", reason, want)
			}
		}
		if _, err := b.client.List(t.Context(), widgets, metav1.ListOptions{}); err != nil {
			t.Errorf("an established kind is not served: %v", err)
		}
	})
}

// Objects are defaulted, pruned and judged by the schema and its rules.
func TestObjects(t *testing.T) {
	within(t, func(t *testing.T, b *bench) {
		b.served()
		w, err := b.create("metadata: {name: a}\nspec: {a: x, unknown: 1}\nstatus: {replicas: 9}")
		if err != nil {
			t.Fatal(err)
		}
		spec, _ := json.Marshal(w.Object["spec"])
		if got, want := string(spec), `{"a":"x","color":"red"}`; got != want {
			t.Errorf("spec: got %s, want %s", got, want)
		}
		if w.Object["status"] != nil || w.GetGeneration() != 1 {
			t.Errorf("got status %v, generation %d", w.Object["status"], w.GetGeneration())
		}
		for text, want := range map[string]string{
			"metadata: {name: b}\nspec: {color: green}": `spec.color: Unsupported value: "green": supported values: "red", "blue"`,
			"metadata: {name: b}\nspec: {a: bad}":       `spec: Invalid value: a must not be bad`,
			"metadata: {name: b}\nspec: {replicas: -1}": "should be greater than or equal to 0",
			"metadata: {name: Bad_}":                    "a lowercase RFC 1123 subdomain",
		} {
			if _, err := b.create(text); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", text, err, want)
			}
		}
		_, err = b.client.Patch(t.Context(), widgets, "a", types.MergePatchType, []byte(`{"spec":{"a":null}}`), metav1.PatchOptions{})
		if err == nil || !strings.Contains(err.Error(), "a may not go") {
			t.Errorf("transition rule: got %v", err)
		}
	})
}

// Applied numbers are whole where they are written so, and rules see them as
// the schema calls them.
func TestApply(t *testing.T) {
	within(t, func(t *testing.T, b *bench) {
		b.served()
		apply := func(size string) (runtime.Object, error) {
			body := "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\nspec: {size: " + size + "}"
			return b.client.Patch(t.Context(), widgets, "a", types.ApplyPatchType, []byte(body), metav1.PatchOptions{FieldManager: "one"})
		}
		for _, size := range []string{"3", "9007199254740991"} {
			obj, err := apply(size)
			if err != nil {
				t.Fatal(err)
			}
			if spec, _ := json.Marshal(obj.(*unstructured.Unstructured).Object["spec"]); !strings.Contains(string(spec), `"size":`+size) {
				t.Errorf("got spec %s, want size %s", spec, size)
			}
		}
		if _, err := apply("9007199254740993"); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "that is too many") {
			t.Errorf("got %v", err)
		}
	})
}

// Status and scale are written on their own.
func TestSubresources(t *testing.T) {
	within(t, func(t *testing.T, b *bench) {
		b.served()
		if _, err := b.create("metadata: {name: a}\nspec: {replicas: 2}"); err != nil {
			t.Fatal(err)
		}
		status := widgets
		status.Subresource = "status"
		obj, err := b.client.Patch(t.Context(), status, "a", types.MergePatchType, []byte(`{"spec":{"replicas":7},"status":{"replicas":1}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		u := obj.(*unstructured.Unstructured)
		spec, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas")
		replicas, _, _ := unstructured.NestedInt64(u.Object, "status", "replicas")
		if spec != 2 || replicas != 1 || u.GetGeneration() != 1 {
			t.Errorf("got spec %d, status %d, generation %d", spec, replicas, u.GetGeneration())
		}
	})
}

// Names are taken one definition at a time; who waits gets them when they are
// free again.
func TestNames(t *testing.T) {
	within(t, func(t *testing.T, b *bench) {
		b.served()
		other := strings.NewReplacer("widgets", "wodgets", "Widget", "Wodget").Replace(widgetDefinition)
		if err := b.define(other); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		d := b.definition("wodgets.example.com")
		if kinds.IsTrue(d, apiextensionsv1.NamesAccepted) || kinds.IsTrue(d, apiextensionsv1.Established) {
			t.Errorf("the short name is taken: %+v", d.Status.Conditions)
		}
		if got, want := d.Status.Conditions[0].Message, `"wd" is already in use`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := b.client.Delete(t.Context(), definitions, "widgets.example.com", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		if d := b.definition("wodgets.example.com"); !kinds.IsTrue(d, apiextensionsv1.Established) {
			t.Errorf("the name is free: %+v", d.Status.Conditions)
		}
	})
}

// A deleted definition takes its objects along, and their watches end.
func TestDeletion(t *testing.T) {
	within(t, func(t *testing.T, b *bench) {
		b.served()
		if _, err := b.create("metadata: {name: a, finalizers: [example.com/x]}"); err != nil {
			t.Fatal(err)
		}
		if err := b.client.Delete(t.Context(), definitions, "widgets.example.com", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		if d := b.definition("widgets.example.com"); !kinds.IsTrue(d, apiextensionsv1.Terminating) {
			t.Errorf("not terminating: %+v", d.Status.Conditions)
		}
		obj, err := b.client.Get(t.Context(), widgets, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		u := obj.(*unstructured.Unstructured).DeepCopy()
		u.SetFinalizers(nil)
		if _, err := b.client.Update(t.Context(), widgets, "a", u, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		if _, err := b.client.Get(t.Context(), definitions, "widgets.example.com", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the definition is still there: %v", err)
		}
		if _, err := b.client.List(t.Context(), widgets, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the kind is still served: %v", err)
		}
	})
}

// Versions without a conversion differ in name, and in what their schemas keep.
func TestVersions(t *testing.T) {
	within(t, func(t *testing.T, b *bench) {
		text := widgetDefinition + `
  - name: v2
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {color: {type: string}, b: {type: string}}}}}}
  - name: v0
    served: false
    storage: false
    schema: {openAPIV3Schema: {type: object}}
`
		if err := b.define(text); err != nil {
			t.Fatal(err)
		}
		b.established("widgets.example.com")
		v2 := widgets
		v2.Version = "v2"
		w := widget("metadata: {name: a}\nspec: {color: blue, b: gone, a: unknown}")
		w.SetAPIVersion("example.com/v2")
		if _, err := b.client.Create(t.Context(), v2, "", w, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		for version, resource := range map[string]client.Resource{"example.com/v1": widgets, "example.com/v2": v2} {
			obj, err := b.client.Get(t.Context(), resource, "a", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			u := obj.(*unstructured.Unstructured)
			spec, _ := json.Marshal(u.Object["spec"])
			if u.GetAPIVersion() != version || string(spec) != `{"color":"blue"}` {
				t.Errorf("%s: got %s %s", version, u.GetAPIVersion(), spec)
			}
		}
		v0 := widgets
		v0.Version = "v0"
		if _, err := b.client.Get(t.Context(), v0, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("an unserved version: got %v", err)
		}
	})
}

// What upstream refuses is refused, and costs no more than its refusal.
func TestBadDefinitions(t *testing.T) {
	within(t, func(t *testing.T, b *bench) {
		for edit, want := range map[[2]string]string{
			{"name: widgets.example.com", "name: wrong"}:                        `metadata.name: Invalid value: "wrong": must be spec.names.plural+"."+spec.group`,
			{"rule: \"!has(self.a) || self.a != 'bad'\"", "rule: 'self.b > 1'"}: "undefined field 'b'",
			{"color: {", "bomb: {type: array, items: {type: array, items: {type: string, x-kubernetes-validations: [{rule: \"self.contains('a')\"}]}}}\n              color: {"}: "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
			{"color: {", "bomb: {type: string, pattern: \"((a{1000}){1000}){1000}\"}\n              color: {"}:                                                                   "properties[bomb].pattern: Invalid value: \"((a{1000}){1000}){1000}\": must be a valid regular expression, but isn't: error parsing regexp",
			{"type: integer, minimum: 0", "minimum: 0"}: "spec.validation.openAPIV3Schema.properties[spec].properties[replicas].type: Required value: must not be empty for specified object fields",
		} {
			err := b.define(strings.Replace(widgetDefinition, edit[0], edit[1], 1))
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", edit[1], err, want)
			}
		}
	})
}
