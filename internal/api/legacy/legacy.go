// SPDX-License-Identifier: Apache-2.0

// Package legacy adds the versions that Kubernetes has removed since 1.16 to
// the kinds that took their place, so that old manifests and charts apply
// unchanged. A version is served only when --runtime-config names it, or all of
// them by api/legacy=true, and every answer in it carries a warning.
//
// Package catalog calls it. An object that comes in a removed version gets that
// version's defaults, is turned into the current one and stored as that; rules
// and defaults of the current version do the rest.
package legacy

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
)

// removed are the removed versions of one resource.
type removed struct {
	resource schema.GroupResource
	versions []api.Version
}

// Add appends the removed versions to the kinds, and the kind that has no
// current version at all. It panics when a kind is
// missing: the lists are literals.
func Add(kinds []*api.Kind) []*api.Kind {
	byResource := map[schema.GroupResource]*api.Kind{}
	for _, k := range kinds {
		byResource[k.GroupResource()] = k
	}
	for _, list := range [][]removed{workloads(), network(), policies(), extension(), others(), reviews()} {
		for _, r := range list {
			kind := byResource[r.resource]
			if kind == nil {
				panic("legacy: no kind serves " + r.resource.String())
			}
			for _, v := range r.versions {
				kind.Versions = append(kind.Versions, finish(kind, v))
			}
		}
	}
	return append(kinds, podSecurityPolicy())
}

// finish makes v opt-in, with a warning, and lets the hub's own defaults follow
// its conversion.
func finish(kind *api.Kind, v api.Version) api.Version {
	v.OptIn = true
	v.Warning = warning(v.GroupVersion, kind)
	if convert := v.ToHub; convert != nil {
		hub := kind.StoredVersion()
		v.ToHub = func(in, out api.Object) error {
			if err := convert(in, out); err != nil {
				return err
			}
			if hub.Default != nil {
				hub.Default(out)
			}
			return nil
		}
	} else {
		v.Default = kind.StoredVersion().Default
	}
	return v
}

func warning(gv schema.GroupVersion, kind *api.Kind) string {
	return fmt.Sprintf("%s %s is removed from Kubernetes; use %s %s", gv, kind.Name, kind.Versions[0].GroupVersion, kind.Name)
}

// edit changes the JSON form of an object on its way from one version to
// another.
type edit func(object map[string]any)

// like is a version whose JSON is that of the hub but for what up and down
// change; both may be nil.
func like[T, L any, P interface {
	*T
	api.Object
}, Q interface {
	*L
	runtime.Object
}](gv schema.GroupVersion, up, down edit) api.Version {
	v := unlisted[T, P](gv, up, down)
	v.NewList = api.NewList[L, Q]
	return v
}

// unlisted is the same for kinds that are answered and not stored.
func unlisted[T any, P interface {
	*T
	api.Object
}](gv schema.GroupVersion, up, down edit) api.Version {
	return api.Version{
		GroupVersion: gv,
		New:          api.New[T, P],
		ToHub:        func(in, hub api.Object) error { return convert(in, hub, up) },
		FromHub:      func(hub, out api.Object) error { return convert(hub, out, down) },
	}
}

// convert copies an object by its JSON form.
func convert(in, out api.Object, change edit) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if change != nil {
		object := map[string]any{}
		if err := json.Unmarshal(data, &object); err != nil {
			return err
		}
		change(object)
		if data, err = json.Marshal(object); err != nil {
			return err
		}
	}
	if err := json.Unmarshal(data, out); err != nil {
		return err
	}
	out.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return nil
}

// at returns the object at a path of field names, or nil.
func at(object map[string]any, path ...string) map[string]any {
	for _, name := range path {
		object, _ = object[name].(map[string]any)
	}
	return object
}

// each calls f with every object of the list at field name.
func each(object map[string]any, name string, f func(map[string]any)) {
	items, _ := object[name].([]any)
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			f(m)
		}
	}
}

// setDefault sets an absent field.
func setDefault(object map[string]any, name string, value any) {
	if object == nil {
		return
	}
	if _, ok := object[name]; !ok {
		object[name] = value
	}
}

// move renames a field.
func move(object map[string]any, from, to string) {
	if v, ok := object[from]; ok && object != nil {
		delete(object, from)
		object[to] = v
	}
}
