// SPDX-License-Identifier: Apache-2.0

package list

import (
	"iter"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
)

// Selection says which objects of a resource are meant.
type Selection struct {
	Served *request.Served
	// Namespace and Name are empty for all.
	Namespace, Name string
	// Labels and Fields are nil for all.
	Labels labels.Selector
	Fields fields.Selector
}

// All says that nothing but a namespace narrows the selection.
func (s *Selection) All() bool { return s.Name == "" && s.Labels == nil && s.Fields == nil }

// Matches says whether an entry is selected, wherever it lives.
func (s *Selection) Matches(e *cache.Entry) bool { return s.matches(e, nil) }

// Sees says whether the objects after and before an event are selected,
// wherever they live.
func (s *Selection) Sees(event *cache.Event) (now, before bool) {
	return !event.Deleted && s.matches(event.Entry, event), event.Prev != nil && s.matches(event.Prev, event)
}

func (s *Selection) matches(e *cache.Entry, of *cache.Event) bool {
	return (s.Namespace == "" || s.inNamespace(e.Key)) && s.named(e.Object) && s.hasFields(e, of)
}

func (s *Selection) inNamespace(key string) bool {
	rest := key[len(s.Served.Kind.Prefix)+1:]
	return len(rest) > len(s.Namespace) && rest[len(s.Namespace)] == '/' && strings.HasPrefix(rest, s.Namespace)
}

func (s *Selection) selected(e *cache.Entry) bool {
	return s.named(e.Object) && s.hasFields(e, nil)
}

// named says whether an object's name and labels are those selected.
func (s *Selection) named(obj api.Object) bool {
	if s.Name != "" && obj.GetName() != s.Name {
		return false
	}
	return s.Labels == nil || s.Labels.Matches(labels.Set(obj.GetLabels()))
}

// hasFields says whether an object's fields are those selected. Watchers name
// the event that shares them.
func (s *Selection) hasFields(e *cache.Entry, of *cache.Event) bool {
	if s.Fields == nil {
		return true
	}
	obj := e.Object
	if codec.Asks(s.Served) {
		// The fields are those of the version that asks.
		shown, err := InVersion(s.Served, e)
		if err != nil {
			return true // encoding it fails the same way, and says so
		}
		obj, of = shown, nil
	}
	return s.Fields.Matches(fieldsOf{s.Served.Kind, obj, e, of})
}

// fieldsOf shows an object's selectable fields; those beyond its name and
// namespace are computed when they are asked for.
type fieldsOf struct {
	kind  *api.Kind
	obj   api.Object
	entry *cache.Entry
	event *cache.Event // that keeps them, or nil
}

// all returns the fields of the kind.
func (f fieldsOf) all() fields.Set {
	read := func() fields.Set { return f.kind.Rules.Fields(f.obj) }
	if f.event == nil {
		return read()
	}
	return f.event.Fields(f.entry, read)
}

func (f fieldsOf) Get(field string) string {
	switch field {
	case "metadata.name":
		return f.obj.GetName()
	case "metadata.namespace":
		return f.obj.GetNamespace()
	}
	if f.kind.Rules.Fields == nil {
		return ""
	}
	return f.all()[field]
}

func (f fieldsOf) Has(field string) bool {
	if field == "metadata.name" || field == "metadata.namespace" {
		return true
	}
	if f.kind.Rules.Fields == nil {
		return false
	}
	_, ok := f.all()[field]
	return ok
}

// Entries returns the selected entries of a snapshot in order.
func (s *Selection) Entries(at *cache.Snapshot) iter.Seq[*cache.Entry] { return s.from(at, "") }

// from returns the selected entries of a snapshot in order, beginning with the
// key start, along an index where one helps.
func (s *Selection) from(at *cache.Snapshot, start string) iter.Seq[*cache.Entry] {
	all := at.All(s.Namespace, start)
	switch {
	case s.All():
		return all
	case s.Name != "" && (s.Namespace != "" || !s.Served.Kind.Namespaced):
		key := s.Served.Kind.Key(s.Namespace, s.Name)
		all = func(yield func(*cache.Entry) bool) {
			if e, ok := at.Get(key); ok && key >= start {
				yield(e)
			}
		}
	case s.Fields != nil:
		for _, field := range s.Served.Kind.IndexedFields {
			if value, ok := s.Fields.RequiresExactMatch(field); ok && at.Indexed(field) {
				all = at.Select(s.Namespace, start, field, value)
				break
			}
		}
	}
	if s.Fields != nil && codec.Asks(s.Served) {
		return s.fromConverted(all)
	}
	return func(yield func(*cache.Entry) bool) {
		for e := range all {
			if s.selected(e) && !yield(e) {
				return
			}
		}
	}
}

// fromConverted selects from entries whose fields only a webhook can tell: they
// are converted many at a time. Those that cannot be are selected, and whoever
// encodes them finds out why.
func (s *Selection) fromConverted(all iter.Seq[*cache.Entry]) iter.Seq[*cache.Entry] {
	return func(yield func(*cache.Entry) bool) {
		var some []*cache.Entry
		flush := func() bool {
			failed := Convert(s.Served, some) != nil
			for _, e := range some {
				if (failed || s.hasFields(e, nil)) && !yield(e) {
					return false
				}
			}
			some = some[:0]
			return true
		}
		for e := range all {
			if !s.named(e.Object) {
				continue
			}
			if some = append(some, e); len(some) == maxConverted && !flush() {
				return
			}
		}
		flush()
	}
}
