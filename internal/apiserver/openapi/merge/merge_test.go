// SPDX-License-Identifier: Apache-2.0

package merge

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// example has every part that a type can have.
func example() Types {
	text, relation, name := smd.String, smd.Atomic, "meta"
	return Types{
		Definitions: []smd.TypeDef{
			{Name: "meta", Atom: smd.Atom{Map: &smd.Map{ElementType: smd.TypeRef{Inlined: smd.Atom{Scalar: &text}}, ElementRelationship: smd.Separable}}},
			{Name: "thing", Atom: smd.Atom{Map: &smd.Map{Fields: []smd.StructField{
				{Name: "metadata", Type: smd.TypeRef{NamedType: &name, ElementRelationship: &relation}, Default: map[string]any{}},
				{Name: "size", Type: smd.TypeRef{Inlined: smd.Atom{Scalar: &text}}, Default: 3.0},
				{Name: "unit", Type: smd.TypeRef{Inlined: smd.Atom{Scalar: &text}}, Default: ""},
				{Name: "ports", Type: smd.TypeRef{Inlined: smd.Atom{List: &smd.List{
					ElementType: smd.TypeRef{NamedType: &name}, ElementRelationship: smd.Associative, Keys: []string{"port", "protocol"},
				}}}},
			}}}},
		},
		Kinds: map[schema.GroupVersionKind]string{{Group: "example.com", Version: "v1", Kind: "Thing"}: "thing"},
	}
}

func TestRoundTrip(t *testing.T) {
	data, err := Encode(example())
	if err != nil {
		t.Fatal(err)
	}
	have, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), have, cmpopts.IgnoreUnexported(smd.Map{})); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

func TestEncodeRefusesUnions(t *testing.T) {
	types := example()
	types.Definitions[0].Map.Unions = []smd.Union{{}}
	if _, err := Encode(types); err == nil {
		t.Error("what the form cannot hold was left out in silence")
	}
}

func TestConverter(t *testing.T) {
	c, err := Converter(example())
	if err != nil {
		t.Fatal(err)
	}
	thing := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Thing", "size": "1"}}
	// The example knows neither apiVersion nor kind.
	if _, err := c.ObjectToTyped(thing); err == nil {
		t.Error("fields that the type does not have were taken")
	}
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	if _, err := c.ObjectToTyped(pod); err == nil {
		t.Error("a kind that is not known was taken")
	}
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if types, err := Decode(data); err != nil && len(types.Definitions) > 0 {
			t.Error("an error, and types beside it")
		}
	})
}
