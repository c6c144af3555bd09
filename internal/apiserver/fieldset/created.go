// SPDX-License-Identifier: Apache-2.0

package fieldset

import (
	"reflect"
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Created returns the fields in which obj, a pointer to a value of the plan's
// type, differs from an empty one, but for those that cannot be written (reset,
// with all below; nil is none) and that nobody owns (stripped): as FieldsV1 has
// them, nil when there are none. ok is false where it takes the library to tell.
func (p *Plan) Created(obj any, reset, stripped *fieldpath.Set) (raw []byte, ok bool) {
	w := &writer{reset: []*fieldpath.Set{reset}, stripped: []*fieldpath.Set{stripped}}
	if !structFields(p.root, reflect.ValueOf(obj).Elem(), zero, w) || w.strange {
		return nil, false
	}
	return w.document(), true
}

// sink takes the elements that a walk finds, in the library's order.
type sink interface {
	// member takes an element.
	member(element fieldpath.PathElement)
	// enter says that what comes up to the next leave is below an element. If
	// that is a member itself, it was the last to be taken.
	enter(element fieldpath.PathElement)
	leave()
}

// sets makes a set of what it takes.
type sets struct {
	path  []*fieldpath.Set // the last is that of the level
	names []fieldpath.PathElement
}

func (s *sets) member(element fieldpath.PathElement) {
	s.path[len(s.path)-1].Members.Insert(element)
}

func (s *sets) enter(element fieldpath.PathElement) {
	s.path, s.names = append(s.path, fieldpath.NewSet()), append(s.names, element)
}

func (s *sets) leave() {
	last := len(s.path) - 1
	below, element := s.path[last], s.names[len(s.names)-1]
	s.path, s.names = s.path[:last], s.names[:len(s.names)-1]
	if !below.Empty() {
		*s.path[last-1].Children.Descend(element) = *below
	}
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
func child(n *node, v reflect.Value, was before, element fieldpath.PathElement, into sink) bool {
	isNull := false
	for v.Kind() == reflect.Pointer {
		if isNull = v.IsNil(); isNull {
			break
		}
		v = v.Elem()
	}
	switch {
	case was == absent:
		into.member(element)
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
func leafValue(v reflect.Value, was before, element fieldpath.PathElement, into sink) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		if was != absent && !v.IsNil() {
			into.member(element)
		}
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Float64:
		if was == null || was == zero && !v.IsZero() {
			into.member(element)
		}
	default:
		switch {
		case was == absent:
			return true
		case was == null:
			into.member(element)
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
			into.member(element)
		}
	}
	return true
}

// descend adds what is below an element.
func descend(n *node, v reflect.Value, was before, element fieldpath.PathElement, into sink) bool {
	switch n.kind {
	case structure:
		if was == null {
			return false
		}
		into.enter(element)
		defer into.leave()
		return structFields(n, v, was, into)
	case table, keyed, set:
		if v.Len() == 0 {
			if was != absent && !v.IsNil() {
				into.member(element)
			}
			return true
		}
		into.enter(element)
		defer into.leave()
		return elements(n, v, into)
	}
	return false
}

// elements adds those of a list or map that was empty before.
func elements(n *node, v reflect.Value, into sink) bool {
	switch n.kind {
	case table:
		return entries(n, v, into)
	case set:
		texts := make([]string, v.Len())
		for i := range texts {
			texts[i] = v.Index(i).String()
		}
		slices.Sort(texts)
		for _, text := range slices.Compact(texts) {
			of := value.NewValueInterface(text)
			into.member(fieldpath.PathElement{Value: &of})
		}
		return true
	}
	type item struct {
		element fieldpath.PathElement
		value   reflect.Value
	}
	items := make([]item, v.Len())
	for i := range items {
		of := v.Index(i)
		if of.Kind() == reflect.Pointer {
			return false
		}
		element, ok := keyElement(n, of)
		if !ok {
			return false
		}
		items[i] = item{element, of}
	}
	slices.SortFunc(items, func(a, b item) int { return a.element.Compare(b.element) })
	for i, of := range items {
		if i > 0 && items[i-1].element.Equals(of.element) { // two of the same keys
			return false
		}
		if !child(n.elem, of.value, absent, of.element, into) {
			return false
		}
	}
	return true
}

func entries(n *node, v reflect.Value, into sink) bool {
	names := make([]string, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		names = append(names, it.Key().String())
	}
	slices.Sort(names)
	for i := range names {
		element := fieldpath.PathElement{FieldName: &names[i]}
		if n.elem.kind == leaf {
			into.member(element)
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
func structFields(n *node, v reflect.Value, was before, into sink) bool {
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
