// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Own returns a copy of a shared object whose metadata may be set by their
// setters, and the fields of a structure replaced. Whatever these lead to stays
// shared and must not be modified.
func Own(obj Object) Object {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		top := maps.Clone(u.Object)
		if metadata, ok := top["metadata"].(map[string]any); ok {
			top["metadata"] = maps.Clone(metadata)
		}
		return &unstructured.Unstructured{Object: top}
	}
	v := reflect.New(reflect.TypeOf(obj).Elem())
	v.Elem().Set(reflect.ValueOf(obj).Elem())
	return v.Interface().(Object)
}
