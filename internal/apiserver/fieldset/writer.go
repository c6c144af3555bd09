// SPDX-License-Identifier: Apache-2.0

package fieldset

import (
	"strconv"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// writer writes what it takes as FieldsV1, byte for byte what the library makes
// of the same set.
type writer struct {
	out    []byte
	levels []level
	// last is a member that may yet be entered; valid while held.
	last fieldpath.PathElement
	held bool
	// reset and stripped are what is left out at each level, as far as there is
	// any; muted counts the levels below one that is left out altogether.
	reset, stripped []*fieldpath.Set
	muted           int
	// strange says that there was a name that is not written here.
	strange bool
}

// level is an element that was entered. It is written with the first that is
// found below it.
type level struct {
	element fieldpath.PathElement
	member  bool // the element itself is taken
	open    bool
}

func (w *writer) member(element fieldpath.PathElement) {
	reset, stripped := w.reset[len(w.reset)-1], w.stripped[len(w.stripped)-1]
	if w.muted > 0 || reset != nil && reset.Members.Has(element) || stripped != nil && stripped.Members.Has(element) {
		return
	}
	w.settle()
	w.last, w.held = element, true
}

func (w *writer) enter(element fieldpath.PathElement) {
	if w.muted > 0 || w.reset[len(w.reset)-1] != nil && w.reset[len(w.reset)-1].Members.Has(element) {
		w.muted++
		return
	}
	of := level{element: element, member: w.held && w.last.Equals(element)}
	if of.member {
		w.held = false
	} else {
		w.settle()
	}
	w.levels = append(w.levels, of)
	w.reset = append(w.reset, below(w.reset[len(w.reset)-1], element))
	w.stripped = append(w.stripped, below(w.stripped[len(w.stripped)-1], element))
}

func below(s *fieldpath.Set, element fieldpath.PathElement) *fieldpath.Set {
	if s == nil {
		return nil
	}
	if set, ok := s.Children.Get(element); ok {
		return set
	}
	return nil
}

func (w *writer) leave() {
	if w.muted > 0 {
		w.muted--
		return
	}
	w.settle()
	last := len(w.levels) - 1
	of := w.levels[last]
	w.levels, w.reset, w.stripped = w.levels[:last], w.reset[:len(w.reset)-1], w.stripped[:len(w.stripped)-1]
	switch {
	case of.open:
		w.out = append(w.out, '}')
	case of.member:
		w.last, w.held = of.element, true
	}
}

// settle writes the member that waits, and what it is below.
func (w *writer) settle() {
	if !w.held {
		return
	}
	w.held = false
	for i := range w.levels {
		of := &w.levels[i]
		if of.open {
			continue
		}
		of.open = true
		w.name(of.element)
		w.out = append(w.out, '{')
		if of.member {
			w.out = append(w.out, `".":{}`...)
		}
	}
	w.name(w.last)
	w.out = append(w.out, "{}"...)
}

// document returns all that was taken, nil for nothing.
func (w *writer) document() []byte {
	w.settle()
	if len(w.out) == 0 {
		return nil
	}
	return append(w.out, '}')
}

// name writes the name of an element, and what goes before it.
func (w *writer) name(element fieldpath.PathElement) {
	switch n := len(w.out); {
	case n == 0:
		w.out = append(w.out, '{')
	case w.out[n-1] != '{':
		w.out = append(w.out, ',')
	}
	switch {
	case element.FieldName != nil:
		w.out = append(w.out, `"f:`...)
		w.text(*element.FieldName)
	case element.Key != nil:
		w.out = append(w.out, `"k:{`...)
		for i, field := range *element.Key {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.out = append(w.out, `\"`...)
			w.text(field.Name)
			w.out = append(w.out, `\":`...)
			w.scalar(field.Value)
		}
		w.out = append(w.out, '}')
	default:
		w.out = append(w.out, `"v:`...)
		w.scalar(*element.Value)
	}
	w.out = append(w.out, `":`...)
}

// scalar writes a value within a name.
func (w *writer) scalar(v value.Value) {
	switch {
	case v.IsString():
		w.out = append(w.out, `\"`...)
		w.text(v.AsString())
		w.out = append(w.out, `\"`...)
	case v.IsInt():
		w.out = strconv.AppendInt(w.out, v.AsInt(), 10)
	case v.IsBool():
		w.out = strconv.AppendBool(w.out, v.AsBool())
	default:
		w.strange = true
	}
}

// text writes what needs no escapes.
func (w *writer) text(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			w.strange = true
			return
		}
	}
	w.out = append(w.out, s...)
}
