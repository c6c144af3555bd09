// SPDX-License-Identifier: Apache-2.0

package crd_test

import (
	"net/http"
	"strings"
	"testing"
)

// Objects whose conversion webhook is dead cannot be read, changed or deleted
// in the version that asks for it; in the stored one they can.
func TestDeadConversion(t *testing.T) {
	b := start(t)
	text := strings.Replace(widgetDefinition, "  scope:", `  conversion:
    strategy: Webhook
    webhook: {conversionReviewVersions: [v1], clientConfig: {service: {namespace: default, name: none}}}
  scope:`, 1) + `
  - name: v2
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`
	if err := b.define(text); err != nil {
		t.Fatal(err)
	}
	b.until(200, "GET", widgetPath, "")
	for _, name := range []string{"a", "b"} {
		if _, err := b.create("metadata: {name: " + name + "}\nspec: {color: blue}"); err != nil {
			t.Fatal(err)
		}
	}
	const failed = `conversion webhook for example.com/v1, Kind=Widget failed: `
	path := strings.Replace(widgetPath, "v1", "v2", 1)
	for _, tc := range []struct {
		method, path, kind, body string
		says                     []string
	}{
		{"GET", path + "/a", "", "", []string{"Internal error occurred: StorageError: corrupt object, Code: 7, Key: /example.com/widgets/default/a, ResourceVersion: 0, AdditionalErrorMsg: object not decodable revision=", failed, `"reason":"InternalError"`}},
		{"GET", path, "", "", []string{"failed to read one or more widgets.example.com from the storage: StorageError: corrupt object, Code: 7, Key: /registry/example.com/widgets/default/a, ", " (and 1 more)", failed, `"reason":"StorageReadError"`, `"field":"/registry/example.com/widgets/default/b"`}},
		{"PATCH", path + "/a", "application/merge-patch+json", `{"spec":{}}`, []string{`"message":"object not decodable revision=`, failed}},
		{"DELETE", path + "/a", "", "", []string{"Internal error occurred: StorageError: corrupt object", failed}},
		{"DELETE", path, "", "", []string{"failed to read one or more widgets.example.com", failed}},
	} {
		code, _, body := b.ask(tc.method, tc.path, tc.kind, tc.body)
		for _, says := range tc.says {
			if code != http.StatusInternalServerError || !strings.Contains(body, says) {
				t.Errorf("%s %s: got %d %s, want %s", tc.method, tc.path, code, body, says)
			}
		}
	}
	if code, _, body := b.ask("DELETE", widgetPath, "application/json", ""); code != 200 {
		t.Errorf("in the stored version: %s", body)
	}
}

// The Scale of a custom resource is changed by all means but apply, and read in
// all formats but protobuf.
func TestScaleAnswers(t *testing.T) {
	b := start(t)
	if err := b.define(widgetDefinition); err != nil {
		t.Fatal(err)
	}
	b.until(200, "GET", widgetPath, "")
	if _, err := b.create("metadata: {name: a}\nspec: {replicas: 1}"); err != nil {
		t.Fatal(err)
	}
	const (
		scale   = `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"a"},"spec":{"replicas":2}}`
		unknown = `no kind is registered for the type v1.Scale in scheme \"pkg/runtime/scheme.go:111\"`
	)
	for _, tc := range []struct {
		method, kind, body string
		code               int
		says               string
	}{
		{"PATCH", "application/apply-patch+yaml", scale, 409, "Apply failed with 1 conflict"},
		{"PATCH&force=true", "application/apply-patch+yaml", scale, 500, `failed to convert new object (/a; autoscaling/v1, Kind=Scale) to proper version: request to convert CR to an invalid group/version: autoscaling/v1`},
		{"PUT", "application/json", scale, 200, `"replicas":2`},
		{"PUT", "application/json", strings.Replace(scale, "autoscaling", "apps", 1), 400, unknown},
		{"PUT", "application/json", strings.Replace(scale, ":2", `:"x"`, 1), 400, unknown},
		{"PUT", "application/json", `{"apiVersion":"v1","kind":"Pod"}`, 400, unknown},
	} {
		method, options, _ := strings.Cut(tc.method, "&")
		if code, _, body := b.ask(method, widgetPath+"/a/scale?fieldManager=m&"+options, tc.kind, tc.body); code != tc.code || !strings.Contains(body, tc.says) {
			t.Errorf("%s %s: got %d %s, want %d %s", tc.method, tc.body, code, body, tc.code, tc.says)
		}
	}
	for accept, want := range map[string]int{"application/vnd.kubernetes.protobuf": 406, "application/vnd.kubernetes.protobuf,application/json": 200} {
		if got, _ := b.fetch(widgetPath+"/a/scale", accept); got != want {
			t.Errorf("%s: got %d", accept, got)
		}
	}
}
