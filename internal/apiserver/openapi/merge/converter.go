// SPDX-License-Identifier: Apache-2.0

package merge

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// converter knows kinds by their definitions. What it does not know it leaves to
// a converter without any, whose errors are those the library looks for.
type converter struct {
	managedfields.TypeConverter
	kinds map[schema.GroupVersionKind]typed.ParseableType
}

// Converter returns a converter that is safe for concurrent use. t must not be
// changed any more.
func Converter(t Types) (managedfields.TypeConverter, error) {
	none, err := managedfields.NewTypeConverter(nil, false)
	if err != nil {
		return nil, err
	}
	parser := &typed.Parser{Schema: smd.Schema{Types: t.Definitions}}
	c := &converter{TypeConverter: none, kinds: make(map[schema.GroupVersionKind]typed.ParseableType, len(t.Kinds))}
	for kind, name := range t.Kinds {
		c.kinds[kind] = parser.Type(name)
	}
	return c, nil
}

// ObjectToTyped implements managedfields.TypeConverter.
func (c *converter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	kind, ok := c.kinds[obj.GetObjectKind().GroupVersionKind()]
	if !ok {
		return c.TypeConverter.ObjectToTyped(obj, opts...)
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return kind.FromUnstructured(u.UnstructuredContent(), opts...)
	}
	return kind.FromStructured(obj, opts...)
}
