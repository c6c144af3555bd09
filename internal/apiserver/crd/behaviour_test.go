// SPDX-License-Identifier: Apache-2.0

package crd_test

import (
	"net/http"
	"strings"
	"testing"
)

// Each version has its own subresources and is judged by its own schema; where the
// stored one does not know all of its fields, by that.
func TestBehaviourOfVersions(t *testing.T) {
	b := start(t)
	err := b.define(widgetDefinition + `
  - name: v2
    served: true
    storage: false
    subresources: {scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.replicas}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [a], properties: {a: {type: string, default: x}, size: {type: integer, maximum: 5}}}
          status: {type: object, properties: {replicas: {type: integer}}}
  - name: v3
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, required: [new], properties: {new: {type: string}, size: {type: integer, maximum: 5}}}}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	b.established("widgets.example.com")
	const json = "application/json"
	path := func(version string) string { return strings.Replace(widgetPath, "v1", version, 1) }
	b.until(http.StatusOK, http.MethodGet, path("v3"), "")
	for _, step := range []struct {
		what, method, path, contentType, body string
		code                                  int
		text                                  string
	}{
		{"too many for v2", "POST", path("v2"), json, `{"apiVersion":"example.com/v2","kind":"Widget","metadata":{"name":"a"},"spec":{"size":7}}`, 422, "spec.size: Invalid value: 7: spec.size in body should be less than or equal to 5"},
		{"not for v1", "POST", path("v1"), json, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"size":7}}`, 201, ""},
		{"a change in v2", "PATCH", path("v2") + "/a", "application/merge-patch+json", `{"spec":{"size":8}}`, 422, "less than or equal to 5"},
		{"by its rules", "PATCH", path("v1") + "/a", "application/merge-patch+json", `{"spec":{"a":"bad"}}`, 422, "a must not be bad"},
		{"which v2 has not", "PATCH", path("v2") + "/a", "application/merge-patch+json", `{"spec":{"a":"bad","size":3}}`, 200, ""},
		{"status of v1", "GET", path("v1") + "/a/status", json, "", 200, ""},
		{"no status of v2", "GET", path("v2") + "/a/status", json, "", 404, "NotFound"},
		{"status is no view in v2", "PATCH", path("v2") + "/a", "application/merge-patch+json", `{"status":{"replicas":9}}`, 200, `"status":{"replicas":9}`},
		{"but in v1", "PATCH", path("v1") + "/a", "application/merge-patch+json", `{"spec":{"a":"good"},"status":{"replicas":1}}`, 200, `"status":{"replicas":9}`},
		{"scale of v2", "PATCH", path("v2") + "/a/scale", "application/merge-patch+json", `{"spec":{"replicas":2}}`, 200, `"spec":{"replicas":2}`},
		{"is its field", "GET", path("v1") + "/a", json, "", 200, `"size":2`},
		{"scale of v2 within its schema", "PATCH", path("v2") + "/a/scale", "application/merge-patch+json", `{"spec":{"replicas":6}}`, 422, "less than or equal to 5"},
		{"no scale of v3", "GET", path("v3") + "/a/scale", json, "", 404, "NotFound"},
		{"a field that is not stored", "POST", path("v3"), json, `{"apiVersion":"example.com/v3","kind":"Widget","metadata":{"name":"b"},"spec":{"new":"x","size":7}}`, 201, ""},
		{"discovery of v3", "GET", "/apis/example.com/v3", json, "", 200, `"resources":[{"name":"widgets"`},
	} {
		code, _, text := b.ask(step.method, step.path, step.contentType, step.body)
		if code != step.code || !strings.Contains(text, step.text) {
			t.Errorf("%s: got %d %s", step.what, code, text)
		}
	}
	if _, _, text := b.ask("GET", "/apis/example.com/v3", json, ""); strings.Contains(text, "widgets/") {
		t.Errorf("discovery of v3 has subresources: %s", text)
	}
	if _, _, text := b.ask("GET", "/apis/example.com/v2", json, ""); !strings.Contains(text, "widgets/scale") || strings.Contains(text, "widgets/status") {
		t.Errorf("discovery of v2: %s", text)
	}
	_, _, metrics := b.askAs("GET", "/metrics", "", "text/plain", "")
	for _, want := range []string{
		`apiextensions_openapi_v2_regeneration_count{crd="widgets.example.com",reason="add"} 1`,
		`apiextensions_openapi_v3_regeneration_count{crd="widgets.example.com",group="example.com",reason="add",version="v3"} 1`,
		"\napiextensions_apiserver_validation_ratcheting_seconds_count ", "\naggregator_discovery_aggregation_count_total ",
		`apiserver_admission_step_admission_duration_seconds_count{operation="CREATE",rejected="false",type="admit"}`,
		`apiserver_admission_controller_admission_duration_seconds_count{name="NamespaceLifecycle",operation="CREATE",rejected="false",type="admit"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no metric %s", want)
		}
	}
}
