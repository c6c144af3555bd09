// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"encoding/json"
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

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
	from := v.from()
	props, err := v.published()
	if err != nil {
		return nil, err
	}
	extensions := map[string]string{}
	add := func(name string, value any) {
		data, failed := json.Marshal(value)
		extensions[name], err = string(data), failed
	}
	add(extensionKinds, []map[string]string{{"group": s.GVK.Group, "version": s.GVK.Version, "kind": s.GVK.Kind}})
	if fields := from.spec.SelectableFields; len(fields) > 0 && err == nil {
		var selectable []map[string]string
		for _, f := range fields {
			selectable = append(selectable, map[string]string{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
		}
		add(extensionFields, selectable)
	}
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", from.crd.Name, err)
	}
	data, err := render(props, from.crd.Spec.PreserveUnknownFields, v3, extensions)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", from.crd.Name, err)
	}
	return data, nil
}

// published returns the version's schema if it may be published, nil otherwise:
// of those of the time before structural ones, only what is structural is.
func (v *version) published() (*apiextensionsv1.JSONSchemaProps, error) {
	from := v.from()
	validation := from.validation()
	if validation == nil || validation.OpenAPIV3Schema == nil {
		return nil, nil
	}
	if !from.crd.Spec.PreserveUnknownFields {
		return validation.OpenAPIV3Schema, nil // others are not taken
	}
	props, err := v.props()
	if err != nil {
		return nil, err
	}
	s, err := structuralschema.NewStructural(props)
	if err != nil || len(structuralschema.ValidateStructural(nil, s)) > 0 {
		return nil, nil
	}
	return validation.OpenAPIV3Schema, nil
}

// render renders a schema with what every object has besides, and extensions, which
// are JSON by name. Clients of v2 take a schema for complete: where fields are kept
// that it does not name, it names none.
func render(props *apiextensionsv1.JSONSchemaProps, preserve, v3 bool, extensions map[string]string) (json.RawMessage, error) {
	r := &renderer{v3: v3}
	if props == nil || !v3 && (preserve || props.XPreserveUnknownFields != nil && *props.XPreserveUnknownFields) {
		o := r.object()
		o.text("type", "object")
		r.extensions(&o, &apiextensionsv1.JSONSchemaProps{}, false, extensions)
		o.end()
	} else {
		r.schema(props, placeRoot, extensions)
	}
	return r.out, r.err
}
