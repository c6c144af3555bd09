// SPDX-License-Identifier: Apache-2.0

package fieldset

import (
	"reflect"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Difference is what one object has that another has not, and where they differ.
type Difference struct{ Removed, Modified, Added *fieldpath.Set }

// Compare returns how b differs from a, pointers to values of the plan's type, but
// for managedFields. ok is false where it takes the library to tell.
func (p *Plan) Compare(a, b any) (d Difference, ok bool) {
	d = Difference{fieldpath.NewSet(), fieldpath.NewSet(), fieldpath.NewSet()}
	c := comparison{root: p.root, Difference: d}
	return d, c.fields(p.root, reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
}

// comparison walks two values. Its methods are false where the library must tell.
type comparison struct {
	Difference
	root *node
	path fieldpath.Path
}

// alike is how deep a walk first asks whether all below is the same: most of an
// object is, and a change is seldom in more than one place of it.
const alike = 3

// fields compares two structures.
func (c *comparison) fields(n *node, x, y reflect.Value) bool {
	for i := range n.fields {
		f := &n.fields[i]
		if f.JsonName == "managedFields" && len(c.path) == 1 && *c.path[0].FieldName == "metadata" {
			continue
		}
		a, b := f.GetFrom(x), f.GetFrom(y)
		ok := true
		switch gone, absent := f.CanOmit(b), f.CanOmit(a); {
		case gone && absent:
		case absent:
			ok = c.only(f.node, b, f.element, c.Added)
		case gone:
			ok = c.only(f.node, a, f.element, c.Removed)
		default:
			ok = c.both(f.node, a, b, f.element)
		}
		if !ok {
			return false
		}
	}
	return true
}

// only adds an element that is on one side.
func (c *comparison) only(n *node, v reflect.Value, element fieldpath.PathElement, to *fieldpath.Set) bool {
	for _, above := range c.path {
		to = to.Children.Descend(above)
	}
	return child(n, v, absent, element, &sets{path: []*fieldpath.Set{to}})
}

func (c *comparison) modified(element fieldpath.PathElement) {
	to := c.Modified
	for _, above := range c.path {
		to = to.Children.Descend(above)
	}
	to.Members.Insert(element)
}

// both compares an element that is on both sides.
func (c *comparison) both(n *node, x, y reflect.Value, element fieldpath.PathElement) bool {
	x, noX := behind(x)
	y, noY := behind(y)
	switch {
	case noX || noY:
		return noX && noY
	case n.kind == leaf:
		return c.leaf(x, y, element)
	case n.kind == unknown || len(c.path) < alike:
		if reflect.DeepEqual(x.Interface(), y.Interface()) {
			return true
		}
	}
	if n.kind == unknown {
		return false
	}
	if n.kind != structure && x.Len() == 0 && y.Len() == 0 {
		if x.IsNil() != y.IsNil() {
			c.modified(element)
		}
		return true
	}
	c.path = append(c.path, element)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	switch n.kind {
	case structure:
		return c.fields(n, x, y)
	case table:
		return c.entries(n, x, y)
	}
	return c.elements(n, x, y)
}

// behind returns what pointers lead to, or that they are null.
func behind(v reflect.Value) (reflect.Value, bool) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return v, true
		}
		v = v.Elem()
	}
	return v, false
}

func (c *comparison) leaf(x, y reflect.Value, element fieldpath.PathElement) bool {
	same := false
	switch x.Kind() {
	case reflect.String:
		same = x.String() == y.String()
	case reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Float64:
		same = x.Equal(y)
	default:
		if same = reflect.DeepEqual(x.Interface(), y.Interface()); same {
			break
		}
		a, err := value.NewValueReflect(pointerTo(x))
		if err != nil {
			return false
		}
		b, err := value.NewValueReflect(pointerTo(y))
		if err != nil {
			return false
		}
		same = value.Equals(a, b)
	}
	if !same {
		c.modified(element)
	}
	return true
}

func pointerTo(v reflect.Value) any {
	if v.CanAddr() {
		return v.Addr().Interface()
	}
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p.Interface()
}

// entries compares two maps.
func (c *comparison) entries(n *node, x, y reflect.Value) bool {
	for it := y.MapRange(); it.Next(); {
		name := it.Key().String()
		element, now := fieldpath.PathElement{FieldName: &name}, it.Value()
		if was := x.MapIndex(it.Key()); was.IsValid() {
			if !c.both(n.elem, was, now, element) {
				return false
			}
		} else if !c.only(n.elem, now, element, c.Added) {
			return false
		}
	}
	for it := x.MapRange(); it.Next(); {
		name := it.Key().String()
		if y.MapIndex(it.Key()).IsValid() {
			continue
		}
		if !c.only(n.elem, it.Value(), fieldpath.PathElement{FieldName: &name}, c.Removed) {
			return false
		}
	}
	return true
}

// elements compares two lists whose elements have names.
func (c *comparison) elements(n *node, x, y reflect.Value) bool {
	before, ok := named(n, x)
	if !ok {
		return false
	}
	after, ok := named(n, y)
	if !ok {
		return false
	}
	elem := n.elem
	if n.kind == set {
		elem = single
	}
	for i, element := range after.names {
		was, found := before.at.Get(element)
		switch {
		case !found:
			ok = c.only(elem, y.Index(i), element, c.Added)
		case n.kind == keyed:
			ok = c.both(elem, x.Index(was.(int)), y.Index(i), element)
		}
		if !ok {
			return false
		}
	}
	for i, element := range before.names {
		if _, found := after.at.Get(element); !found && !c.only(elem, x.Index(i), element, c.Removed) {
			return false
		}
	}
	return true
}

// single is what an element of a set is.
var single = &node{kind: leaf}

// names are those of the elements of a list, and where each stands.
type names struct {
	names []fieldpath.PathElement
	at    fieldpath.PathElementMap
}

// named names the elements of a list. It is false where two have the same name.
func named(n *node, list reflect.Value) (names, bool) {
	all := names{make([]fieldpath.PathElement, list.Len()), fieldpath.MakePathElementMap(list.Len())}
	for i := range all.names {
		element, ok := name(n, list.Index(i))
		if !ok {
			return all, false
		}
		if _, twice := all.at.Get(element); twice {
			return all, false
		}
		all.names[i] = element
		all.at.Insert(element, i)
	}
	return all, true
}

// name is how an element of a list is called.
func name(n *node, item reflect.Value) (fieldpath.PathElement, bool) {
	if n.kind == set {
		of := value.NewValueInterface(item.String())
		return fieldpath.PathElement{Value: &of}, true
	}
	if item.Kind() == reflect.Pointer {
		return fieldpath.PathElement{}, false
	}
	return keyElement(n, item)
}
