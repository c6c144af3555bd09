// SPDX-License-Identifier: Apache-2.0

// Package merge keeps how the fields of objects merge, which is what server-side
// apply and managedFields need to know of a type, in a compact form: reading all
// built-in types takes a few milliseconds, where making them of their OpenAPI
// definitions takes a hundred.
//
// Package openapi embeds the built-in types in this form and makes a converter of
// them. Nothing here knows OpenAPI or any kind.
package merge

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// Types are type definitions, and the names of those that are kinds.
type Types struct {
	Definitions []smd.TypeDef
	Kinds       map[schema.GroupVersionKind]string
}

// The parts that a reference to a type or an atom can have, as bits.
const (
	named = 1 << iota
	related
	scalar
	list
	mapped
)

// Encode returns the compact form of t: a table of strings, the definitions, and
// the kinds. Numbers are varints; everything with a name is a number of the table.
func Encode(t Types) ([]byte, error) {
	w := &writer{index: map[string]uint64{}}
	w.number(len(t.Definitions))
	for i := range t.Definitions {
		w.text(t.Definitions[i].Name)
		w.atom(&t.Definitions[i].Atom, 0)
	}
	kinds := slices.SortedFunc(maps.Keys(t.Kinds), func(a, b schema.GroupVersionKind) int {
		return slices.Compare([]string{a.Group, a.Version, a.Kind}, []string{b.Group, b.Version, b.Kind})
	})
	w.number(len(kinds))
	for _, kind := range kinds {
		w.text(kind.Group)
		w.text(kind.Version)
		w.text(kind.Kind)
		w.text(t.Kinds[kind])
	}
	if w.err != nil {
		return nil, w.err
	}
	var out []byte
	out = binary.AppendUvarint(out, uint64(len(w.table)))
	for _, s := range w.table {
		out = binary.AppendUvarint(out, uint64(len(s)))
		out = append(out, s...)
	}
	return append(out, w.out...), nil
}

type writer struct {
	table []string
	index map[string]uint64 // of table
	out   []byte
	err   error
}

func (w *writer) number(n int) { w.out = binary.AppendUvarint(w.out, uint64(n)) }

func (w *writer) text(s string) {
	i, ok := w.index[s]
	if !ok {
		i = uint64(len(w.table))
		w.index[s] = i
		w.table = append(w.table, s)
	}
	w.out = binary.AppendUvarint(w.out, i)
}

func (w *writer) ref(r *smd.TypeRef) {
	var parts byte
	if r.NamedType != nil {
		parts |= named
	}
	if r.ElementRelationship != nil {
		parts |= related
	}
	w.atom(&r.Inlined, parts)
	if r.NamedType != nil {
		w.text(*r.NamedType)
	}
	if r.ElementRelationship != nil {
		w.text(string(*r.ElementRelationship))
	}
}

// atom writes an atom behind its parts and those that are given.
func (w *writer) atom(a *smd.Atom, parts byte) {
	if a.Scalar != nil {
		parts |= scalar
	}
	if a.List != nil {
		parts |= list
	}
	if a.Map != nil {
		parts |= mapped
	}
	w.out = append(w.out, parts)
	if a.Scalar != nil {
		w.text(string(*a.Scalar))
	}
	if a.List != nil {
		w.ref(&a.List.ElementType)
		w.text(string(a.List.ElementRelationship))
		w.number(len(a.List.Keys))
		for _, key := range a.List.Keys {
			w.text(key)
		}
	}
	if a.Map != nil {
		w.fields(a.Map)
	}
}

func (w *writer) fields(m *smd.Map) {
	if len(m.Unions) > 0 {
		w.err = errors.Join(w.err, errors.New("unions are not supported"))
	}
	w.ref(&m.ElementType)
	w.text(string(m.ElementRelationship))
	w.number(len(m.Fields))
	for i := range m.Fields {
		field := &m.Fields[i]
		w.text(field.Name)
		w.ref(&field.Type)
		value := []byte{}
		if field.Default != nil {
			var err error
			if value, err = json.Marshal(field.Default); err != nil {
				w.err = errors.Join(w.err, fmt.Errorf("default of %s: %w", field.Name, err))
			}
		}
		w.text(string(value))
	}
}
