// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// renderer writes structural schemas as OpenAPI documents hold them, straight
// from their definition: documents of hundreds of definitions are megabytes, and
// each of upstream's forms in between takes several times what writing does. It
// writes the members that upstream does, in the order upstream has them in.
type renderer struct {
	out []byte
	v3  bool
	err error // the first of a value that is no JSON
}

// Documentation of what all objects and embedded ones have.
var (
	metadataDoc = metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"]
	typeDocs    = metav1.TypeMeta{}.SwaggerDoc()
)

const (
	embeddedAPIVersionDoc = "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
	embeddedKindDoc       = "kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
)

// place is what a schema is within another.
type place int

const (
	placeRoot place = iota
	placeField
	placeJunctor // below allOf, anyOf, oneOf or not
)

// schema writes a schema. Root's extensions, which are JSON by name, are added to
// those of a root.
func (r *renderer) schema(s *apiextensionsv1.JSONSchemaProps, at place, extensions map[string]string) {
	typ, nullable, items, properties, required := s.Type, s.Nullable, (*apiextensionsv1.JSONSchemaProps)(nil), s.Properties, s.Required
	if s.Items != nil {
		items = s.Items.Schema
	}
	preserve := s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields
	if !r.v3 {
		typ, items, properties, required = r.forV2(s, items, preserve)
		nullable = false
	}
	embedded := at != placeJunctor && s.XEmbeddedResource && (r.v3 || !preserve)
	if embedded {
		for _, name := range []string{"kind", "apiVersion"} {
			if !slices.Contains(required, name) {
				required = append(slices.Clip(required), name)
			}
		}
	}

	o := r.object()
	o.text("description", s.Description)
	o.text("type", typ)
	o.flag("nullable", nullable)
	o.text("format", s.Format)
	o.text("title", s.Title)
	if s.Default != nil && !isNull(s.Default.Raw) {
		o.name("default")
		r.value(s.Default.Raw)
	}
	o.number("maximum", s.Maximum)
	o.flag("exclusiveMaximum", s.ExclusiveMaximum)
	o.number("minimum", s.Minimum)
	o.flag("exclusiveMinimum", s.ExclusiveMinimum)
	o.count("maxLength", s.MaxLength)
	o.count("minLength", s.MinLength)
	o.text("pattern", s.Pattern)
	o.count("maxItems", s.MaxItems)
	o.count("minItems", s.MinItems)
	o.flag("uniqueItems", s.UniqueItems)
	o.number("multipleOf", s.MultipleOf)
	if len(s.Enum) > 0 {
		o.name("enum")
		for i := range s.Enum {
			r.separate('[', i)
			r.value(s.Enum[i].Raw)
		}
		r.out = append(r.out, ']')
	}
	o.count("maxProperties", s.MaxProperties)
	o.count("minProperties", s.MinProperties)
	o.texts("required", required)
	below := placeField
	if at == placeJunctor {
		below = placeJunctor
	}
	if items != nil {
		o.name("items")
		r.schema(items, below, nil)
	}
	if r.v3 {
		allOf, anyOf := s.AllOf, s.AnyOf
		if at != placeJunctor && s.XIntOrString {
			allOf, anyOf = unfold(allOf, anyOf)
		}
		o.junctor("allOf", allOf)
		o.junctor("oneOf", s.OneOf)
		o.junctor("anyOf", anyOf)
		if s.Not != nil {
			o.name("not")
			r.schema(s.Not, placeJunctor, nil)
		}
	}
	r.properties(&o, properties, at, embedded)
	if a := s.AdditionalProperties; a != nil && at != placeJunctor {
		o.name("additionalProperties")
		if a.Schema != nil {
			r.schema(a.Schema, placeField, nil)
		} else {
			r.out = strconv.AppendBool(r.out, a.Allows)
		}
	}
	if s.ExternalDocs != nil {
		o.name("externalDocs")
		docs := r.object()
		docs.text("description", s.ExternalDocs.Description)
		docs.text("url", s.ExternalDocs.URL)
		docs.end()
	}
	if s.Example != nil && !isNull(s.Example.Raw) {
		start, first := len(r.out), o.first
		o.name("example")
		value := len(r.out)
		r.value(s.Example.Raw)
		switch string(r.out[value:]) {
		case `""`, `{}`, `[]`: // is left out
			r.out, o.first = r.out[:start], first
		}
	}
	r.extensions(&o, s, preserve, extensions)
	o.end()
}

// forV2 returns what v2 says of a schema: kubectl takes what it says for complete.
// It has no junctors, and no values that may be null.
func (r *renderer) forV2(s, items *apiextensionsv1.JSONSchemaProps, preserve bool) (string, *apiextensionsv1.JSONSchemaProps, map[string]apiextensionsv1.JSONSchemaProps, []string) {
	typ, properties, required := s.Type, s.Properties, s.Required
	if s.Nullable {
		typ = ""
	}
	if s.Nullable || preserve {
		items, properties = nil, nil
	}
	if items == nil && typ == "array" || preserve && typ == "object" {
		typ = ""
	}
	if slices.ContainsFunc(required, func(name string) bool { return properties[name].Nullable }) {
		required = slices.DeleteFunc(slices.Clone(required), func(name string) bool { return properties[name].Nullable })
	}
	if a := s.AdditionalProperties; a != nil && a.Schema != nil && a.Schema.Nullable {
		required = nil
	}
	return typ, items, properties, required
}

// intOrString are the types of a schema with x-kubernetes-int-or-string.
var intOrString = []apiextensionsv1.JSONSchemaProps{{Type: "integer"}, {Type: "string"}}

// unfold returns the junctors of a schema with x-kubernetes-int-or-string, which say
// what that means.
func unfold(allOf, anyOf []apiextensionsv1.JSONSchemaProps) (all, some []apiextensionsv1.JSONSchemaProps) {
	switch {
	case reflect.DeepEqual(anyOf, intOrString), len(allOf) > 0 && reflect.DeepEqual(allOf[0].AnyOf, intOrString):
		return allOf, anyOf
	case len(anyOf) == 0:
		return allOf, intOrString
	}
	return append([]apiextensionsv1.JSONSchemaProps{{AnyOf: intOrString}}, allOf...), anyOf
}

// properties writes the properties of a schema with those of all objects, or of
// embedded ones.
func (r *renderer) properties(o *members, properties map[string]apiextensionsv1.JSONSchemaProps, at place, embedded bool) {
	names := slices.AppendSeq(make([]string, 0, len(properties)+3), maps.Keys(properties))
	apiVersion, kind := typeDocs["apiVersion"], typeDocs["kind"]
	if embedded {
		apiVersion, kind = embeddedAPIVersionDoc, embeddedKindDoc
	}
	object := at == placeRoot || embedded
	if object {
		names = append(names, "apiVersion", "kind", "metadata")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return
	}
	o.name("properties")
	all := r.object()
	for _, name := range names {
		all.name(name)
		switch {
		case object && name == "metadata":
			r.metadata()
		case object && name == "apiVersion":
			r.text(apiVersion)
		case object && name == "kind":
			r.text(kind)
		default:
			property := properties[name]
			below := placeField
			if at == placeJunctor {
				below = placeJunctor
			}
			r.schema(&property, below, nil)
		}
	}
	all.end()
}

// text writes the schema of a documented string.
func (r *renderer) text(doc string) {
	o := r.object()
	o.text("description", doc)
	o.text("type", "string")
	o.end()
}

// metadata writes the schema of an object's metadata.
func (r *renderer) metadata() {
	const model = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	o := r.object()
	o.text("description", metadataDoc)
	if r.v3 {
		o.name("allOf")
		r.out = append(r.out, `[{"$ref":"#/components/schemas/`+model+`"}]`...)
	} else {
		o.text("$ref", "#/definitions/"+model)
	}
	o.end()
}

// extensions writes the extensions of a schema, sorted.
func (r *renderer) extensions(o *members, s *apiextensionsv1.JSONSchemaProps, preserve bool, more map[string]string) {
	add := func(name string) {
		if value, has := more[name]; has {
			o.name(name)
			r.out = append(r.out, value...)
		}
	}
	o.flag("x-kubernetes-embedded-resource", s.XEmbeddedResource)
	add(extensionKinds)
	o.flag("x-kubernetes-int-or-string", s.XIntOrString)
	o.texts("x-kubernetes-list-map-keys", s.XListMapKeys)
	if s.XListType != nil {
		o.name("x-kubernetes-list-type")
		r.string(*s.XListType)
	}
	if s.XMapType != nil {
		o.name("x-kubernetes-map-type")
		r.string(*s.XMapType)
	}
	o.flag("x-kubernetes-preserve-unknown-fields", preserve)
	add(extensionFields)
	if len(s.XValidations) > 0 {
		o.name("x-kubernetes-validations")
		r.json(s.XValidations)
	}
}

// Extensions of the schema of an object as a whole.
const (
	extensionKinds  = "x-kubernetes-group-version-kind"
	extensionFields = "x-kubernetes-selectable-fields"
)

func isNull(raw []byte) bool { return len(raw) == 0 || string(raw) == "null" }

// value writes a value of a definition.
func (r *renderer) value(raw []byte) {
	if isNull(raw) {
		r.out = append(r.out, "null"...)
		return
	}
	if n := len(raw); n > 1 && raw[0] == '"' && plain(raw[1:n-1]) || string(raw) == "true" || string(raw) == "false" {
		r.out = append(r.out, raw...)
		return
	}
	var v any
	if err := utiljson.Unmarshal(raw, &v); err != nil {
		r.fail(err)
		return
	}
	r.json(v)
}

func (r *renderer) json(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		r.fail(err)
		return
	}
	r.out = append(r.out, data...)
}

func (r *renderer) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.out = append(r.out, "null"...)
}

// string writes a string as package json does.
func (r *renderer) string(s string) {
	if !plain(s) {
		r.json(s)
		return
	}
	r.out = append(r.out, '"')
	r.out = append(r.out, s...)
	r.out = append(r.out, '"')
}

// plain says whether nothing of a string is escaped in JSON.
func plain[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// separate writes what stands before the i-th of a list or of an object's members.
func (r *renderer) separate(open byte, i int) {
	if i > 0 {
		open = ','
	}
	r.out = append(r.out, open)
}

// members writes an object's members.
type members struct {
	r     *renderer
	first bool
}

// object begins an object.
func (r *renderer) object() members {
	r.out = append(r.out, '{')
	return members{r, true}
}

func (o *members) end() { o.r.out = append(o.r.out, '}') }

func (o *members) name(name string) {
	if !o.first {
		o.r.out = append(o.r.out, ',')
	}
	o.first = false
	o.r.string(name)
	o.r.out = append(o.r.out, ':')
}

func (o *members) text(name, value string) {
	if value != "" {
		o.name(name)
		o.r.string(value)
	}
}

func (o *members) texts(name string, values []string) {
	if len(values) == 0 {
		return
	}
	o.name(name)
	for i, value := range values {
		o.r.separate('[', i)
		o.r.string(value)
	}
	o.r.out = append(o.r.out, ']')
}

func (o *members) flag(name string, value bool) {
	if value {
		o.name(name)
		o.r.out = append(o.r.out, "true"...)
	}
}

func (o *members) count(name string, value *int64) {
	if value != nil {
		o.name(name)
		o.r.out = strconv.AppendInt(o.r.out, *value, 10)
	}
}

func (o *members) number(name string, value *float64) {
	if value != nil {
		o.name(name)
		o.r.json(*value)
	}
}

// junctor writes the schemas of a junctor.
func (o *members) junctor(name string, of []apiextensionsv1.JSONSchemaProps) {
	if len(of) == 0 {
		return
	}
	o.name(name)
	for i := range of {
		o.r.separate('[', i)
		o.r.schema(&of[i], placeJunctor, nil)
	}
	o.r.out = append(o.r.out, ']')
}
