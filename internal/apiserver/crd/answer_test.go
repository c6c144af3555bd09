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
	return b.askAs(method, path, contentType, "application/json", body)
}

// askAs asks for an answer of a type.
func (b *bench) askAs(method, path, contentType, accept, body string) (code int, warnings, text string) {
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
	r.Header.Set("Accept", accept)
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
		{"a name to create", "POST", all + "/b", json, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"}}`, 201, "", `"name":"b"`},
		{"no name to replace", "PUT", all, json, `{}`, 400, "", "name must be provided"},
		{"a collection of all namespaces", "DELETE", "/apis/example.com/v1/widgets", json, "", 404, "", "404 page not found"},
		{"another kind", "PATCH", all + "/b", "application/json-patch+json", `[{"op":"replace","path":"/kind","value":"Gadget"}]`, 422, "",
			`Gadget.example.com \"b\" is invalid: kind: Invalid value: \"Gadget\": must be Widget`},
		{"another version", "PATCH", all + "/b", merge, `{"apiVersion":"a/b"}`, 422, "", `apiVersion: Invalid value: \"a/b\": must be example.com/v1`},
		{"plain text", "POST", all, "text/plain", `x`, 415, "", "accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"no new scale", "POST", all + "/a/scale", json, `{}`, 405, "", `create is not supported on resources of kind \"widgets.example.com\"`},
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

// Forms that nobody has are refused in the words of the server of custom resources,
// and there are no items in a list of the metadata of none.
func TestForms(t *testing.T) {
	b := start(t)
	if err := b.define(widgetDefinition); err != nil {
		t.Fatal(err)
	}
	b.until(200, "GET", widgetPath, "")
	code, _, text := b.askAs("GET", widgetPath, "", "text/html", "")
	if want := `"message":"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf","reason":"NotAcceptable","code":406`; code != 406 || !strings.Contains(text, want) {
		t.Errorf("text/html: got %d %s", code, text)
	}
	code, _, text = b.askAs("GET", widgetPath, "", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "")
	if code != 200 || !strings.Contains(text, `"items":null`) {
		t.Errorf("metadata: got %d %s", code, text)
	}
	code, _, text = b.askAs("GET", "/apis", "", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "")
	if want := `{"resource":"widgets","responseKind":{"group":"example.com","version":"v1","kind":"Widget"}`; code != 200 || !strings.Contains(text, want) {
		t.Errorf("discovery: got %d %s", code, text)
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

// While a definition waits for its objects' finalizers, these can be changed and
// nothing new is made.
func TestAnswersWhileTerminating(t *testing.T) {
	b := start(t)
	if err := b.define(widgetDefinition); err != nil {
		t.Fatal(err)
	}
	b.until(200, "GET", widgetPath, "")
	const one = `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","finalizers":["example.com/x"]}}`
	if code, _, body := b.ask("POST", widgetPath, "application/json", one); code != 201 {
		t.Fatal(body)
	}
	const definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"
	if code, _, body := b.ask("DELETE", definition, "application/json", ""); code != 200 {
		t.Fatal(body)
	}
	b.until(403, "POST", widgetPath, strings.Replace(one, `"a"`, `"b"`, 1))
	for _, tc := range []struct {
		method, path, kind, body string
		code                     int
		says                     string
	}{
		{"POST", widgetPath, "application/json", `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"}}`, 403,
			`widgets.example.com \"b\" is forbidden: create not allowed while custom resource definition is terminating`},
		{"PATCH", widgetPath + "/b?fieldManager=m", "application/apply-patch+yaml", `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"}}`, 403,
			"create not allowed while custom resource definition is terminating"},
		{"GET", "/apis/example.com/v1", "", "", 200, `"verbs":["delete","deletecollection","get","list","watch"]`},
		{"GET", definition, "", "", 200, "CustomResource deletion is in progress"},
		{"PATCH", widgetPath + "/a", "application/merge-patch+json", `{"metadata":{"finalizers":null}}`, 200, `"name":"a"`},
	} {
		code, _, body := b.ask(tc.method, tc.path, tc.kind, tc.body)
		for range 6000 {
			if tc.path != definition || strings.Contains(body, tc.says) {
				break
			}
			<-time.After(10 * time.Millisecond) // the objects are about to be deleted
			code, _, body = b.ask(tc.method, tc.path, tc.kind, tc.body)
		}
		if code != tc.code || !strings.Contains(body, tc.says) {
			t.Errorf("%s %s: got %d %s, want %d %s", tc.method, tc.path, code, body, tc.code, tc.says)
		}
	}
	b.until(404, "GET", definition, "")
}

// What is stored is shown as the schema has it now: with new defaults, without
// fields that are gone; in another version without that version's defaults.
func TestShownByTheSchema(t *testing.T) {
	b := start(t)
	text := widgetDefinition + `
  - name: v2
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {color: {type: string}, own: {type: string, default: x}}}}}}
`
	if err := b.define(text); err != nil {
		t.Fatal(err)
	}
	b.until(200, "GET", widgetPath, "")
	if code, _, body := b.ask("POST", widgetPath, "application/json",
		`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"a":"kept","size":3}}`); code != 201 {
		t.Fatal(body)
	}
	if _, _, body := b.ask("GET", strings.Replace(widgetPath, "v1", "v2", 1)+"/a", "", ""); !strings.Contains(body, `"spec":{"color":"red"}`) {
		t.Errorf("in v2: %s", body)
	}
	const at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec"
	if code, _, body := b.ask("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com", "application/json-patch+json",
		`[{"op":"remove","path":"`+at+`/x-kubernetes-validations"},{"op":"remove","path":"`+at+`/properties/size"},
		  {"op":"add","path":"`+at+`/properties/fresh","value":{"type":"string","default":"new"}}]`); code != 200 {
		t.Fatal(body)
	}
	body := ""
	for range 6000 {
		if _, _, body = b.ask("GET", widgetPath+"/a", "", ""); strings.Contains(body, "fresh") {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if !strings.Contains(body, `"spec":{"a":"kept","color":"red","fresh":"new"}`) {
		t.Errorf("after the change: %s", body)
	}
}
