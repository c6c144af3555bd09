// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"kaji/internal/apiserver/request"
)

// Unstructured is the form all custom objects have.
type Unstructured = unstructured.Unstructured

// Schema returns the schema of a custom kind's version as the OpenAPI
// documents hold it; it is package openapi's Custom.
func (c *Controller) Schema(s *request.Served, v3 bool) (json.RawMessage, error) {
	d := c.definition(s.Kind)
	if d == nil {
		return nil, nil
	}
	v := d.versions[s.GVK.Version]
	if v == nil {
		return nil, nil
	}
	props, err := v.props()
	if err != nil {
		return nil, err
	}
	out := publish(structural(props), v.from().crd.Spec.PreserveUnknownFields, v3)
	out.AddExtension("x-kubernetes-group-version-kind", []map[string]string{{
		"group": s.GVK.Group, "version": s.GVK.Version, "kind": s.GVK.Kind,
	}})
	if len(v.from().spec.SelectableFields) > 0 {
		var selectable []map[string]string
		for _, f := range v.from().spec.SelectableFields {
			selectable = append(selectable, map[string]string{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
		}
		out.AddExtension("x-kubernetes-selectable-fields", selectable)
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", v.from().crd.Name, err)
	}
	return data, nil
}

// structural returns a schema that may be published, nil for one that is not
// structural.
func structural(props *apiextensions.JSONSchemaProps) *structuralschema.Structural {
	if props == nil {
		return nil
	}
	s, err := structuralschema.NewStructural(props)
	if err != nil || len(structuralschema.ValidateStructural(nil, s)) > 0 {
		return nil
	}
	return s.Unfold()
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
