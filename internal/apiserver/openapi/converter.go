// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"kaji/internal/api"
	"kaji/internal/apiserver/openapi/merge"
	"kaji/internal/apiserver/request"
)

type converted = managedfields.TypeConverter

// TypeConverter returns the converter that knows the fields of all built-in
// kinds. It is built at first use.
func (o *OpenAPI) TypeConverter() managedfields.TypeConverter { return lazyConverter{o.converter} }

// TypeConverterFor returns the converter for one kind: the shared one, or one
// made of a custom kind's own schemas.
func (o *OpenAPI) TypeConverterFor(kind *api.Kind) (managedfields.TypeConverter, error) {
	if !kind.Custom {
		return o.TypeConverter(), nil
	}
	known, err := o.meta.load()
	if err != nil {
		return nil, err
	}
	raw := map[string]json.RawMessage{}
	var served []*request.Served
	for i := range kind.Versions {
		served = append(served, request.ServedOf(kind, &kind.Versions[i]))
	}
	if err := o.custom(raw, known, refV3, served); err != nil {
		return nil, err
	}
	schemas, err := parse(raw)
	if err != nil {
		return nil, err
	}
	return managedfields.NewTypeConverter(schemas, false)
}

func (o *OpenAPI) buildConverter() (converted, error) {
	types, err := merge.Decode(assetMerge)
	if err != nil {
		return nil, err
	}
	o.nameTwins(types.Kinds)
	return merge.Converter(types)
}

// nameTwins lets the type of a kind's hub also be that of versions which differ
// in nothing but their name and are not published.
func (o *OpenAPI) nameTwins(types map[schema.GroupVersionKind]string) {
	for _, kind := range o.cfg.Kinds.All() {
		hub, known := types[kind.Storage.WithKind(kind.Name)]
		if !known || kind.Custom {
			continue
		}
		for i := range kind.Versions {
			v := &kind.Versions[i]
			twin := v.GroupVersion.WithKind(kind.Name)
			if _, own := types[twin]; !own && v.ToHub == nil {
				types[twin] = hub
			}
		}
	}
}

func parse(raw map[string]json.RawMessage) (map[string]*spec.Schema, error) {
	out := make(map[string]*spec.Schema, len(raw))
	for name, data := range raw {
		s := &spec.Schema{}
		if err := json.Unmarshal(data, s); err != nil {
			return nil, fmt.Errorf("definition %s: %w", name, err)
		}
		out[name] = s
	}
	return out, nil
}

// lazyConverter builds the converter at first use.
type lazyConverter struct{ build func() (converted, error) }

func (l lazyConverter) ObjectToTyped(obj runtime.Object, o ...typed.ValidationOptions) (*typed.TypedValue, error) {
	c, err := l.build()
	if err != nil {
		return nil, err
	}
	return c.ObjectToTyped(obj, o...)
}

func (l lazyConverter) TypedToObject(value *typed.TypedValue) (runtime.Object, error) {
	c, err := l.build()
	if err != nil {
		return nil, err
	}
	return c.TypedToObject(value)
}
