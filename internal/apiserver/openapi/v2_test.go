// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The protobuf forms, which are written piece by piece, read as the JSON does.
func TestProto(t *testing.T) {
	o := server(widget())
	for path, accept := range map[string]string{
		"/openapi/v2":                     "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
		"/openapi/v3/apis/example.com/v1": "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
		"/openapi/v3/apis/apps/v1":        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
	} {
		data := body(t, get(t, o, path, nil))
		binary := body(t, get(t, o, path, http.Header{"Accept": {accept}}))
		var want, got proto.Message
		var err error
		if path == "/openapi/v2" {
			want, err = openapi_v2.ParseDocument(data)
			got = &openapi_v2.Document{}
		} else {
			want, err = openapi_v3.ParseDocument(data)
			got = &openapi_v3.Document{}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(binary, got); err != nil || !proto.Equal(want, got) {
			t.Errorf("%s: the forms differ: %v", path, err)
		}
	}
}

// A client that has the v2 document is told so without one being rendered, and gets
// another after a change.
func TestV2Unchanged(t *testing.T) {
	o := server()
	ask := func(tag string) (int, string) {
		answer := get(t, o, "/openapi/v2", http.Header{"If-None-Match": {tag}})
		return answer.StatusCode, answer.Header.Get("Etag")
	}
	code, tag := ask("")
	if code != http.StatusOK || tag == "" {
		t.Fatalf("got %d, %q", code, tag)
	}
	o.kept.mu.Lock()
	clear(o.kept.kept)
	o.kept.mu.Unlock()
	if code, again := ask(tag); code != http.StatusNotModified || again != tag {
		t.Errorf("unchanged: got %d, %s", code, again)
	}
	if len(o.kept.kept) != 0 {
		t.Error("a document was rendered for nobody")
	}
	o.cfg.Kinds.Add(widget())
	if code, other := ask(tag); code != http.StatusOK || other == tag {
		t.Errorf("changed: got %d, %s", code, other)
	}
}

// Of another server's document those paths are merged that are below its version and
// not served here, with their models: those of the same name and another content
// get another name, those of the same content name both kinds.
func TestMergeV2(t *testing.T) {
	o := server(widget())
	plain := decode(t, body(t, get(t, o, "/openapi/v2", nil)))
	listMeta := plain["definitions"].(map[string]any)["io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"]
	deleteOptions := decode(t, encode(t, plain["definitions"].(map[string]any)["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]))
	deleteOptions["x-kubernetes-group-version-kind"] = []any{map[string]any{"group": "flowers.example.com", "version": "v1", "kind": "DeleteOptions"}}
	ref := func(name string) map[string]any { return map[string]any{"$ref": "#/definitions/" + name} }
	path := func(model string) map[string]any {
		return map[string]any{"get": map[string]any{
			"parameters": []any{map[string]any{"$ref": "#/parameters/limit"}},
			"responses":  map[string]any{"200": map[string]any{"description": "OK", "schema": ref(model)}},
		}}
	}
	other := map[string]any{
		"swagger": "2.0", "info": map[string]any{"title": "flowers", "version": "1"},
		"paths": map[string]any{
			"/apis/flowers.example.com/v1/roses":   path("com.example.Rose"),
			"/apis/flowers.example.com/v2/roses":   path("com.example.Later"),
			"/apis/example.com/v1/widgets":         path("com.example.Later"),
			"/apis/flowers.example.com/v1/daisies": path("com.example.v1.Widget"),
		},
		"parameters": map[string]any{"limit": map[string]any{"name": "limit", "in": "query", "type": "integer"}},
		"definitions": map[string]any{
			"com.example.Rose": map[string]any{"type": "object", "properties": map[string]any{
				"meta": ref("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"), "options": ref("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
			}},
			"com.example.Later":                                  map[string]any{"type": "object"},
			"com.example.v1.Widget":                              map[string]any{"type": "object", "description": "something else"},
			"io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta":      listMeta,
			"io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions": deleteOptions,
		},
	}
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	if _, err := z.Write(encode(t, other)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	o.cfg.Remote = func() ([]Remote, uint64) {
		return []Remote{{GroupVersion: schema.GroupVersion{Group: "flowers.example.com", Version: "v1"}, V2: compressed.Bytes(), ETag: "1"}}, 1
	}
	merged := decode(t, body(t, get(t, o, "/openapi/v2", nil)))

	models := plain["definitions"].(map[string]any)
	models["com.example.Rose"] = other["definitions"].(map[string]any)["com.example.Rose"]
	models["com.example.v1.Widget_v2"] = map[string]any{"type": "object", "description": "something else"}
	shared := models["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"].(map[string]any)
	shared["x-kubernetes-group-version-kind"] = append(shared["x-kubernetes-group-version-kind"].([]any), deleteOptions["x-kubernetes-group-version-kind"].([]any)...)
	slices.SortFunc(shared["x-kubernetes-group-version-kind"].([]any), func(a, b any) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) // by the group, as printed
	})
	paths := plain["paths"].(map[string]any)
	paths["/apis/flowers.example.com/v1/roses"] = path("com.example.Rose")
	paths["/apis/flowers.example.com/v1/daisies"] = path("com.example.v1.Widget_v2")
	plain["parameters"] = map[string]any{"limit": map[string]any{"name": "limit", "in": "query", "type": "integer"}}
	if diff := cmp.Diff(plain, merged); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
