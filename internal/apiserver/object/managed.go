// SPDX-License-Identifier: Apache-2.0

package object

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"kaji/internal/api"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
)

// managers holds the field managers, one a kind, version and subresource, made
// at first use.
type managers struct {
	objects *Objects
	mu      sync.RWMutex
	made    map[managerKey]*managedfields.FieldManager
}

type managerKey struct {
	kind        *api.Kind
	version     schema.GroupVersion
	subresource string
}

// FieldManager returns what keeps managedFields for writes of kind in version
// s through a subresource (empty for the main resource).
func (o *Objects) FieldManager(s *request.Served, subresource string) (*managedfields.FieldManager, error) {
	key := managerKey{s.Kind, s.GVR.GroupVersion(), subresource}
	o.managers.mu.RLock()
	m := o.managers.made[key]
	o.managers.mu.RUnlock()
	if m != nil {
		return m, nil
	}
	types, err := o.TypeConverter(s.Kind)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", s.Kind.GroupResource(), err)
	}
	reset := map[fieldpath.APIVersion]fieldpath.Filter{}
	if set := resetFields(s, subresource); set != nil {
		for i := range s.Kind.Versions {
			reset[fieldpath.APIVersion(s.Kind.Versions[i].GroupVersion.String())] = fieldpath.NewExcludeSetFilter(set)
		}
	}
	c := converter{kinds: o.Kinds, kind: s.Kind}
	hub := request.ServedOf(s.Kind, codec.HubVersion(s.Kind)).GVK.GroupVersion()
	if s.Kind.Custom {
		m, err = managedfields.NewDefaultCRDFieldManager(types, c, c, c, s.GVK, hub, subresource, reset)
	} else {
		m, err = managedfields.NewDefaultFieldManager(&fastTypes{TypeConverter: types}, c, c, c, s.GVK, hub, subresource, reset)
	}
	if err != nil {
		return nil, err
	}
	o.managers.mu.Lock()
	defer o.managers.mu.Unlock()
	if o.managers.made == nil {
		o.managers.made = map[managerKey]*managedfields.FieldManager{}
	}
	o.managers.made[key] = m
	return m, nil
}

// ViewFieldManager returns what keeps managedFields of the objects of a
// subresource with a type of its own.
func (o *Objects) ViewFieldManager(s *request.Served, subresource string, gvk schema.GroupVersionKind, empty func() runtime.Object) (*managedfields.FieldManager, error) {
	key := managerKey{kind: s.Kind, version: gvk.GroupVersion(), subresource: "as:" + subresource}
	o.managers.mu.Lock()
	defer o.managers.mu.Unlock()
	if m := o.managers.made[key]; m != nil {
		return m, nil
	}
	types, err := o.TypeConverter(&api.Kind{Group: gvk.Group, Name: gvk.Kind})
	if err != nil {
		return nil, err
	}
	c := viewConverter{empty: empty}
	m, err := managedfields.NewDefaultFieldManager(types, c, c, c, gvk, gvk.GroupVersion(), subresource, nil)
	if err != nil {
		return nil, err
	}
	if o.managers.made == nil {
		o.managers.made = map[managerKey]*managedfields.FieldManager{}
	}
	o.managers.made[key] = m
	return m, nil
}

// viewConverter lets the field manager handle a type that has one version.
type viewConverter struct {
	converter
	empty func() runtime.Object
}

// ConvertToVersion implements runtime.ObjectConvertor.
func (c viewConverter) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		return in, nil
	}
	obj := c.empty()
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj)
	obj.GetObjectKind().SetGroupVersionKind(u.GroupVersionKind())
	return obj, err
}

// Default implements runtime.ObjectDefaulter.
func (viewConverter) Default(runtime.Object) {}

// New implements runtime.ObjectCreater.
func (c viewConverter) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	obj := c.empty()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// Forget drops what was built for a kind that is served no more.
func (o *Objects) Forget(kind *api.Kind) {
	o.managers.mu.Lock()
	defer o.managers.mu.Unlock()
	for key := range o.managers.made {
		if key.kind == kind {
			delete(o.managers.made, key)
		}
	}
}

func resetFields(s *request.Served, subresource string) *fieldpath.Set {
	paths := s.ResetFields()
	if subresource != "" {
		paths = nil
		if v := subresourceOf(s, subresource); v != nil {
			paths = v.ResetFields
		}
	}
	if len(paths) == 0 {
		return nil
	}
	set := fieldpath.NewSet()
	for _, dotted := range paths {
		var p fieldpath.Path
		for name := range strings.SplitSeq(dotted, ".") {
			p = append(p, fieldpath.FieldNameElement(name))
		}
		set.Insert(p)
	}
	return set
}

func subresourceOf(s *request.Served, name string) *api.Subresource {
	if status := s.Status(); name == "status" && status != nil {
		return status
	}
	for i := range s.Kind.Subresources {
		if s.Kind.Subresources[i].Name == name {
			return &s.Kind.Subresources[i]
		}
	}
	return nil
}

// converter lets the field manager convert, default and make objects of a kind.
type converter struct {
	kinds *request.Kinds
	kind  *api.Kind
}

func (c converter) served(gv schema.GroupVersion) (*request.Served, error) {
	v := c.kind.Version(gv)
	if v == nil {
		return nil, runtime.NewNotRegisteredErrForKind("kinds", gv.WithKind(c.kind.Name))
	}
	return request.ServedOf(c.kind, v), nil
}

// Convert implements runtime.ObjectConvertor; nothing calls it.
func (c converter) Convert(_, _, _ any) error { return fmt.Errorf("unexpected conversion") }

// ConvertFieldLabel implements runtime.ObjectConvertor; nothing calls it.
func (c converter) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// ConvertToVersion implements runtime.ObjectConvertor.
func (c converter) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	from := in.GetObjectKind().GroupVersionKind()
	to, ok := target.KindForGroupVersionKinds(c.names(from))
	if !ok {
		return nil, runtime.NewNotRegisteredErrForTarget("kinds", reflect.TypeOf(in), target)
	}
	source, err := c.served(from.GroupVersion())
	if err != nil {
		return nil, err
	}
	if u, ok := in.(*unstructured.Unstructured); ok && !c.kind.Custom {
		typed := source.Version.New()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
			return nil, fmt.Errorf("unable to convert unstructured object to %v: %v", from, err)
		}
		typed.GetObjectKind().SetGroupVersionKind(from)
		in = typed
	}
	dest, err := c.served(to.GroupVersion())
	if err != nil {
		return nil, err
	}
	obj := in.(api.Object)
	if source.GVK == dest.GVK {
		return obj, nil
	}
	if !source.Hub {
		if obj, err = codec.Convert(source, obj.DeepCopyObject().(api.Object)); err != nil {
			return nil, err
		}
	}
	return codec.FromHub(dest, obj)
}

// names are what the kind is called in its groups, first as from has it: a
// target of another group (events.k8s.io, say) is found by them.
func (c converter) names(from schema.GroupVersionKind) []schema.GroupVersionKind {
	all := []schema.GroupVersionKind{from}
	for i := range c.kind.Versions {
		if s := request.ServedOf(c.kind, &c.kind.Versions[i]); s.GVK.Group != from.Group {
			all = append(all, s.GVK)
		}
	}
	return all
}

// Default implements runtime.ObjectDefaulter.
func (c converter) Default(in runtime.Object) {
	s, err := c.served(in.GetObjectKind().GroupVersionKind().GroupVersion())
	if err != nil || s.Version.Default == nil {
		return
	}
	if obj, ok := in.(api.Object); ok {
		s.Version.Default(obj)
	}
}

// New implements runtime.ObjectCreater.
func (c converter) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	s, err := c.served(gvk.GroupVersion())
	if err != nil {
		return nil, err
	}
	obj := s.Version.New()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// Empty returns the hub object that stands for one that does not exist yet.
func Empty(s *request.Served) api.Object {
	obj := s.Kind.New()
	obj.GetObjectKind().SetGroupVersionKind(request.ServedOf(s.Kind, codec.HubVersion(s.Kind)).GVK)
	return obj
}

// Track records in managedFields who made obj, a new hub object that becomes
// the layer's own.
func (o *Objects) Track(in *request.Info, obj api.Object, manager string) (api.Object, error) {
	return o.track(in, Empty(in.Served), obj, manager)
}

const invalidManagedFields = ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: %v"

// keepManagedFields undoes what admission made of managedFields when it is not
// valid.
func keepManagedFields(ctx context.Context, obj api.Object, before []metav1.ManagedFieldsEntry) {
	after := obj.GetManagedFields()
	if len(before) == len(after) && (len(after) == 0 || &before[0] == &after[0]) {
		return
	}
	if err := managedfields.ValidateManagedFields(after); err != nil {
		obj.SetManagedFields(before)
		warning.AddWarning(ctx, "", fmt.Sprintf(invalidManagedFields, err.Error()))
	}
}
