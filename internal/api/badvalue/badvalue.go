// SPDX-License-Identifier: Apache-2.0

// Package badvalue renders a rejected value in a field error as clients of the
// reference implementation see it.
//
// The reference validates over types of its own whose fields carry no JSON
// names, so that a rejected strategy reads {"Type":"X","RollingUpdate":null}
// where the external form would be {"type":"X"}. Types of the meta group and
// values that marshal themselves (quantities, int-or-string) are the same in
// both. Validation in the kinds' packages wraps the structs it rejects with Of.
package badvalue

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// Of returns v so that it marshals to JSON under its Go field names. The value
// must not change until then.
func Of(v any) json.Marshaler { return untagged{v} }

type untagged struct{ value any }

func (u untagged) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	if err := write(&b, reflect.ValueOf(u.value)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

var marshaler = reflect.TypeFor[json.Marshaler]()

// write appends v. Structs of API groups lose their JSON names; everything else
// is as encoding/json has it.
func write(b *bytes.Buffer, v reflect.Value) error {
	if !v.IsValid() {
		b.WriteString("null")
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			b.WriteString("null")
			return nil
		}
		return write(b, v.Elem())
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
			return writeJSON(b, v)
		}
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := write(b, v.Index(i)); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	case reflect.Struct:
		if !grouped(v.Type()) {
			return writeJSON(b, v)
		}
		b.WriteByte('{')
		if err := writeFields(b, v); err != nil {
			return err
		}
		b.WriteByte('}')
		return nil
	default:
		return writeJSON(b, v)
	}
}

// grouped says whether t is a struct of an API group with no JSON form of its own.
func grouped(t reflect.Type) bool {
	path := t.PkgPath()
	if !strings.HasPrefix(path, "k8s.io/api/") && !strings.Contains(path, "/pkg/apis/") || strings.Contains(path, "/apis/meta/") {
		return false
	}
	return !t.Implements(marshaler) && !reflect.PointerTo(t).Implements(marshaler)
}

func writeFields(b *bytes.Buffer, v reflect.Value) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		var inner bytes.Buffer
		if embedded(f) {
			if err := writeEmbedded(&inner, v.Field(i)); err != nil {
				return err
			}
		} else {
			inner.WriteByte('"')
			inner.WriteString(f.Name)
			inner.WriteString(`":`)
			if err := write(&inner, v.Field(i)); err != nil {
				return err
			}
		}
		if inner.Len() == 0 {
			continue
		}
		if last := b.Bytes()[b.Len()-1]; last != '{' {
			b.WriteByte(',')
		}
		b.Write(inner.Bytes())
	}
	return nil
}

// embedded says whether the field's own fields stand in its place.
func embedded(f reflect.StructField) bool {
	return f.Anonymous && f.Type.Kind() == reflect.Struct
}

func writeEmbedded(b *bytes.Buffer, v reflect.Value) error {
	if grouped(v.Type()) {
		b.WriteByte('{')
		if err := writeFields(b, v); err != nil {
			return err
		}
		trimmed := append([]byte(nil), b.Bytes()[1:]...)
		b.Reset()
		b.Write(trimmed)
		return nil
	}
	raw, err := json.Marshal(v.Interface())
	if err != nil {
		return err
	}
	b.Write(raw[1 : len(raw)-1])
	return nil
}

func writeJSON(b *bytes.Buffer, v reflect.Value) error {
	raw, err := json.Marshal(v.Interface())
	if err != nil {
		return err
	}
	b.Write(raw)
	return nil
}
