// SPDX-License-Identifier: Apache-2.0

package fieldset

import (
	"cmp"
	"slices"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// maxUpdaters is how many entries of updates are kept apart; the library merges
// the oldest of more.
const maxUpdaters = 10

// Write says who changed an object, and what.
type Write struct {
	Manager, Subresource, APIVersion string
	Difference                       Difference
	// Reset are the fields that the write cannot change; nil is none.
	Reset *fieldpath.Set
	// Stripped are fields that nobody owns.
	Stripped *fieldpath.Set
}

// owner is an entry of managedFields.
type owner struct {
	metav1.ManagedFieldsEntry
	fields *fieldpath.Set
	// raw is the encoding of fields, nil when they have changed.
	raw []byte
}

// Owners returns the managedFields of an object after a write, given those before,
// which are all of the write's version. ok is false where it takes the library to
// tell.
func (p *Plan) Owners(entries []metav1.ManagedFieldsEntry, w *Write) (_ []metav1.ManagedFieldsEntry, ok bool) {
	owners, ok := p.owners(entries, w.APIVersion)
	if !ok || !utf8.ValidString(w.Manager) {
		return nil, false
	}
	d := w.Difference
	if w.Reset != nil {
		d = Difference{d.Removed.RecursiveDifference(w.Reset), d.Modified.RecursiveDifference(w.Reset), d.Added.RecursiveDifference(w.Reset)}
	}
	written := d.Modified.Union(d.Added)
	for i := range owners {
		owners[i].lose(written)
		owners[i].lose(d.Removed)
	}
	owners = slices.DeleteFunc(owners, func(o owner) bool { return o.fields.Empty() })
	if own := written.Difference(w.Stripped); !own.Empty() {
		owners = gain(owners, w, own)
	}
	updaters := 0
	for i := range owners {
		if owners[i].Operation == metav1.ManagedFieldsOperationUpdate {
			updaters++
		}
	}
	if updaters > maxUpdaters {
		return nil, false
	}
	return encode(owners)
}

// owners decodes entries, which must be as the library would accept them.
func (p *Plan) owners(entries []metav1.ManagedFieldsEntry, version string) ([]owner, bool) {
	owners := make([]owner, 0, len(entries)+1)
	for i := range entries {
		e := &entries[i]
		applied := e.Operation == metav1.ManagedFieldsOperationApply
		if !applied && e.Operation != metav1.ManagedFieldsOperationUpdate || e.APIVersion != version ||
			e.FieldsType != "FieldsV1" || e.FieldsV1 == nil || !utf8.ValidString(e.Manager) || !utf8.ValidString(e.Subresource) {
			return nil, false
		}
		o := owner{ManagedFieldsEntry: *e}
		if slices.ContainsFunc(owners, o.is) {
			return nil, false
		}
		var ok bool
		if o.fields, o.raw, ok = p.known.decode(p, e.FieldsV1.GetRawString()); !ok {
			return nil, false
		}
		owners = append(owners, o)
	}
	return owners, true
}

// is says that two entries are the same manager's.
func (o *owner) is(p owner) bool {
	return o.Manager == p.Manager && o.Operation == p.Operation && o.Subresource == p.Subresource
}

// lose takes fields that another has written or that are gone.
func (o *owner) lose(fields *fieldpath.Set) {
	if fields.Empty() || o.fields.Intersection(fields).Empty() {
		return
	}
	o.fields, o.raw = o.fields.Difference(fields), nil
}

// gain gives the writer what it has written.
func gain(owners []owner, w *Write, fields *fieldpath.Set) []owner {
	now := metav1.NewTime(time.Now().UTC())
	own := owner{fields: fields, ManagedFieldsEntry: metav1.ManagedFieldsEntry{
		Manager: cmp.Or(w.Manager, "unknown"), Operation: metav1.ManagedFieldsOperationUpdate,
		APIVersion: w.APIVersion, Subresource: w.Subresource, Time: &now,
	}}
	at := slices.IndexFunc(owners, own.is)
	if at < 0 {
		return append(owners, own)
	}
	before := &owners[at]
	before.Time = &now
	if all := before.fields.Union(fields); !all.Equals(before.fields) {
		before.fields, before.raw = all, nil
	}
	return owners
}

// encode returns the entries in the library's order.
func encode(owners []owner) ([]metav1.ManagedFieldsEntry, bool) {
	if len(owners) == 0 {
		return nil, true
	}
	entries := make([]metav1.ManagedFieldsEntry, len(owners))
	for i := range owners {
		o := &owners[i]
		if o.raw == nil {
			var err error
			if o.raw, err = o.fields.ToJSON(); err != nil {
				return nil, false
			}
		}
		entries[i] = o.ManagedFieldsEntry
		entries[i].FieldsType, entries[i].FieldsV1 = "FieldsV1", &metav1.FieldsV1{Raw: o.raw}
	}
	slices.SortFunc(entries, func(a, b metav1.ManagedFieldsEntry) int {
		return cmp.Or(cmp.Compare(a.Operation, b.Operation), cmp.Compare(seconds(a.Time), seconds(b.Time)),
			cmp.Compare(a.Manager, b.Manager), cmp.Compare(a.APIVersion, b.APIVersion), cmp.Compare(a.Subresource, b.Subresource))
	})
	return entries, true
}

func seconds(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}
