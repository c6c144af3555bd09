// SPDX-License-Identifier: Apache-2.0

package object

import (
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"kaji/internal/api"
	"kaji/internal/apiserver/fieldset"
	"kaji/internal/apiserver/request"
)

// track records in managedFields that manager wrote what differs between live
// and obj, in the version of the request. It never fails: where the fields
// cannot be worked out, they are left out.
func (o *Objects) track(in *request.Info, live, obj api.Object, manager string) (api.Object, error) {
	m, err := o.FieldManager(in.Served, in.Subresource)
	if err != nil {
		return nil, err
	}
	if !plain(in.Served, live, obj) {
		return m.UpdateNoErrors(live, obj, manager).(api.Object), nil
	}
	if live.GetUID() == "" {
		if o.trackCreated(in, obj, manager) {
			return obj, nil
		}
		return m.UpdateNoErrors(live, obj, manager).(api.Object), nil
	}
	if o.trackChanged(in, live, obj, manager) {
		return obj, nil
	}
	before, after := fieldset.Changed(live, obj)
	tracked := m.UpdateNoErrors(before.(runtime.Object), after.(runtime.Object), manager)
	obj.SetManagedFields(tracked.(api.Object).GetManagedFields())
	return obj, nil
}

// TrackChange records in managedFields who made obj of live, both hub objects; obj
// becomes the layer's own.
func (o *Objects) TrackChange(in *request.Info, live, obj api.Object, manager string) (api.Object, error) {
	return o.track(in, live, obj, manager)
}

// plain says that objects are compared as they are: nobody wrote them in another
// version.
func plain(s *request.Served, objs ...api.Object) bool {
	if s.Kind.Custom || !s.Hub {
		return false
	}
	version := s.GVK.GroupVersion().String()
	for _, obj := range objs {
		if obj.GetObjectKind().GroupVersionKind() != s.GVK {
			return false
		}
		for _, entry := range obj.GetManagedFields() {
			if entry.APIVersion != version {
				return false
			}
		}
	}
	return true
}

// stripped are the fields that nobody owns, for they are the server's.
var stripped = fieldpath.NewSet(
	fieldpath.MakePathOrDie("apiVersion"),
	fieldpath.MakePathOrDie("kind"),
	fieldpath.MakePathOrDie("metadata"),
	fieldpath.MakePathOrDie("metadata", "name"),
	fieldpath.MakePathOrDie("metadata", "namespace"),
	fieldpath.MakePathOrDie("metadata", "creationTimestamp"),
	fieldpath.MakePathOrDie("metadata", "selfLink"),
	fieldpath.MakePathOrDie("metadata", "uid"),
	fieldpath.MakePathOrDie("metadata", "clusterName"),
	fieldpath.MakePathOrDie("metadata", "generation"),
	fieldpath.MakePathOrDie("metadata", "managedFields"),
	fieldpath.MakePathOrDie("metadata", "resourceVersion"),
)

// trackCreated records who made obj. It is false where that takes a comparison.
func (o *Objects) trackCreated(in *request.Info, obj api.Object, manager string) bool {
	if in.Subresource != "" || len(obj.GetManagedFields()) > 0 {
		return false
	}
	p := o.plans.of(o, in.Served, "")
	if p.Plan == nil {
		return false
	}
	raw, ok := p.Created(obj, p.reset, stripped)
	if !ok {
		return false
	}
	if raw == nil {
		obj.SetManagedFields(nil)
		return true
	}
	now := metav1.NewTime(time.Now().UTC())
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: in.Served.GVK.GroupVersion().String(),
		Time: &now, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: raw},
	}})
	return true
}

// trackChanged records who made obj of live. It is false where that takes the
// library.
func (o *Objects) trackChanged(in *request.Info, live, obj api.Object, manager string) bool {
	entries := obj.GetManagedFields()
	switch {
	case in.Subresource != "" || entries == nil:
		entries = live.GetManagedFields()
	case len(entries) == 1 && reflect.DeepEqual(entries[0], metav1.ManagedFieldsEntry{}):
		return false // a reset
	}
	if len(entries) == 0 {
		return false
	}
	p := o.plans.of(o, in.Served, in.Subresource)
	if p.Plan == nil {
		return false
	}
	difference, ok := p.Compare(live, obj)
	if !ok {
		return false
	}
	entries, ok = p.Owners(entries, &fieldset.Write{
		Manager: manager, Subresource: in.Subresource, APIVersion: in.Served.GVK.GroupVersion().String(),
		Difference: difference, Reset: p.reset, Stripped: stripped,
	})
	if ok {
		obj.SetManagedFields(entries)
	}
	return ok
}

// plans holds how the fields of objects are told apart, a kind, version and
// subresource each, made at first use.
type plans struct{ made sync.Map } // planKey to *plan

type planKey struct {
	kind        *api.Kind
	version     schema.GroupVersionKind
	subresource string
}

// plan is that of one; without a Plan there is none.
type plan struct {
	*fieldset.Plan
	reset *fieldpath.Set // what cannot be written this way; nil is nothing
}

func (c *plans) of(o *Objects, s *request.Served, subresource string) *plan {
	key := planKey{s.Kind, s.GVK, subresource}
	if p, ok := c.made.Load(key); ok {
		return p.(*plan)
	}
	p := &plan{reset: resetFields(s, subresource)}
	if subresource == "" {
		p.Plan = makePlan(o.TypeConverter, s)
	} else {
		p.Plan = c.of(o, s, "").Plan
	}
	c.made.Store(key, p)
	return p
}

func makePlan(converters func(*api.Kind) (managedfields.TypeConverter, error), s *request.Served) *fieldset.Plan {
	types, err := converters(s.Kind)
	if err != nil {
		return nil
	}
	empty := Empty(s)
	typed, err := types.ObjectToTyped(empty)
	if err != nil {
		return nil
	}
	p, ok := fieldset.Compile(reflect.TypeOf(empty), typed.Schema(), typed.TypeRef())
	if !ok {
		return nil
	}
	return p
}
