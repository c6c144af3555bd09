// SPDX-License-Identifier: Apache-2.0

package crd_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// ask sends a request as it stands and returns status, warnings and body.
func (b *bench) ask(method, path, contentType, body string) (code int, warnings, text string) {
	b.t.Helper()
	config := b.cluster.RESTConfig()
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, config.Host+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	answer, err := c.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.StatusCode, strings.Join(answer.Header.Values("Warning"), " "), string(data)
}

const widgetPath = "/apis/example.com/v1/namespaces/default/widgets"

// until asks until the answer has a status.
func (b *bench) until(code int, method, path, body string) {
	b.t.Helper()
	for range 6000 {
		got, _, _ := b.ask(method, path, "application/json", body)
		if got == code {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	b.t.Fatalf("%s %s: no %d", method, path, code)
}

// Requests for custom resources and the answers that the reference gives.
func TestAnswers(t *testing.T) {
	b := start(t)
	if err := b.define(widgetDefinition); err != nil {
		t.Fatal(err)
	}
	b.until(200, "GET", widgetPath, "")
	const all, json, merge = widgetPath, "application/json", "application/merge-patch+json"
	for _, tc := range []struct {
		name, method, path, kind, body string
		code                           int
		warns, says                    string
	}{
		{"no version", "POST", all, json, `{"kind":"Widget","metadata":{"name":"z"}}`, 400, "",
			"the API version in the data () does not match the expected API version (example.com/v1)"},
		{"no kind", "POST", all, json, `{"apiVersion":"example.com/v1","metadata":{"name":"z"}}`, 400, "",
			"the object provided is unrecognized (must be of type Widget): Object 'Kind' is missing in"},
		{"unknown fields are ignored when asked", "POST", all + "?fieldValidation=Ignore", json,
			`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"zz":1}}`, 201, "", `"name":"a"`},
		{"in patches too", "PATCH", all + "/a?fieldValidation=Ignore", merge, `{"spec":{"zz":1}}`, 200, "", `"name":"a"`},
		{"no replicas to show", "GET", all + "/a/scale", json, "", 500, "", `the spec replicas field \".spec.replicas\" does not exist`},
		{"no replicas given", "PATCH", all + "/a/scale", merge, `{"metadata":{"labels":{"a":"b"}}}`, 400, "",
			`the spec replicas field \".spec.replicas\" cannot be empty`},
		{"replicas set first by their scale", "PATCH", all + "/a/scale", merge, `{"spec":{"replicas":3}}`, 200, "", `"replicas":3`},
		{"no name to patch", "PATCH", all, merge, `{}`, 400, "", "name must be provided"},
		{"no namespace", "POST", "/apis/example.com/v1/widgets", json, `{}`, 404, "", "404 page not found"},
		{"a definition's end begins", "DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com?dryRun=All", json, "", 200, "",
			`"generation":1,`},
		{"the status comes first", "GET", "/apis/example.com/v1", json, "", 200, "", `"name":"widgets/status"`},
	} {
		code, warnings, body := b.ask(tc.method, tc.path, tc.kind, tc.body)
		if code != tc.code || warnings != tc.warns || !strings.Contains(body, tc.says) {
			t.Errorf("%s: got %d %q %s, want %d %q %s", tc.name, code, warnings, body, tc.code, tc.warns, tc.says)
		}
		if tc.name == "the status comes first" && strings.Index(body, "widgets/status") > strings.Index(body, "widgets/scale") {
			t.Errorf("%s: got %s", tc.name, body)
		}
	}
}

// A rule that an object broke before it came is told as a warning while the
// object keeps what breaks it.
func TestToleratedRuleWarns(t *testing.T) {
	b := start(t)
	if err := b.define(widgetDefinition); err != nil {
		t.Fatal(err)
	}
	b.until(200, "GET", widgetPath, "")
	if _, err := b.create("metadata: {name: a}\nspec: {color: blue, a: old}"); err != nil {
		t.Fatal(err)
	}
	rules := `[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/a/x-kubernetes-validations",` +
		`"value":[{"rule":"self != 'old'","message":"not old"}]}]`
	code, _, body := b.ask("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com", "application/json-patch+json", rules)
	if code != http.StatusOK {
		t.Fatalf("got %d %s", code, body)
	}
	b.until(422, "POST", widgetPath+"?dryRun=All", `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"},"spec":{"a":"old"}}`)
	code, warnings, body := b.ask("PATCH", widgetPath+"/a", "application/merge-patch+json", `{"spec":{"color":"red"}}`)
	if want := `299 - "spec.a: Invalid value: \"old\": not old"`; code != http.StatusOK || warnings != want {
		t.Errorf("got %d %s %s, want the warning %s", code, warnings, body, want)
	}
}
