// SPDX-License-Identifier: Apache-2.0

package openapi

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/api/catalog"
	"kaji/internal/apiserver/request"
)

func server(extra ...*api.Kind) *OpenAPI {
	return New(Config{
		Kinds: request.NewKinds(append(catalog.All(), extra...)...),
		Custom: func(*request.Served, bool) (json.RawMessage, error) {
			return json.RawMessage(`{"type":"object","properties":{"spec":{"type":"object","properties":{"size":{"type":"integer"}}}},
				"x-kubernetes-group-version-kind":[{"group":"example.com","version":"v1","kind":"Widget"}]}`), nil
		},
	})
}

func widget() *api.Kind {
	gv := schema.GroupVersion{Group: "example.com", Version: "v1"}
	return &api.Kind{
		Group: gv.Group, Name: "Widget", Resource: "widgets", Singular: "widget", Namespaced: true, Custom: true,
		Versions: []api.Version{{GroupVersion: gv}}, Storage: gv, Prefix: "/registry/example.com/widgets",
	}
}

func get(t *testing.T, o *OpenAPI, path string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	o.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decode(t *testing.T, data []byte) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// bare removes descriptions, which the recorded documents were stripped of.
func bare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if _, text := value.(string); key == "description" && text {
				delete(v, key)
			} else {
				v[key] = bare(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = bare(v[i])
		}
	}
	return v
}

// The document of policy/v1 equals that of a Kubernetes 1.37.2 server.
func TestEqualsUpstream(t *testing.T) {
	want, err := os.ReadFile("testdata/apis-policy-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	got := decode(t, body(t, get(t, server(), "/openapi/v3/apis/policy/v1", nil)))
	if diff := cmp.Diff(bare(decode(t, want)), bare(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The index leads to documents that may be kept for ever, until they change.
func TestIndex(t *testing.T) {
	o := server()
	url := func() string {
		index := decode(t, body(t, get(t, o, "/openapi/v3", nil)))
		entry, ok := index["paths"].(map[string]any)["apis/example.com/v1"]
		if !ok {
			return ""
		}
		return entry.(map[string]any)["serverRelativeURL"].(string)
	}
	if got := url(); got != "" {
		t.Errorf("before: got %s", got)
	}
	kind := widget()
	o.cfg.Kinds.Add(kind)
	first := url()
	answer := get(t, o, first, nil)
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Cache-Control") != "public, immutable" {
		t.Errorf("got %d, cache control %q", answer.StatusCode, answer.Header.Get("Cache-Control"))
	}
	if data := string(body(t, answer)); !strings.Contains(data, "com.example.v1.WidgetList") || !strings.Contains(data, `"size"`) {
		t.Errorf("the document lacks the kind: %.200s", data)
	}
	changed := *kind
	changed.Status = &api.Subresource{}
	o.cfg.Kinds.Add(&changed)
	if got := get(t, o, first, nil); got.StatusCode != http.StatusMovedPermanently || got.Header.Get("Location") != url() {
		t.Errorf("old hash: got %d to %s", got.StatusCode, got.Header.Get("Location"))
	}
	if got := get(t, o, "/openapi/v3/apis/nope/v1", nil); got.StatusCode != http.StatusNotFound {
		t.Errorf("unknown version: got %d", got.StatusCode)
	}
}

// What is published of a custom kind is what upstream publishes of it: no watches,
// no protobuf, and the models that it refers to.
func TestCustom(t *testing.T) {
	kind := widget()
	kind.Scale = &api.Scale{}
	kind.Versions[0].FieldLabels = []string{"spec.size"}
	d := decode(t, body(t, get(t, server(kind), "/openapi/v3/apis/example.com/v1", nil)))
	if diff := cmp.Diff(map[string]any{"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}, d["info"]); diff != "" {
		t.Error(diff)
	}
	components := d["components"].(map[string]any)
	schemas := components["schemas"].(map[string]any)
	if components["securitySchemes"] != nil || schemas[scaleModel] == nil {
		t.Errorf("components: got %v", slices.Collect(maps.Keys(components)))
	}
	list := schemas["com.example.v1.WidgetList"].(map[string]any)
	if diff := cmp.Diff([]any{map[string]any{"fieldPath": "spec.size"}}, list["x-kubernetes-selectable-fields"]); diff != "" {
		t.Error(diff)
	}
	paths := d["paths"].(map[string]any)
	const all = "/apis/example.com/v1/namespaces/{namespace}/widgets"
	if got, want := slices.Sorted(maps.Keys(paths)), []string{all, all + "/{name}", all + "/{name}/scale", "/apis/example.com/v1/widgets"}; !slices.Equal(got, want) {
		t.Errorf("paths: got %v", got)
	}
	operation := func(path, method string) map[string]any { return paths[path].(map[string]any)[method].(map[string]any) }
	if got := operation(all, "get"); got["description"] != "list objects of kind Widget" ||
		!slices.Equal(slices.Sorted(maps.Keys(got["responses"].(map[string]any)["200"].(map[string]any)["content"].(map[string]any))), textTypes) {
		t.Errorf("list: got %v", got)
	}
	if got := operation(all, "delete"); got["requestBody"] != nil {
		t.Errorf("deletecollection: got %v", got)
	}
	if got := operation(all+"/{name}/scale", "get"); got["x-kubernetes-group-version-kind"].(map[string]any)["kind"] != "Widget" {
		t.Errorf("scale: got %v", got)
	}
}

func TestV2(t *testing.T) {
	o := server(widget())
	d := decode(t, body(t, get(t, o, "/openapi/v2", nil)))
	definitions := d["definitions"].(map[string]any)
	pod := definitions["io.k8s.api.core.v1.Pod"].(map[string]any)
	if diff := cmp.Diff([]any{map[string]any{"group": "", "kind": "Pod", "version": "v1"}}, pod["x-kubernetes-group-version-kind"]); diff != "" {
		t.Error(diff)
	}
	containers := definitions["io.k8s.api.core.v1.PodSpec"].(map[string]any)["properties"].(map[string]any)["containers"].(map[string]any)
	if containers["x-kubernetes-patch-merge-key"] != "name" || containers["x-kubernetes-list-type"] != "map" {
		t.Errorf("containers: got %v", containers)
	}
	if definitions["com.example.v1.Widget"] == nil {
		t.Error("no definition of the custom kind")
	}
	old := get(t, o, "/openapi/v2", http.Header{"Accept": {"application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}})
	if got, want := old.Header.Get("Content-Type"), "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"; got != want {
		t.Errorf("content type: got %s", got)
	}
	var document openapi_v2.Document
	if err := proto.Unmarshal(body(t, old), &document); err != nil || len(document.Paths.Path) < 100 {
		t.Errorf("protobuf: %v, %d paths", err, len(document.GetPaths().GetPath()))
	}
	if got := get(t, o, "/openapi/v2", http.Header{"Accept": {"text/html"}}); got.StatusCode != http.StatusNotAcceptable {
		t.Errorf("html: got %d", got.StatusCode)
	}
}

// The converter knows which lists are maps.
func TestTypeConverter(t *testing.T) {
	d := &appsv1.Deployment{}
	d.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	value, err := server().TypeConverter().ObjectToTyped(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := value.ToFieldSet(); err != nil {
		t.Error(err)
	}
	if _, err := server().TypeConverterFor(widget()); err != nil {
		t.Error(err)
	}
}
