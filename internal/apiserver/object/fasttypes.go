// SPDX-License-Identifier: Apache-2.0

package object

import (
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	smdschema "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// fastTypes leaves out the check that an object fits its schema where that is
// known already: a Go object was decoded into the very type that the schema
// was made of. The check costs as much as all else that managedFields need.
type fastTypes struct {
	managedfields.TypeConverter
	shapes sync.Map // schema.GroupVersionKind to shape
}

// shape is what the converter has for a kind.
type shape struct {
	schema *smdschema.Schema
	ref    smdschema.TypeRef
}

// ObjectToTyped implements managedfields.TypeConverter.
func (f *fastTypes) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if _, ok := obj.(*unstructured.Unstructured); ok || len(opts) == 0 {
		// What somebody wants applied is judged in full.
		return f.TypeConverter.ObjectToTyped(obj, opts...)
	}
	gvk := obj.GetObjectKind().GroupVersionKind()
	known, ok := f.shapes.Load(gvk)
	if !ok {
		t, err := f.TypeConverter.ObjectToTyped(obj, opts...)
		if err == nil {
			f.shapes.Store(gvk, shape{t.Schema(), t.TypeRef()})
		}
		return t, err
	}
	v, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, err
	}
	s := known.(shape)
	return typed.AsTypedUnvalidated(v, s.schema, s.ref), nil
}

var _ managedfields.TypeConverter = (*fastTypes)(nil)
