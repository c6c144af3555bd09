// SPDX-License-Identifier: Apache-2.0

package merge

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/runtime/schema"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// errBroken says that data is not what Encode wrote.
var errBroken = errors.New("broken merge types")

// Decode reads what Encode wrote.
func Decode(data []byte) (Types, error) {
	r := &reader{data: string(data), scalars: map[string]*smd.Scalar{}, relationships: map[string]*smd.ElementRelationship{}}
	r.table = make([]string, r.count())
	for i := range r.table {
		r.table[i] = r.bytes(r.count())
	}
	t := Types{Definitions: make([]smd.TypeDef, r.count())}
	for i := range t.Definitions {
		t.Definitions[i].Name = r.text()
		r.atom(&t.Definitions[i].Atom, r.part())
	}
	n := r.count()
	t.Kinds = make(map[schema.GroupVersionKind]string, n)
	for range n {
		kind := schema.GroupVersionKind{Group: r.text(), Version: r.text(), Kind: r.text()}
		t.Kinds[kind] = r.text()
	}
	if r.err != nil || r.data != "" {
		return Types{}, errors.Join(errBroken, r.err)
	}
	return t, nil
}

// reader reads until the first error; from then on everything is zero. Strings
// share the memory of data.
type reader struct {
	data  string
	table []string
	err   error

	scalars       map[string]*smd.Scalar
	relationships map[string]*smd.ElementRelationship
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.data = ""
}

func (r *reader) number() uint64 {
	var head [binary.MaxVarintLen64]byte
	n, size := binary.Uvarint(head[:copy(head[:], r.data)])
	if size <= 0 {
		r.fail(errBroken)
		return 0
	}
	r.data = r.data[size:]
	return n
}

// count is a number of things of a byte at least, which are still to be read.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.data)) {
		r.fail(errBroken)
		return 0
	}
	return int(n)
}

func (r *reader) bytes(n int) string {
	if n > len(r.data) {
		r.fail(errBroken)
		return ""
	}
	s := r.data[:n]
	r.data = r.data[n:]
	return s
}

func (r *reader) part() byte {
	if s := r.bytes(1); s != "" {
		return s[0]
	}
	return 0
}

// place is where a string of the table stands.
func (r *reader) place() *string {
	n := r.number()
	if n >= uint64(len(r.table)) {
		r.fail(errBroken)
		return new(string)
	}
	return &r.table[n]
}

func (r *reader) text() string { return *r.place() }

func (r *reader) ref(t *smd.TypeRef) {
	parts := r.part()
	r.atom(&t.Inlined, parts)
	if parts&named != 0 {
		t.NamedType = r.place()
	}
	if parts&related != 0 {
		t.ElementRelationship = shared(r.relationships, r.text())
	}
}

// shared returns the one pointer to a value of few.
func shared[T ~string](known map[string]*T, s string) *T {
	p, ok := known[s]
	if !ok {
		value := T(s)
		p, known[s] = &value, &value
	}
	return p
}

func (r *reader) atom(a *smd.Atom, parts byte) {
	if parts&scalar != 0 {
		a.Scalar = shared(r.scalars, r.text())
	}
	if parts&list != 0 {
		a.List = &smd.List{}
		r.ref(&a.List.ElementType)
		a.List.ElementRelationship = smd.ElementRelationship(r.text())
		if n := r.count(); n > 0 {
			a.List.Keys = make([]string, n)
		}
		for i := range a.List.Keys {
			a.List.Keys[i] = r.text()
		}
	}
	if parts&mapped != 0 {
		a.Map = &smd.Map{}
		r.fields(a.Map)
	}
}

func (r *reader) fields(m *smd.Map) {
	r.ref(&m.ElementType)
	m.ElementRelationship = smd.ElementRelationship(r.text())
	if n := r.count(); n > 0 {
		m.Fields = make([]smd.StructField, n)
	}
	for i := range m.Fields {
		m.Fields[i].Name = r.text()
		r.ref(&m.Fields[i].Type)
		m.Fields[i].Default = r.value(r.text())
	}
}

// value reads a default.
func (r *reader) value(text string) (out any) {
	switch text {
	case "":
		return nil
	case "{}":
		return map[string]any{}
	case `""`:
		return ""
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		r.fail(err)
	}
	return out
}
