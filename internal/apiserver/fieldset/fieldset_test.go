// SPDX-License-Identifier: Apache-2.0

package fieldset_test

import (
	"math/rand"
	"reflect"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"kaji/internal/api"
	"kaji/internal/api/catalog"
	"kaji/internal/apiserver/codec"
	"kaji/internal/apiserver/fieldset"
	"kaji/internal/apiserver/openapi"
	"kaji/internal/apiserver/request"
)

// filler makes objects up: much is left out, lists are short, and what has an
// encoding of its own is valid.
func filler(seed int64) *randfill.Filler {
	return randfill.NewWithSeed(seed).NilChance(0.4).NumElements(0, 3).MaxDepth(12).Funcs(
		func(s *string, c randfill.Continue) {
			if *s = ""; c.Intn(30) > 0 {
				*s = string([]byte{byte('a' + c.Intn(26)), byte('a' + c.Intn(26))})
			}
		},
		func(f *metav1.FieldsV1, _ randfill.Continue) { f.Raw = []byte(`{"f:a":{}}`) },
		func(v *intstr.IntOrString, c randfill.Continue) { *v = intstr.FromInt32(c.Int31n(3)) },
		func(e *runtime.RawExtension, _ randfill.Continue) { e.Raw = []byte(`{"a":1}`) },
		func(j *apiextensionsv1.JSON, _ randfill.Continue) { j.Raw = []byte(`{"a":[1]}`) },
	)
}

// each calls f for every built-in kind with an empty object of its hub version.
func each(t *testing.T, f func(t *testing.T, types managedfields.TypeConverter, empty func() api.Object)) {
	all := catalog.All()
	types := openapi.New(openapi.Config{Kinds: request.NewKinds(all...)}).TypeConverter()
	for _, kind := range all {
		gvk := request.ServedOf(kind, codec.HubVersion(kind)).GVK
		empty := func() api.Object {
			obj := kind.New()
			obj.GetObjectKind().SetGroupVersionKind(gvk)
			return obj
		}
		if _, err := types.ObjectToTyped(empty()); err != nil {
			continue // no schema is published, the library has none either
		}
		t.Run(gvk.String(), func(t *testing.T) { f(t, types, empty) })
	}
}

func fill(f *randfill.Filler, obj api.Object) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	f.Fill(obj)
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	obj.SetManagedFields(nil)
}

func compareTyped(t *testing.T, types managedfields.TypeConverter, a, b runtime.Object) *typed.Comparison {
	t.Helper()
	from, err := types.ObjectToTyped(a, typed.AllowDuplicates)
	if err != nil {
		return nil // made up in a way that does not fit
	}
	to, err := types.ObjectToTyped(b, typed.AllowDuplicates)
	if err != nil {
		return nil
	}
	difference, err := from.Compare(to)
	if err != nil {
		return nil
	}
	return difference
}

// someOf returns some of a set, at the upper levels.
func someOf(all *fieldpath.Set, seed int64) *fieldpath.Set {
	r := rand.New(rand.NewSource(seed)) //nolint:gosec // a test's
	some := fieldpath.NewSet()
	for p := range all.All() {
		if r.Intn(4) == 0 {
			some.Insert(p[:min(len(p), 1+r.Intn(3))].Copy())
		}
	}
	return some
}

// TestCreated compares what a creation owns with what the library finds.
func TestCreated(t *testing.T) {
	judged, told := 0, 0
	each(t, func(t *testing.T, types managedfields.TypeConverter, empty func() api.Object) {
		plan := planOf(t, types, empty())
		mine := 0
		defer func() { t.Logf("told %d", mine) }()
		for seed := range int64(40) {
			obj := empty()
			fill(filler(seed), obj)
			want := compareTyped(t, types, empty(), obj)
			if want == nil {
				continue
			}
			judged++
			reset, stripped := someOf(want.Added, seed), someOf(want.Modified.Union(want.Added), seed+1)
			got, ok := plan.Created(obj, reset, stripped)
			if !ok {
				continue
			}
			told++
			mine++
			all := want.Added.Union(want.Modified).RecursiveDifference(reset).Difference(stripped)
			var text []byte
			if !all.Empty() {
				text, _ = all.ToJSON()
			}
			if string(got) != string(text) {
				t.Fatalf("seed %d: got %s, want %s", seed, got, text)
			}
		}
	})
	t.Logf("%d of %d objects told without the library", told, judged)
	if told*2 < judged {
		t.Error("most objects are left to the library")
	}
}

// TestChanged compares what differs between objects with what differs when what
// is the same is left out.
func TestChanged(t *testing.T) {
	each(t, func(t *testing.T, types managedfields.TypeConverter, empty func() api.Object) {
		for seed := range int64(12) {
			a := empty()
			fill(filler(seed), a)
			b := a.DeepCopyObject().(api.Object)
			change(b, seed)
			want := compareTyped(t, types, a, b)
			if want == nil {
				continue
			}
			wasA, wasB := a.DeepCopyObject(), b.DeepCopyObject()
			x, y := fieldset.Changed(a, b)
			got := compareTyped(t, types, x.(runtime.Object), y.(runtime.Object))
			if got == nil {
				t.Fatalf("seed %d: what is left cannot be compared", seed)
			}
			for name, sets := range map[string][2]*fieldpath.Set{
				"added": {got.Added, want.Added}, "removed": {got.Removed, want.Removed}, "modified": {got.Modified, want.Modified},
			} {
				if !sets[0].Equals(sets[1]) {
					t.Fatalf("seed %d, %s: got %s, want %s", seed, name, sets[0], sets[1])
				}
			}
			if !reflect.DeepEqual(a, wasA) || !reflect.DeepEqual(b, wasB) {
				t.Fatalf("seed %d: an argument was changed", seed)
			}
		}
	})
}

// TestCompare compares the differences that are found with the library's.
func TestCompare(t *testing.T) {
	judged, told := 0, 0
	each(t, func(t *testing.T, types managedfields.TypeConverter, empty func() api.Object) {
		plan := planOf(t, types, empty())
		mine := 0
		defer func() { t.Logf("told %d", mine) }()
		for seed := range int64(21) {
			a := empty()
			fill(filler(seed), a)
			b := a.DeepCopyObject().(api.Object)
			switch seed % 3 {
			case 0:
				fill(filler(seed+500), b) // all is different
			case 1:
				change(b, seed+7)
				fallthrough
			default:
				change(b, seed)
			}
			want := compareTyped(t, types, a, b)
			if want == nil {
				continue
			}
			judged++
			wasA, wasB := a.DeepCopyObject(), b.DeepCopyObject()
			got, ok := plan.Compare(a, b)
			if !reflect.DeepEqual(a, wasA) || !reflect.DeepEqual(b, wasB) {
				t.Fatalf("seed %d: an argument was changed", seed)
			}
			if !ok {
				continue
			}
			told++
			mine++
			for name, sets := range map[string][2]*fieldpath.Set{
				"added": {got.Added, want.Added}, "removed": {got.Removed, want.Removed}, "modified": {got.Modified, want.Modified},
			} {
				if !sets[0].Equals(sets[1]) {
					t.Fatalf("seed %d, %s: missing %s, too many %s", seed, name, sets[1].Difference(sets[0]), sets[0].Difference(sets[1]))
				}
			}
		}
	})
	t.Logf("%d of %d differences told without the library", told, judged)
	if told*3 < judged*2 {
		t.Error("too much is left to the library")
	}
}

func planOf(t *testing.T, types managedfields.TypeConverter, empty api.Object) *fieldset.Plan {
	t.Helper()
	none, err := types.ObjectToTyped(empty)
	if err != nil {
		t.Fatal(err)
	}
	plan, ok := fieldset.Compile(reflect.TypeOf(empty), none.Schema(), none.TypeRef())
	if !ok {
		t.Fatal("the type does not fit its schema")
	}
	return plan
}

// change fills some of an object's fields anew.
func change(obj api.Object, seed int64) {
	r, f := rand.New(rand.NewSource(seed)), filler(seed+1000)
	gvk := obj.GetObjectKind().GroupVersionKind()
	someField(r, f, reflect.ValueOf(obj).Elem())
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	obj.SetManagedFields(nil)
}

func someField(r *rand.Rand, f *randfill.Filler, v reflect.Value) {
	for range 2 {
		field := v.Field(r.Intn(v.NumField()))
		below := field
		if field.Kind() == reflect.Pointer && !field.IsNil() {
			below = field.Elem()
		}
		switch {
		case open(below) && r.Intn(3) > 0:
			someField(r, f, below)
		case field.CanSet():
			f.Fill(field.Addr().Interface())
		}
	}
}

// open says that a value is a structure whose fields can be set one by one.
func open(v reflect.Value) bool {
	if v.Kind() != reflect.Struct || v.NumField() == 0 {
		return false
	}
	return v.Field(0).CanSet() && !value.TypeReflectEntryOf(v.Type()).CanConvertToUnstructured()
}
