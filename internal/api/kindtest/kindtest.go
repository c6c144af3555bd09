// SPDX-License-Identifier: Apache-2.0

// Package kindtest drives the rules of a kind in tests as the API server does:
// decode, default, prepare, validate. Tests of the kinds' packages call it.
package kindtest

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"kaji/internal/api"
)

// Find returns the kind of that name.
func Find(t testing.TB, kinds []*api.Kind, name string) *api.Kind {
	t.Helper()
	i := slices.IndexFunc(kinds, func(k *api.Kind) bool { return k.Name == name })
	if i < 0 {
		t.Fatalf("no kind %s", name)
	}
	return kinds[i]
}

// Decode reads an object of version gv from YAML, fills its defaults and
// returns it as a hub object.
func Decode(t testing.TB, k *api.Kind, gv schema.GroupVersion, text string) api.Object {
	t.Helper()
	v := k.Version(gv)
	if v == nil {
		t.Fatalf("%s is not served in %s", k.Name, gv)
	}
	obj := v.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("%s: %v in\n%s", k.Name, err, text)
	}
	if v.Default != nil {
		v.Default(obj)
	}
	if v.ToHub == nil {
		return obj
	}
	hub := k.New()
	if err := v.ToHub(obj, hub); err != nil {
		t.Fatalf("%s: %v", k.Name, err)
	}
	return hub
}

// Create decodes an object of the preferred version as a new one and returns
// it with the errors of its validation.
func Create(t testing.TB, k *api.Kind, text string) (api.Object, []string) {
	t.Helper()
	obj := Decode(t, k, k.Versions[0].GroupVersion, text)
	if k.Rules.PrepareForCreate != nil {
		k.Rules.PrepareForCreate(t.Context(), obj)
	}
	if k.Rules.Validate == nil {
		return obj, nil
	}
	return obj, Messages(k.Rules.Validate(obj))
}

// Update decodes obj as a change of old and returns it with the errors of its
// validation.
func Update(t testing.TB, k *api.Kind, old api.Object, text string) (api.Object, []string) {
	t.Helper()
	obj := Decode(t, k, k.Versions[0].GroupVersion, text)
	prepare, validate := k.Rules.PrepareForUpdate, k.Rules.ValidateUpdate
	return change(t, obj, old, prepare, validate)
}

// UpdateStatus is Update through the subresource "status".
func UpdateStatus(t testing.TB, k *api.Kind, old api.Object, text string) (api.Object, []string) {
	t.Helper()
	obj := Decode(t, k, k.Versions[0].GroupVersion, text)
	return change(t, obj, old, k.Status.PrepareForUpdate, k.Status.ValidateUpdate)
}

// Cells prints obj and checks that its cells fit the kind's columns.
func Cells(t testing.TB, k *api.Kind, obj api.Object) []any {
	t.Helper()
	cells := k.Rules.Cells(obj)
	if len(cells) != len(k.Rules.Columns) {
		t.Errorf("%s: %d cells in %d columns", k.Name, len(cells), len(k.Rules.Columns))
	}
	return cells
}

// Expect fails the test unless got are the errors wanted, in any order.
func Expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("got errors\n\t%q\nwant\n\t%q", got, want)
	}
}

func change(t testing.TB, obj, old api.Object, prepare func(ctx context.Context, obj, old api.Object), validate func(obj, old api.Object) field.ErrorList) (api.Object, []string) {
	t.Helper()
	before := old.DeepCopyObject()
	if prepare != nil {
		prepare(t.Context(), obj, old)
	}
	var errs field.ErrorList
	if validate != nil {
		errs = validate(obj, old)
	}
	if !reflect.DeepEqual(before, old) {
		t.Error("the old object was modified")
	}
	return obj, Messages(errs)
}

// Messages are the texts of errs.
func Messages(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}
