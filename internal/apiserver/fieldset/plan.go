// SPDX-License-Identifier: Apache-2.0

// Package fieldset makes managedFields cheap for Go objects. The library
// structured-merge-diff compares any two values by a schema; most writes do not
// need that: a creation owns what the new object has (Created), an update is compared
// by walking the two Go objects at once (Compare), and owners whose fields it did not
// touch are neither decoded nor encoded (Owners). What is left to the library is at
// least freed of what is the same on both sides (Changed).
//
// The object layer calls it. It decides nothing itself: each answer is the
// library's own, which the tests compare, or none.
package fieldset

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Plan is how a Go type's values are walked by a schema. It is safe for concurrent
// use.
type Plan struct {
	root  *node
	none  *typed.TypedValue // nothing, of the schema's type
	known known
}

// node is what the schema says of a Go type.
type node struct {
	kind   kind
	fields []field  // of a structure
	elem   *node    // of a map or list
	keys   []*field // of a list whose elements have keys
}

// kind is how a value is owned.
type kind int

const (
	leaf      kind = iota // as one
	structure             // each field by itself
	table                 // each entry of a map by itself
	keyed                 // each element of a list by its keys
	set                   // each element of a list by its value
	unknown               // by what it turns out to be: left to the library
)

// field is a field of a structure, as JSON has it.
type field struct {
	*value.FieldCacheEntry
	element fieldpath.PathElement
	node    *node
	// always says that a zero value is written, too.
	always bool
	// fallback is what an absent key counts as.
	fallback any
}

// Compile makes the plan of a Go type. ok is false where the type and the schema
// do not fit.
func Compile(t reflect.Type, s *schema.Schema, ref schema.TypeRef) (p *Plan, ok bool) {
	c := compiler{schema: s, done: map[string]*node{}}
	root := c.node(t, ref)
	// The empty object has the same of these.
	root.fields = slices.DeleteFunc(root.fields, func(f field) bool { return f.JsonName == "apiVersion" || f.JsonName == "kind" })
	none := typed.AsTypedUnvalidated(value.NewValueInterface(map[string]any{}), s, ref)
	return &Plan{root: root, none: none}, root.kind == structure
}

type compiler struct {
	schema *schema.Schema
	done   map[string]*node // by Go type and name in the schema
}

func (c *compiler) node(t reflect.Type, ref schema.TypeRef) *node {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	atom, ok := c.schema.Resolve(ref)
	if !ok {
		return &node{kind: unknown}
	}
	if ref.NamedType == nil {
		n := &node{}
		c.fill(n, t, atom)
		return n
	}
	key := t.PkgPath() + "." + t.String() + "=" + *ref.NamedType
	if ref.ElementRelationship != nil {
		key += " " + string(*ref.ElementRelationship)
	}
	if n := c.done[key]; n != nil {
		return n
	}
	n := &node{}
	c.done[key] = n // types can hold themselves
	c.fill(n, t, atom)
	return n
}

// scalars are structures that are written as a number or text where the schema
// also allows for more.
var scalars = []reflect.Type{
	reflect.TypeFor[intstr.IntOrString](), reflect.TypeFor[resource.Quantity](), reflect.TypeFor[metav1.Time](),
	reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[metav1.Duration](),
}

func (c *compiler) fill(n *node, t reflect.Type, atom schema.Atom) {
	entry := value.TypeReflectEntryOf(t)
	converts := entry.CanConvertToUnstructured()
	switch {
	case atom.Scalar != nil && (atom.List == nil && atom.Map == nil || slices.Contains(scalars, t)):
		n.kind = leaf
	case atom.Scalar != nil || atom.List != nil && atom.Map != nil:
		n.kind = unknown
	case atom.Map != nil:
		c.fillMap(n, t, atom.Map, converts)
	case atom.List != nil:
		c.fillList(n, t, atom.List, converts)
	default:
		n.kind = unknown
	}
}

func (c *compiler) fillMap(n *node, t reflect.Type, m *schema.Map, converts bool) {
	switch {
	case m.ElementRelationship == schema.Atomic:
		n.kind = leaf
	case converts:
		n.kind = unknown
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && len(m.Fields) == 0:
		n.kind, n.elem = table, c.node(t.Elem(), m.ElementType)
	case t.Kind() == reflect.Struct:
		n.kind = structure
		for _, entry := range value.TypeReflectEntryOf(t).OrderedFields() {
			n.fields = append(n.fields, c.field(t, m, entry))
		}
	default:
		n.kind = unknown
	}
}

func (c *compiler) field(t reflect.Type, m *schema.Map, entry *value.FieldCacheEntry) field {
	zero := entry.GetFrom(reflect.Zero(t))
	f := field{
		FieldCacheEntry: entry,
		element:         fieldpath.FieldNameElement(entry.JsonName),
		node:            &node{kind: unknown},
		always:          !entry.CanOmit(zero),
	}
	if described, ok := m.FindField(entry.JsonName); ok {
		f.node, f.fallback = c.node(zero.Type(), described.Type), described.Default
	}
	return f
}

func (c *compiler) fillList(n *node, t reflect.Type, l *schema.List, converts bool) {
	scalars := t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8
	switch {
	case l.ElementRelationship == schema.Atomic:
		n.kind = leaf
	case converts || !scalars:
		n.kind = unknown
	case len(l.Keys) == 0 && t.Elem().Kind() == reflect.String && !value.TypeReflectEntryOf(t.Elem()).CanConvertToUnstructured():
		n.kind = set
	case len(l.Keys) > 0 && t.Elem().Kind() == reflect.Struct:
		n.kind, n.elem = keyed, c.node(t.Elem(), l.ElementType)
		if n.keys = c.keys(t.Elem(), l); n.keys == nil {
			n.kind = unknown
		}
	default:
		n.kind = unknown
	}
}

// keys are the fields that tell a list's elements apart; nil where some are not
// fields of the Go type.
func (c *compiler) keys(t reflect.Type, l *schema.List) []*field {
	atom, ok := c.schema.Resolve(l.ElementType)
	if !ok || atom.Map == nil {
		return nil
	}
	var keys []*field
	for _, name := range slices.Sorted(slices.Values(l.Keys)) {
		entry := value.TypeReflectEntryOf(t).Fields()[name]
		if entry == nil {
			return nil
		}
		described, _ := atom.Map.FindField(name)
		keys = append(keys, &field{FieldCacheEntry: entry, fallback: described.Default})
	}
	return keys
}
