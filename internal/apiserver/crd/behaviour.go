// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
)

// behaviour returns the rules and subresources of one version. to is how objects are
// seen in it, nil for the stored version.
func behaviour(v *version, to *view) *api.Behaviour {
	b := &api.Behaviour{Rules: api.For[*unstructured.Unstructured]{
		ValidateName:     validation.NameIsDNSSubdomain,
		PrepareForCreate: v.prepareForCreate,
		PrepareForUpdate: v.prepareForUpdate,
		Validate: func(u *unstructured.Unstructured) field.ErrorList {
			return to.judge(u, nil, func(v *version, u, _ *unstructured.Unstructured) field.ErrorList { return v.validate(u) }, v)
		},
		ValidateUpdate: func(u, old *unstructured.Unstructured) field.ErrorList {
			return to.judge(u, old, (*version).validateUpdate, v)
		},
		Warnings: warnings,
	}.Rules()}
	if v.hasStatus() {
		b.ResetFields = []string{"status"}
		b.Status = &api.Subresource{
			Name:             "status",
			PrepareForUpdate: api.PrepareUpdate(v.prepareForStatus),
			ValidateUpdate: api.Update(func(u, old *unstructured.Unstructured) field.ErrorList {
				return to.judge(u, old, (*version).validateStatus, v)
			}),
			Warnings:    api.Warn(warnings),
			ResetFields: []string{"spec", "metadata"},
		}
	}
	if scale := v.scale(); scale != nil {
		b.Scale = to.scale(scale)
	}
	return b
}

// view is how stored objects are seen in another version.
type view struct {
	version *api.Version
	stored  *version
	// whole says whether an object shows in the version all that it was sent with in
	// it: with a converter that is up to the webhook.
	whole func() bool
}

// view returns how stored objects are seen in another version.
func (d *definition) view(own *version, storage schema.GroupVersion, v *api.Version) *view {
	out := &view{version: v, stored: d.versions[storage.Version], whole: func() bool { return true }}
	if d.convertAll == nil {
		out.whole = func() bool { return own.within(out.stored) }
	}
	return out
}

// within says whether another version knows all fields of this one.
func (v *version) within(other *version) bool {
	a, err := v.schema()
	if err != nil {
		return false
	}
	b, err := other.schema()
	return err == nil && isWithin(a.structural, b.structural)
}

func isWithin(a, b *structuralschema.Structural) bool {
	if a == nil || b == nil {
		return a == b
	}
	if b.XPreserveUnknownFields {
		return true
	}
	for name, property := range a.Properties {
		other, has := b.Properties[name]
		if !has && b.AdditionalProperties != nil && b.AdditionalProperties.Structural != nil {
			other, has = *b.AdditionalProperties.Structural, true
		}
		if !has || !isWithin(&property, &other) {
			return false
		}
	}
	if a.Items != nil && !isWithin(a.Items, b.Items) {
		return false
	}
	if a.AdditionalProperties == nil || !a.AdditionalProperties.Bool && a.AdditionalProperties.Structural == nil {
		return !a.XPreserveUnknownFields
	}
	return b.AdditionalProperties != nil && (b.AdditionalProperties.Bool || isWithin(a.AdditionalProperties.Structural, b.AdditionalProperties.Structural))
}

// judge judges stored objects as they are in the version, or where that shows less
// than was sent, as they are stored.
func (w *view) judge(u, old *unstructured.Unstructured, judge func(v *version, u, old *unstructured.Unstructured) field.ErrorList, v *version) field.ErrorList {
	if w == nil {
		return judge(v, u, old)
	}
	if !w.whole() {
		return judge(w.stored, u, old)
	}
	hubs := []*unstructured.Unstructured{u, old}
	if old == nil {
		hubs = hubs[:1]
	}
	objects, err := w.all(hubs...)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	v.setDefaults(objects[0])
	if old == nil {
		return judge(v, objects[0], nil)
	}
	return judge(v, objects[0], objects[1])
}

// all returns objects in the version.
func (w *view) all(hubs ...*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	if w == nil {
		return hubs, nil
	}
	out := make([]*unstructured.Unstructured, len(hubs))
	if w.version.FromHubAll != nil {
		// One question of the webhook.
		in := make([]api.Object, len(hubs))
		for i := range hubs {
			in[i] = hubs[i]
		}
		converted, err := w.version.FromHubAll(in)
		if err != nil {
			return nil, err
		}
		for i := range out {
			out[i] = converted[i].(*unstructured.Unstructured)
		}
		return out, nil
	}
	for i := range out {
		out[i] = &unstructured.Unstructured{}
		if err := w.version.FromHub(hubs[i], out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// scale maps the subresource scale to the fields of the version it stands for.
func (w *view) scale(paths *apiextensionsv1.CustomResourceSubresourceScale) *api.Scale {
	return &api.Scale{
		Path: strings.TrimPrefix(paths.SpecReplicasPath, "."),
		Get: func(obj api.Object) (*autoscalingv1.Scale, error) {
			objects, err := w.all(obj.(*unstructured.Unstructured))
			if err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			return readScale(objects[0].Object, paths)
		},
		Set: func(obj api.Object, replicas int32) error {
			u := obj.(*unstructured.Unstructured)
			objects, err := w.all(u)
			if err != nil {
				return err
			}
			if err := unstructured.SetNestedField(objects[0].Object, int64(replicas), fieldsOf(paths.SpecReplicasPath)...); err != nil || w == nil {
				return err
			}
			return w.version.ToHub(objects[0], u)
		},
	}
}

func readScale(content map[string]any, paths *apiextensionsv1.CustomResourceSubresourceScale) (*autoscalingv1.Scale, error) {
	wanted, found, err := unstructured.NestedInt64(content, fieldsOf(paths.SpecReplicasPath)...)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	actual, _, err := unstructured.NestedInt64(content, fieldsOf(paths.StatusReplicasPath)...)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	s := &autoscalingv1.Scale{}
	s.Spec.Replicas, s.Status.Replicas = int32(wanted), int32(actual)
	if paths.LabelSelectorPath != nil {
		if s.Status.Selector, _, err = unstructured.NestedString(content, fieldsOf(*paths.LabelSelectorPath)...); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	if !found {
		return s, api.ErrNoReplicas{Path: paths.SpecReplicasPath}
	}
	return s, nil
}
