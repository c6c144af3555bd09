// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/jsonpath"

	"kaji/internal/api"
	"kaji/internal/api/apiextensions"
	"kaji/internal/apiserver/cache"
)

// definition is a served CustomResourceDefinition.
type definition struct {
	// crd is the definition without its schemas.
	crd      *apiextensionsv1.CustomResourceDefinition
	kind     *api.Kind
	versions map[string]*version
	convert  converter
	// convertAll converts objects of the stored version; nil where convert is as
	// good.
	convertAll  allConverter
	terminating atomic.Bool
}

// refresh lets the versions refer to a newer entry of the definition, of which
// crd is a state, that says the same. It is true when discovery shows something else all the same.
func (d *definition) refresh(e *cache.Entry, crd *apiextensionsv1.CustomResourceDefinition) bool {
	for i := range crd.Spec.Versions {
		if v := d.versions[crd.Spec.Versions[i].Name]; v != nil {
			v.source.Store(&origin{e, crd, &crd.Spec.Versions[i]})
		}
	}
	terminating := apiextensions.IsTrue(crd, apiextensionsv1.Terminating)
	return d.terminating.Swap(terminating) != terminating
}

// withoutSchemas returns a copy of all but the schemas.
func withoutSchemas(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinition {
	slim := *crd
	slim.Spec.Versions = slices.Clone(crd.Spec.Versions)
	for i := range slim.Spec.Versions {
		slim.Spec.Versions[i].Schema = nil
	}
	return &slim
}

// verbs returns the verbs of custom resources, in the order upstream lists them.
func verbs() []string {
	return []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}
}

// define builds the kind of an established definition, a state of e. It costs little: no
// schema is looked at.
func define(e *cache.Entry, crd *apiextensionsv1.CustomResourceDefinition, convert converter, convertAll allConverter) *definition {
	d := &definition{crd: withoutSchemas(crd), versions: map[string]*version{}, convert: convert, convertAll: convertAll}
	d.terminating.Store(apiextensions.IsTrue(crd, apiextensionsv1.Terminating))
	names := &crd.Status.AcceptedNames
	k := &api.Kind{
		Group: crd.Spec.Group, Name: names.Kind, Resource: names.Plural, Singular: names.Singular,
		ShortNames: names.ShortNames, Categories: names.Categories,
		Namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
		Verbs:      verbs(),
		Closing:    d.terminating.Load,
		Prefix:     "/registry/" + crd.Spec.Group + "/" + names.Plural,
		Custom:     true,
		Identity:   fmt.Sprintf("%s/%d", crd.UID, crd.Generation),
	}
	for i := range crd.Spec.Versions {
		spec := &crd.Spec.Versions[i]
		d.versions[spec.Name] = newVersion(e, crd, i)
		if spec.Storage {
			k.Storage = schema.GroupVersion{Group: k.Group, Version: spec.Name}
		}
	}
	for i := range crd.Spec.Versions {
		k.Versions = append(k.Versions, d.version(&crd.Spec.Versions[i], k))
	}
	gvk := k.Storage.WithKind(k.Name)
	k.New, k.NewList = newObject(gvk), newList(gvk)
	stored := behaviour(d.versions[k.Storage.Version], nil)
	k.Rules, k.Status, k.Scale, k.ResetFields = stored.Rules, stored.Status, stored.Scale, stored.ResetFields
	if selectable := d.selectable(); len(selectable) > 0 {
		k.Rules.Fields = fieldsFunc(selectable)
	}
	d.kind = k
	return d
}

// version returns one version as the machine serves it.
func (d *definition) version(spec *apiextensionsv1.CustomResourceDefinitionVersion, k *api.Kind) api.Version {
	gv := schema.GroupVersion{Group: k.Group, Version: spec.Name}
	own := d.versions[spec.Name]
	columns := columnsOf(spec)
	print := sync.OnceValue(func() *printer { return newPrinter(columns) })
	v := api.Version{
		GroupVersion: gv,
		New:          newObject(gv.WithKind(k.Name)), NewList: newList(gv.WithKind(k.Name)),
		Default: own.setDefaults, Coerce: own.coerce,
		Columns: newPrinter(columns).definitions(),
		Cells:   func(obj api.Object) []any { return print().cells(obj) },

		FieldLabels: selectableNames(spec),
		Unserved:    !spec.Served,
		Warning:     deprecation(gv.WithKind(k.Name), spec),
	}
	if gv != k.Storage {
		v.ToHub = d.conversion(k.Storage, true)
		v.FromHub = d.conversion(gv, false)
		if d.convertAll != nil {
			v.FromHubAll = d.conversions(gv)
		}
		v.Behaviour = behaviour(own, d.view(own, k.Storage, &v))
	}
	return v
}

// deprecation is the warning of a deprecated version.
func deprecation(gvk schema.GroupVersionKind, v *apiextensionsv1.CustomResourceDefinitionVersion) string {
	switch {
	case !v.Deprecated:
		return ""
	case v.DeprecationWarning != nil:
		return *v.DeprecationWarning
	}
	return fmt.Sprintf("%s %s is deprecated", gvk.GroupVersion(), gvk.Kind)
}

// conversion returns the function that makes an object of a version from that
// of another. Defaults are the stored version's alone: what is shown in others
// was stored without theirs.
func (d *definition) conversion(to schema.GroupVersion, defaults bool) func(in, out api.Object) error {
	target := d.versions[to.Version]
	return func(in, out api.Object) error {
		converted, err := d.convert(in.(*unstructured.Unstructured), to)
		if err != nil {
			return err
		}
		if _, err := target.coerce(converted, false); err != nil {
			return err
		}
		if defaults {
			target.setDefaults(converted)
		}
		out.(*unstructured.Unstructured).Object = converted.Object
		return nil
	}
}

// conversions returns the function that makes objects of a version from those
// of the stored one.
func (d *definition) conversions(to schema.GroupVersion) func([]api.Object) ([]api.Object, error) {
	target := d.versions[to.Version]
	return func(hubs []api.Object) ([]api.Object, error) {
		list, err := d.convertAll(hubs, to)
		if err != nil {
			return nil, err
		}
		all := make([]api.Object, len(list.Items))
		for i := range list.Items {
			if _, err := target.coerce(&list.Items[i], false); err != nil {
				return nil, err
			}
			all[i] = &list.Items[i]
		}
		return all, nil
	}
}

func newObject(gvk schema.GroupVersionKind) func() api.Object {
	return func() api.Object {
		u := &unstructured.Unstructured{Object: map[string]any{}}
		u.SetGroupVersionKind(gvk)
		return u
	}
}

func newList(gvk schema.GroupVersionKind) func() runtime.Object {
	return func() runtime.Object {
		l := &unstructured.UnstructuredList{}
		l.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		return l
	}
}

func (d *definition) dropIdle(since time.Time) {
	for _, v := range d.versions {
		v.dropIdle(since)
	}
}

// selectable returns the selectable fields of all versions.
func (d *definition) selectable() []string {
	var paths []string
	for i := range d.crd.Spec.Versions {
		for _, f := range d.crd.Spec.Versions[i].SelectableFields {
			paths = append(paths, f.JSONPath)
		}
	}
	return paths
}

func selectableNames(v *apiextensionsv1.CustomResourceDefinitionVersion) []string {
	names := make([]string, len(v.SelectableFields))
	for i, f := range v.SelectableFields {
		names[i] = strings.TrimPrefix(f.JSONPath, ".")
	}
	return names
}

// fieldsFunc returns the values of an object's selectable fields.
func fieldsFunc(paths []string) func(api.Object) fields.Set {
	return func(obj api.Object) fields.Set {
		set := make(fields.Set, len(paths))
		for _, path := range paths {
			set[strings.TrimPrefix(path, ".")] = fieldValue(obj.(*unstructured.Unstructured).Object, path)
		}
		return set
	}
}

func fieldValue(content map[string]any, path string) string {
	if value, found, err := unstructured.NestedFieldNoCopy(content, fieldsOf(path)...); err == nil {
		if !found || value == nil {
			return ""
		}
		return fmt.Sprint(value)
	}
	p := jsonpath.New("selectableField").AllowMissingKeys(true)
	if err := p.Parse("{" + path + "}"); err != nil {
		return ""
	}
	results, err := p.FindResults(content)
	if err != nil || len(results) != 1 || len(results[0]) != 1 || results[0][0].Interface() == nil {
		return ""
	}
	return fmt.Sprint(results[0][0].Interface())
}

// converter returns an object in another version; it does not modify in.
type converter func(in *unstructured.Unstructured, to schema.GroupVersion) (*unstructured.Unstructured, error)

// allConverter returns objects in another version; it does not modify them.
type allConverter func(in []api.Object, to schema.GroupVersion) (*unstructured.UnstructuredList, error)

// noConversion is the strategy None: versions differ in name alone.
func noConversion(in *unstructured.Unstructured, to schema.GroupVersion) (*unstructured.Unstructured, error) {
	out := in.DeepCopy()
	out.SetAPIVersion(to.String())
	return out, nil
}
