// SPDX-License-Identifier: Apache-2.0

package fieldset

import (
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Changed returns shallow copies of two values of a type, pointers to structures,
// without what is the same in both: comparing them finds the same differences as
// comparing the whole. Metadata keep what identifies an object, and what is the
// same but nil in one and empty in the other stays.
func Changed(a, b any) (any, any) {
	x, y := copyOf(reflect.ValueOf(a)), copyOf(reflect.ValueOf(b))
	prune(x.Elem(), y.Elem())
	return x.Interface(), y.Interface()
}

func copyOf(pointer reflect.Value) reflect.Value {
	c := reflect.New(pointer.Type().Elem())
	c.Elem().Set(pointer.Elem())
	return c
}

var (
	typeMeta   = reflect.TypeFor[metav1.TypeMeta]()
	objectMeta = reflect.TypeFor[metav1.ObjectMeta]()
)

// prune empties in two structures, which it may change, what is the same.
func prune(a, b reflect.Value) {
	for i := range a.NumField() {
		x, y := a.Field(i), b.Field(i)
		switch {
		case !x.CanSet() || x.Type() == typeMeta:
		case x.Type() == objectMeta:
			pruneMeta(x.Addr().Interface().(*metav1.ObjectMeta), y.Addr().Interface().(*metav1.ObjectMeta))
		case reflect.DeepEqual(x.Addr().Interface(), y.Addr().Interface()):
			x.SetZero()
			y.SetZero()
		case x.Kind() == reflect.Struct && !converts(x.Type()):
			prune(x, y)
		case x.Kind() == reflect.Pointer && !x.IsNil() && !y.IsNil() && x.Type().Elem().Kind() == reflect.Struct && !converts(x.Type().Elem()):
			x.Set(copyOf(x))
			y.Set(copyOf(y))
			prune(x.Elem(), y.Elem())
		}
	}
}

// converts says that a structure is written as something else.
func converts(t reflect.Type) bool { return value.TypeReflectEntryOf(t).CanConvertToUnstructured() }

func pruneMeta(a, b *metav1.ObjectMeta) {
	if reflect.DeepEqual(a.Labels, b.Labels) {
		a.Labels, b.Labels = nil, nil
	}
	if reflect.DeepEqual(a.Annotations, b.Annotations) {
		a.Annotations, b.Annotations = nil, nil
	}
	if reflect.DeepEqual(a.OwnerReferences, b.OwnerReferences) {
		a.OwnerReferences, b.OwnerReferences = nil, nil
	}
	if reflect.DeepEqual(a.Finalizers, b.Finalizers) {
		a.Finalizers, b.Finalizers = nil, nil
	}
}
