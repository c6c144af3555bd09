// SPDX-License-Identifier: Apache-2.0

package crd

import (
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"kaji/internal/api"
)

// coerce makes an object fit the version's schema: see api.Version.Coerce.
func (v *version) coerce(obj api.Object, strict bool) (unknown []string, err error) {
	c, err := v.schema()
	if err != nil {
		return nil, err
	}
	u := obj.(*unstructured.Unstructured)
	kind, hasKind, err := unstructured.NestedString(u.Object, "kind")
	if err != nil {
		return nil, err
	}
	apiVersion, hasVersion, err := unstructured.NestedString(u.Object, "apiVersion")
	if err != nil {
		return nil, err
	}
	// The schema does not describe metadata: it is kept aside.
	meta, hasMeta, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{
		DropMalformedFields: !strict, ReturnUnknownFieldPaths: strict,
	})
	if err != nil {
		return nil, err
	}
	if !v.from().crd.Spec.PreserveUnknownFields {
		unknown = append(unknown, pruning.PruneWithOptions(u.Object, c.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: strict})...)
		defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, c.structural)
	}
	fault, paths := objectmeta.CoerceWithOptions(nil, u.Object, c.structural, false, objectmeta.CoerceOptions{
		DropInvalidFields: !strict, ReturnUnknownFieldPaths: strict,
	})
	if fault != nil {
		return nil, fault
	}
	unknown = append(unknown, paths...)
	if hasKind {
		u.SetKind(kind)
	}
	if hasVersion {
		u.SetAPIVersion(apiVersion)
	}
	if hasMeta {
		if !strict && meta.Generation == 0 {
			meta.Generation = 1 // very old objects have none
		}
		if err := objectmeta.SetObjectMeta(u.Object, meta); err != nil {
			return nil, err
		}
	}
	return unknown, nil
}

// setDefaults fills what the schema has defaults for. A schema that does not
// compile is reported where the object is validated.
func (v *version) setDefaults(obj api.Object) {
	if c, err := v.schema(); err == nil && c.structural != nil {
		defaulting.Default(obj.(*unstructured.Unstructured).Object, c.structural)
	}
}
