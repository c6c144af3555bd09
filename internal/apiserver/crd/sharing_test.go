// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"reflect"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

// Equal parts become one, others stay apart, and nothing changes its meaning.
func TestSharing(t *testing.T) {
	parse := func(text string) *apiextensionsv1.CustomResourceDefinition {
		t.Helper()
		c := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal([]byte(text), c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const body = `
spec:
  versions:
  - name: v1
    schema: {openAPIV3Schema: {type: object, properties: {
      a: {type: object, description: one, properties: {x: {type: string, default: d}, w: {type: array, items: {type: object, properties: {z: {type: integer, minimum: 1}}}}}},
      b: {type: object, description: two, properties: {x: {type: string, default: d}, w: {type: array, items: {type: object, properties: {z: {type: integer, minimum: 1}}}}}},
      c: {type: object, additionalProperties: {type: object, properties: {z: {type: integer, minimum: 2}}}},
      e: {type: object, additionalProperties: true}, f: {type: object}}}}
  - name: v2
    schema: {openAPIV3Schema: {type: object, properties: {a: {anyOf: [{type: string}, {type: integer}]}}}}
`
	s := NewSharing()
	first, second := parse(body), parse(body)
	s.Decoded(first)
	s.Decoded(second)
	if want := parse(body); !equality.Semantic.DeepEqual(first, want) || !equality.Semantic.DeepEqual(second, want) {
		t.Fatalf("changed: %+v", first)
	}
	schema := func(c *apiextensionsv1.CustomResourceDefinition, version int) *apiextensionsv1.JSONSchemaProps {
		return c.Spec.Versions[version].Schema.OpenAPIV3Schema
	}
	if schema(first, 0) != schema(second, 0) || schema(first, 1) != schema(second, 1) {
		t.Error("equal definitions do not share")
	}
	props := schema(first, 0).Properties
	same := func(a, b map[string]apiextensionsv1.JSONSchemaProps) bool {
		return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
	}
	if !same(props["a"].Properties, props["b"].Properties) {
		t.Error("equal parts do not share")
	}
	if same(props["a"].Properties["w"].Items.Schema.Properties, props["c"].AdditionalProperties.Schema.Properties) {
		t.Error("different parts share")
	}
	if props["e"].AdditionalProperties == nil || props["f"].AdditionalProperties != nil {
		t.Error("parts were mixed up")
	}
}
