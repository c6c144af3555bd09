// SPDX-License-Identifier: Apache-2.0

package dynamic

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/request"
)

// objects makes, names, defaults and converts objects of all kinds, as
// upstream's ObjectInterfaces.
type objects struct{ kinds *request.Kinds }

// GetObjectCreater implements upstream's ObjectInterfaces.
func (o *objects) GetObjectCreater() runtime.ObjectCreater { return o }

// GetObjectTyper implements upstream's ObjectInterfaces.
func (o *objects) GetObjectTyper() runtime.ObjectTyper { return o }

// GetObjectDefaulter implements upstream's ObjectInterfaces.
func (o *objects) GetObjectDefaulter() runtime.ObjectDefaulter { return o }

// GetObjectConvertor implements upstream's ObjectInterfaces.
func (o *objects) GetObjectConvertor() runtime.ObjectConvertor { return o }

// GetEquivalentResourceMapper implements upstream's ObjectInterfaces.
func (o *objects) GetEquivalentResourceMapper() runtime.EquivalentResourceMapper { return o }

// New implements runtime.ObjectCreater.
func (o *objects) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	s := o.kinds.Kind(gvk)
	if s == nil && !o.hasVersion(gvk.GroupVersion()) {
		return nil, codec.NotRegistered(gvk)
	}
	if s == nil { // of a sub-resource
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(gvk)
		return u, nil
	}
	obj := s.Version.New()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// hasVersion says whether anything is served in a version.
func (o *objects) hasVersion(gv schema.GroupVersion) bool {
	return slices.ContainsFunc(o.kinds.All(), func(k *api.Kind) bool {
		return slices.ContainsFunc(k.Versions, func(v api.Version) bool { return v.GroupVersion == gv })
	})
}

// ObjectKinds implements runtime.ObjectTyper: every object names its type.
func (o *objects) ObjectKinds(obj runtime.Object) ([]schema.GroupVersionKind, bool, error) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "" {
		return nil, false, fmt.Errorf("%T does not name its type", obj)
	}
	return []schema.GroupVersionKind{gvk}, false, nil
}

// Recognizes implements runtime.ObjectTyper.
func (o *objects) Recognizes(gvk schema.GroupVersionKind) bool { return o.kinds.Kind(gvk) != nil }

// Default implements runtime.ObjectDefaulter.
func (o *objects) Default(in runtime.Object) {
	obj, ok := in.(api.Object)
	if !ok {
		return
	}
	s := o.kinds.Kind(obj.GetObjectKind().GroupVersionKind())
	if s == nil || s.Version.Default == nil {
		return
	}
	if s.Kind.Custom && s.Version.Coerce != nil {
		// A mutation may have added fields that the schema does not know. What is
		// malformed stays: validation will say so.
		_, _ = s.Version.Coerce(obj, false)
	}
	u, ok := obj.(*unstructured.Unstructured)
	if typed := s.Version.New(); ok && reflect.TypeOf(typed) != reflect.TypeOf(obj) {
		defaultContent(s, u, typed)
		return
	}
	s.Version.Default(obj)
}

// defaultContent fills in the defaults of a kind with a Go type in an object
// without one, as a policy's mutation leaves it. What the type cannot hold stays as
// it is: validation will say what is wrong with it.
func defaultContent(s *request.Served, u *unstructured.Unstructured, typed api.Object) {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
		return
	}
	s.Version.Default(typed)
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		return
	}
	gvk := u.GroupVersionKind()
	u.Object = content
	u.SetGroupVersionKind(gvk)
}

// Convert implements runtime.ObjectConvertor: out names the version wanted.
func (o *objects) Convert(in, out, _ any) error {
	from, fromOK := in.(runtime.Object)
	to, toOK := out.(runtime.Object)
	if !fromOK || !toOK {
		return fmt.Errorf("cannot convert %T to %T", in, out)
	}
	converted, err := o.convert(from, to.GetObjectKind().GroupVersionKind())
	if err != nil {
		return err
	}
	if u, ok := to.(*unstructured.Unstructured); ok {
		if c, ok := converted.(*unstructured.Unstructured); ok {
			u.Object = c.Object
			return nil
		}
		// Options of sub-resources (exec, attach, …) have a Go type but are no kind.
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(converted)
		if err != nil {
			return err
		}
		u.Object = content
		return nil
	}
	if u, ok := converted.(*unstructured.Unstructured); ok {
		// What a policy has changed comes back without its Go type.
		gvk := to.GetObjectKind().GroupVersionKind()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, to); err != nil {
			return unfitting(u, to, err)
		}
		if !gvk.Empty() {
			to.GetObjectKind().SetGroupVersionKind(gvk)
		}
		return nil
	}
	target, source := reflect.ValueOf(to), reflect.ValueOf(converted)
	if target.Type() != source.Type() || target.Kind() != reflect.Pointer {
		gvk := to.GetObjectKind().GroupVersionKind()
		return fmt.Errorf("converting (%s) to (%s.%s): unknown conversion", source.Type().String()[1:], codec.InternalName(gvk.Group), gvk.Kind)
	}
	target.Elem().Set(source.Elem())
	return nil
}

// unfitting words why content does not fit a Go type as the decoder of JSON
// does, whose words users know.
func unfitting(u *unstructured.Unstructured, to runtime.Object, err error) error {
	data, marshalErr := json.Marshal(u.Object)
	if marshalErr != nil {
		return err
	}
	if decodeErr := json.Unmarshal(data, to); decodeErr != nil {
		return decodeErr
	}
	return nil
}

// ConvertToVersion implements runtime.ObjectConvertor.
func (o *objects) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) {
	gvk, ok := gv.KindForGroupVersionKinds([]schema.GroupVersionKind{in.GetObjectKind().GroupVersionKind()})
	if !ok {
		return nil, fmt.Errorf("%T has no version in %s", in, gv)
	}
	return o.convert(in, gvk)
}

// ConvertFieldLabel implements runtime.ObjectConvertor; nobody selects here.
func (o *objects) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// convert returns a copy of in as gvk.
func (o *objects) convert(in runtime.Object, gvk schema.GroupVersionKind) (runtime.Object, error) {
	obj, ok := in.DeepCopyObject().(api.Object)
	if !ok || in.GetObjectKind().GroupVersionKind() == gvk {
		return in.DeepCopyObject(), nil
	}
	from, to := o.kinds.Kind(in.GetObjectKind().GroupVersionKind()), o.kinds.Kind(gvk)
	if from == nil || to == nil || from.Kind != to.Kind {
		return obj, nil // of one type alone; the caller compares types
	}
	hub, err := codec.Convert(from, obj)
	if err != nil {
		return nil, err
	}
	return codec.FromHub(to, hub)
}

// EquivalentResourcesFor implements runtime.EquivalentResourceMapper: all
// versions that show the same stored objects.
func (o *objects) EquivalentResourcesFor(resource schema.GroupVersionResource, _ string) []schema.GroupVersionResource {
	s := o.kinds.Resource(resource)
	if s == nil {
		return []schema.GroupVersionResource{resource}
	}
	var all []schema.GroupVersionResource
	for i := range s.Kind.Versions {
		if v := &s.Kind.Versions[i]; !v.Unserved {
			all = append(all, request.ServedOf(s.Kind, v).GVR)
		}
	}
	return all
}

// KindFor implements runtime.EquivalentResourceMapper.
func (o *objects) KindFor(resource schema.GroupVersionResource, subresource string) schema.GroupVersionKind {
	s := o.kinds.Resource(resource)
	if s == nil {
		return schema.GroupVersionKind{}
	}
	switch subresource {
	case "scale":
		return schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
	case "eviction":
		return schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "Eviction"}
	case "binding":
		return schema.GroupVersionKind{Version: "v1", Kind: "Binding"}
	case "token":
		return schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"}
	case "attach":
		return schema.GroupVersionKind{Version: "v1", Kind: "PodAttachOptions"}
	case "exec":
		return schema.GroupVersionKind{Version: "v1", Kind: "PodExecOptions"}
	case "portforward":
		return schema.GroupVersionKind{Version: "v1", Kind: "PodPortForwardOptions"}
	case "proxy":
		return schema.GroupVersionKind{Version: "v1", Kind: s.GVK.Kind + "ProxyOptions"}
	}
	return s.GVK
}
