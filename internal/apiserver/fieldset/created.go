// SPDX-License-Identifier: Apache-2.0

package fieldset

import (
	"reflect"
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Created returns the fields in which obj, a pointer to a value of the plan's
// type, differs from an empty one: those that a comparison of the two finds added
// or modified. ok is false where it takes the library to tell.
func (p *Plan) Created(obj any) (fields *fieldpath.Set, ok bool) {
	fields = fieldpath.NewSet()
	return fields, structFields(p.root, reflect.ValueOf(obj).Elem(), zero, fields)
}

// before is what was in a value's place.
type before int

const (
	absent before = iota // nothing
	null                 // a null: lists, maps and pointers that are always written
	zero                 // the zero value of the type
)

// child adds the element that is the value v of n. It is false where the library
// must tell.
func child(n *node, v reflect.Value, was before, element fieldpath.PathElement, into *fieldpath.Set) bool {
	isNull := false
	for v.Kind() == reflect.Pointer {
		if isNull = v.IsNil(); isNull {
			break
		}
		v = v.Elem()
	}
	switch {
	case was == absent:
		into.Members.Insert(element)
	case isNull:
		return true // as before
	}
	if isNull {
		return true
	}
	if n.kind == leaf {
		return leafValue(v, was, element, into)
	}
	return descend(n, v, was, element, into)
}

// leafValue adds a leaf whose value is not what was there before.
func leafValue(v reflect.Value, was before, element fieldpath.PathElement, into *fieldpath.Set) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		if was != absent && !v.IsNil() {
			into.Members.Insert(element)
		}
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Float64:
		if was == null || was == zero && !v.IsZero() {
			into.Members.Insert(element)
		}
	default:
		switch {
		case was == absent:
			return true
		case was == null:
			into.Members.Insert(element)
			return true
		case !v.CanAddr():
			return false
		}
		a, err := value.NewValueReflect(v.Addr().Interface())
		if err != nil {
			return false
		}
		b, err := value.NewValueReflect(reflect.New(v.Type()).Interface())
		if err != nil {
			return false
		}
		if !value.Equals(a, b) {
			into.Members.Insert(element)
		}
	}
	return true
}

// descend adds what is below an element.
func descend(n *node, v reflect.Value, was before, element fieldpath.PathElement, into *fieldpath.Set) bool {
	switch n.kind {
	case structure:
		if was == null {
			return false
		}
		below := fieldpath.NewSet()
		ok := structFields(n, v, was, below)
		attach(into, element, below)
		return ok
	case table, keyed, set:
		if v.Len() == 0 {
			if was != absent && !v.IsNil() {
				into.Members.Insert(element)
			}
			return true
		}
		below := fieldpath.NewSet()
		ok := elements(n, v, below)
		attach(into, element, below)
		return ok
	}
	return false
}

func attach(into *fieldpath.Set, element fieldpath.PathElement, below *fieldpath.Set) {
	if !below.Empty() {
		*into.Children.Descend(element) = *below
	}
}

// elements adds those of a list or map that was empty before.
func elements(n *node, v reflect.Value, into *fieldpath.Set) bool {
	switch n.kind {
	case table:
		return entries(n, v, into)
	case set:
		for i := range v.Len() {
			of := value.NewValueInterface(v.Index(i).String())
			into.Members.Insert(fieldpath.PathElement{Value: &of})
		}
		return true
	}
	for i := range v.Len() {
		item := v.Index(i)
		if item.Kind() == reflect.Pointer {
			return false
		}
		element, ok := keyElement(n, item)
		if !ok || into.Members.Has(element) { // two of the same keys
			return false
		}
		if !child(n.elem, item, absent, element, into) {
			return false
		}
	}
	return true
}

func entries(n *node, v reflect.Value, into *fieldpath.Set) bool {
	names := make([]string, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		names = append(names, it.Key().String())
	}
	slices.Sort(names)
	for i := range names {
		element := fieldpath.PathElement{FieldName: &names[i]}
		if n.elem.kind == leaf {
			into.Members.Insert(element)
			continue
		}
		item := v.MapIndex(reflect.ValueOf(names[i]).Convert(v.Type().Key()))
		if !child(n.elem, item, absent, element, into) {
			return false
		}
	}
	return true
}

// keyElement names an element of a list by its keys.
func keyElement(n *node, item reflect.Value) (fieldpath.PathElement, bool) {
	keys := make(value.FieldList, 0, len(n.keys))
	for _, key := range n.keys {
		v := key.GetFrom(item)
		var of any
		switch {
		case key.CanOmit(v):
			of = key.fallback
		default:
			for v.Kind() == reflect.Pointer && !v.IsNil() {
				v = v.Elem()
			}
			switch v.Kind() {
			case reflect.String:
				of = v.String()
			case reflect.Int32, reflect.Int64, reflect.Int:
				of = v.Int()
			case reflect.Bool:
				of = v.Bool()
			default:
				return fieldpath.PathElement{}, false
			}
		}
		if of != nil {
			keys = append(keys, value.Field{Name: key.JsonName, Value: value.NewValueInterface(of)})
		}
	}
	return fieldpath.PathElement{Key: &keys}, len(keys) > 0
}

// structFields adds those of a structure. was is zero or absent.
func structFields(n *node, v reflect.Value, was before, into *fieldpath.Set) bool {
	for i := range n.fields {
		f := &n.fields[i]
		of := f.GetFrom(v)
		if f.CanOmit(of) {
			continue
		}
		before := absent
		if was == zero && f.always {
			before = zero
			switch of.Kind() {
			case reflect.Pointer, reflect.Slice, reflect.Map:
				before = null
			}
		}
		if !child(f.node, of, before, f.element, into) {
			return false
		}
	}
	return true
}
