// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"cmp"
	"flag"
	"os"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/schemaconv"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver/openapi/merge"
)

var update = flag.Bool("update", false, "write assets/merge anew")

// TestMergeTypes compares the embedded types with those that the definitions
// give, and writes them with -update.
func TestMergeTypes(t *testing.T) {
	want := typesOfDefinitions(t)
	if *update {
		data, err := merge.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("assets/merge", data, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := merge.Decode(assetMerge)
	if err != nil {
		t.Fatal(err)
	}
	quiet := []gocmp.Option{cmpopts.IgnoreUnexported(smd.Map{}), cmpopts.EquateEmpty()}
	if diff := gocmp.Diff(want, have, quiet...); diff != "" {
		t.Errorf("go test ./internal/apiserver/openapi -run TestMergeTypes -update was not run after the definitions changed (-want +have):\n%s", diff)
	}
}

func typesOfDefinitions(t *testing.T) merge.Types {
	definitions := asset{compressed: assetV3}
	raw, err := definitions.load()
	if err != nil {
		t.Fatal(err)
	}
	schemas, err := parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	converted, err := schemaconv.ToSchemaFromOpenAPI(schemas, false)
	if err != nil {
		t.Fatal(err)
	}
	types := merge.Types{Definitions: converted.Types, Kinds: map[schema.GroupVersionKind]string{}}
	slices.SortFunc(types.Definitions, func(a, b smd.TypeDef) int { return cmp.Compare(a.Name, b.Name) })
	for i := range types.Definitions {
		sortFields(&types.Definitions[i].Atom)
	}
	for name, s := range schemas {
		kinds, _ := s.Extensions["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			m := kind.(map[string]any)
			types.Kinds[schema.GroupVersionKind{Group: m["group"].(string), Version: m["version"].(string), Kind: m["kind"].(string)}] = name
		}
	}
	return types
}

// TestEveryVersion finds a type for every version of every kind that is stored,
// removed ones too: without it the version cannot be applied.
func TestEveryVersion(t *testing.T) {
	c := server().TypeConverter()
	for _, kind := range catalog.All() {
		for i := range kind.Versions {
			v := &kind.Versions[i]
			if v.NewList == nil || kind.Custom {
				continue
			}
			obj := v.New()
			obj.GetObjectKind().SetGroupVersionKind(v.GroupVersion.WithKind(kind.Name))
			if _, err := c.ObjectToTyped(obj); err != nil {
				t.Errorf("%s %s: %v", v.GroupVersion, kind.Name, err)
			}
		}
	}
}

// sortFields gives an order to what the library leaves in that of a map.
func sortFields(a *smd.Atom) {
	if a.List != nil {
		sortFields(&a.List.ElementType.Inlined)
	}
	if a.Map == nil {
		return
	}
	sortFields(&a.Map.ElementType.Inlined)
	slices.SortFunc(a.Map.Fields, func(a, b smd.StructField) int { return cmp.Compare(a.Name, b.Name) })
	for i := range a.Map.Fields {
		sortFields(&a.Map.Fields[i].Type.Inlined)
	}
}

// BenchmarkMergeTypes is what the first write of a server waits for.
func BenchmarkMergeTypes(b *testing.B) {
	o := server()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.buildConverter(); err != nil {
			b.Fatal(err)
		}
	}
}
