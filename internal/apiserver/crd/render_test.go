// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/yaml"
)

// Schemas are rendered as upstream's packages render them, to the byte. KAJI_CRDS
// names a directory of more definitions.
func TestRender(t *testing.T) {
	var whole apiextensionsv1.JSONSchemaProps
	if err := yaml.UnmarshalStrict([]byte(everySchema), &whole); err != nil {
		t.Fatal(err)
	}
	schemas := map[string]*apiextensionsv1.JSONSchemaProps{"none": nil, "all": &whole}
	for name, property := range whole.Properties {
		schemas[name] = &property
	}
	if dir := os.Getenv("KAJI_CRDS"); dir != "" {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			crd := &apiextensionsv1.CustomResourceDefinition{}
			if err := yaml.Unmarshal(data, crd); err != nil {
				t.Fatal(file, err)
			}
			for i := range crd.Spec.Versions {
				schemas[crd.Name+"/"+crd.Spec.Versions[i].Name] = crd.Spec.Versions[i].Schema.OpenAPIV3Schema
			}
		}
	}
	extensions := map[string]string{extensionKinds: `[{"kind":"A"}]`, extensionFields: `[{"fieldPath":"a"}]`}
	for name, props := range schemas {
		for _, v3 := range []bool{false, true} {
			for _, preserve := range []bool{false, true} {
				want := upstreams(t, props, preserve, v3)
				got, err := render(props.DeepCopy(), preserve, v3, extensions)
				if err != nil || string(got) != string(want) {
					t.Errorf("%s, v3 %t, preserve %t: %v\n got %s\nwant %s", name, v3, preserve, err, got, want)
				}
			}
		}
	}
}

// Of a packed definition one version can be had without the others.
func TestPackedVersion(t *testing.T) {
	d := &apiextensionsv1.CustomResourceDefinition{}
	d.Spec.Group = "example.com"
	for _, name := range []string{"v1", "v2", "v10"} {
		d.Spec.Versions = append(d.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{
			Name: name, Served: true, DeprecationWarning: &name, Schema: &apiextensionsv1.CustomResourceValidation{
				OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Description: "of " + name},
			},
		})
	}
	_, whole := NewSlim().Hold(nil, d.DeepCopy())
	for i := range d.Spec.Versions {
		want := &d.Spec.Versions[i]
		if got := whole.(*packed).version(want.Name); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if got := whole.(*packed).version("v3"); got != nil {
		t.Errorf("got %v", got)
	}
}

// upstreams renders a schema with upstream's packages.
func upstreams(t *testing.T, props *apiextensionsv1.JSONSchemaProps, preserve, v3 bool) []byte {
	t.Helper()
	var s *structuralschema.Structural
	if props != nil {
		internal := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props.DeepCopy(), internal, nil); err != nil {
			t.Fatal(err)
		}
		var err error
		if s, err = structuralschema.NewStructural(internal); err != nil {
			t.Fatal(err)
		}
		s.Unfold()
	}
	out := publish(s, preserve, v3)
	out.AddExtension(extensionKinds, []map[string]string{{"kind": "A"}})
	out.AddExtension(extensionFields, []map[string]string{{"fieldPath": "a"}})
	data, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// publish renders a schema with what every object has besides. Clients of v2
// take a schema for complete: where fields are kept that it does not name, it
// names none.
func publish(s *structuralschema.Structural, preserve, v3 bool) *spec.Schema {
	if s == nil || !v3 && (s.XPreserveUnknownFields || preserve) {
		return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	}
	prefix := "#/components/schemas/"
	if !v3 {
		s = openapiv2.ToStructuralOpenAPIV2(s)
		prefix = "#/definitions/"
	}
	meta := func() spec.Schema {
		ref := spec.RefSchema(prefix + "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
		doc := metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"]
		if v3 {
			return spec.Schema{SchemaProps: spec.SchemaProps{Description: doc, AllOf: []spec.Schema{*ref}}}
		}
		return *ref.WithDescription(doc)
	}
	out := s.ToKubeOpenAPI()
	typeMeta := metav1.TypeMeta{}.SwaggerDoc()
	text := func(doc string) spec.Schema { return *spec.StringProperty().WithDescription(doc) }
	out.SetProperty("metadata", meta())
	out.SetProperty("apiVersion", text(typeMeta["apiVersion"]))
	out.SetProperty("kind", text(typeMeta["kind"]))
	embed(out, v3, func(s *spec.Schema) {
		s.SetProperty("apiVersion", text("apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"))
		s.SetProperty("kind", text("kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"))
		s.SetProperty("metadata", meta())
	})
	return out
}

// embed completes the schemas of embedded resources.
func embed(s *spec.Schema, v3 bool, complete func(*spec.Schema)) {
	if s == nil {
		return
	}
	for name, property := range s.Properties {
		embed(&property, v3, complete)
		s.Properties[name] = property
	}
	if s.Items != nil {
		embed(s.Items.Schema, v3, complete)
	}
	if s.AdditionalProperties != nil {
		embed(s.AdditionalProperties.Schema, v3, complete)
	}
	is := func(extension string) bool { on, ok := s.Extensions.GetBool(extension); return ok && on }
	if !v3 && is("x-kubernetes-preserve-unknown-fields") || !is("x-kubernetes-embedded-resource") {
		return
	}
	complete(s)
	for _, required := range []string{"kind", "apiVersion"} {
		if !slices.Contains(s.Required, required) {
			s.Required = append(s.Required, required)
		}
	}
}

// everySchema has a property for every kind of thing in schemas.
const everySchema = `
type: object
description: "all \"of\" <them> & ü\u2028"
required: [spec, text, maybe]
x-kubernetes-validations:
- {rule: "self.a < 3", message: "a & b", fieldPath: .a, reason: FieldValueForbidden, optionalOldSelf: false}
properties:
  metadata: {type: object, properties: {name: {type: string, maxLength: 10}}}
  kind: {type: string, pattern: x}
  text: {type: string, title: a title, format: date, minLength: 0, maxLength: 63, pattern: '^[a-z]+\\d"$', default: "a<b", enum: ["a", "é", null, 'q"'], example: here}
  numbers: {type: number, minimum: 0, exclusiveMinimum: true, maximum: 1.5e+30, exclusiveMaximum: true, multipleOf: 0.0000001, default: 1.0, enum: [1, 2.50, 1e3, 12345678901234567890], example: 3}
  flag: {type: boolean, default: false, example: false}
  noExample: {type: string, example: ""}
  nullDefault: {type: string, nullable: true, default: null, example: null}
  list: {type: array, minItems: 0, maxItems: 3, uniqueItems: true, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [b, a], items: {type: object, required: [a], properties: {a: {type: string}, b: {type: integer, default: 1}}}, default: [], example: []}
  table: {type: object, minProperties: 1, maxProperties: 2, x-kubernetes-map-type: atomic, required: [x], additionalProperties: {type: string, nullable: true}, default: {b: {c: [1, "x"], a: null}, a: true}, example: {}}
  open: {type: object, additionalProperties: true}
  shut: {type: object, additionalProperties: false}
  maybe: {type: object, nullable: true, required: [a], properties: {a: {type: string}}, additionalProperties: {type: string}}
  maybes: {type: object, required: [a, b, c, a], properties: {a: {type: string, nullable: true}, b: {type: string}, c: {type: array, nullable: true, items: {type: string}}}}
  onlyMaybes: {type: object, required: [a], properties: {a: {type: string, nullable: true}, b: {type: string, nullable: true}}}
  any: {x-kubernetes-preserve-unknown-fields: true}
  anyObject: {type: object, required: [a], x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: string, nullable: true}}, additionalProperties: {type: integer}}
  anyList: {type: array, x-kubernetes-preserve-unknown-fields: true, items: {type: string}}
  embedded: {type: object, x-kubernetes-embedded-resource: true, required: [kind, spec], properties: {spec: {type: object}, metadata: {type: object}}}
  embeddedAny: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: string}}}
  embeddedMaybe: {type: object, nullable: true, x-kubernetes-embedded-resource: true, properties: {a: {type: string}}}
  embeddedList: {type: array, items: {type: object, x-kubernetes-embedded-resource: true}}
  embeddedTable: {type: object, additionalProperties: {type: object, x-kubernetes-embedded-resource: true}}
  port: {x-kubernetes-int-or-string: true, description: a port}
  portAny: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
  portOther: {x-kubernetes-int-or-string: true, anyOf: [{minimum: 1}, {pattern: x}], allOf: [{maxLength: 3}]}
  portAll: {x-kubernetes-int-or-string: true, allOf: [{anyOf: [{type: integer}, {type: string}]}, {maxLength: 3}]}
  portEmpty: {x-kubernetes-int-or-string: true, anyOf: []}
  junctors:
    type: object
    properties: {a: {type: string}, b: {type: array, items: {type: integer}}, c: {type: object, additionalProperties: {type: string}}}
    oneOf: [{required: [a]}, {properties: {b: {items: {minimum: 3}, maxItems: 2}}, not: {required: [c]}}, {}]
    not: {anyOf: [{properties: {c: {additionalProperties: {maxLength: 2}}}}, {properties: {}}]}
    allOf: [{x-kubernetes-validations: [{rule: "true"}]}]
  documented: {type: string, externalDocs: {description: more, url: "https://example.com/?a=1&b=2"}}
  documentedNot: {type: string, externalDocs: {}}
  empty: {type: object, properties: {}, required: [], enum: []}
`
