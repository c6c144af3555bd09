// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	"kaji/kajitest"
)

// Requests with unusual options and the answers that the reference gives.
func TestUnusualRequests(t *testing.T) {
	config := kajitest.Start(t).RESTConfig()
	const maps, one = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/configmaps/a"
	if code, _, body := ask(t, config, "POST", maps, `{"metadata":{"name":"a"}}`); code != http.StatusCreated {
		t.Fatalf("got %d %s", code, body)
	}
	const (
		partial     = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
		partialList = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
		tables      = "application/json;as=Table;g=meta.k8s.io;v=v1"
	)
	for _, tc := range []struct {
		name, method, path, body string
		headers                  []string
		code                     int
		says                     string
	}{
		{"an object is no list", "GET", one, "", []string{"Accept", partialList}, 406,
			"you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"},
		{"a list is no object", "GET", maps, "", []string{"Accept", partial}, 406,
			"you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"},
		{"discovery is no table", "GET", "/apis/apps/v1", "", []string{"Accept", tables}, 406,
			"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"the router knows no CBOR", "GET", "/api/v1", "", []string{"Accept", "application/cbor"}, 406,
			`406: Not Acceptable\n\nAvailable representations`},
		{"the aggregator has no router", "GET", "/apis", "", []string{"Accept", "application/cbor"}, 406,
			"only the following media types are accepted"},
		{"an unknown group before any form", "GET", "/apis/nope.io", "", []string{"Accept", "text/html"}, 404, "404 page not found"},
		{"an error passes over shapes", "GET", one + "zz", "", []string{"Accept", tables + ", application/yaml"}, 404, "kind: Status"},
		{"the version is JSON", "GET", "/version", "", []string{"Accept", "application/merge-patch+json"}, 406, "406: Not Acceptable"},
		{"no revision", "GET", one + "?resourceVersion=x", "", nil, 500,
			`resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax`},
		{"a patch of no known type", "PATCH", one, `{}`, []string{"Content-Type", "application/json"}, 415, `"message":"415: Unsupported Media Type"`},
		{"a list is no ConfigMap", "POST", maps, `{"apiVersion":"v1","kind":"ConfigMapList"}`, nil, 400,
			"converting (v1.ConfigMapList) to (core.ConfigMap): unknown conversion"},
		{"options are no ConfigMap", "POST", maps, `{"apiVersion":"v1","kind":"DeleteOptions"}`, nil, 400,
			"converting (v1.DeleteOptions) to (core.ConfigMap): unknown conversion"},
		{"a group without a version", "POST", maps, `{"apiVersion":"v1/","kind":"ConfigMap","metadata":{"name":"b"}}`, nil, 400,
			"Object 'apiVersion' is missing in"},
		{"options that are no protobuf", "DELETE", one, `{}`, []string{"Content-Type", "application/vnd.kubernetes.protobuf"}, 400,
			`"message":"provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"`},
		{"what can be read is not deleted so", "DELETE", one + "?ignoreStoreReadErrorWithClusterBreakingPotential=true", "", nil, 409,
			"unsafe deletion is not allowed because the object is decodable from storage"},
		{"nor are collections", "DELETE", maps + "?ignoreStoreReadErrorWithClusterBreakingPotential=true", "", nil, 422,
			"is not allowed with DELETECOLLECTION"},
		{"nodes have no namespace", "GET", "/api/v1/nodes?fieldSelector=metadata.namespace%3Dx", "", nil, 400,
			"field label not supported: metadata.namespace"},
		{"namespaces have no name", "GET", "/api/v1/namespaces?fieldSelector=name%3Dx", "", nil, 400, "field label not supported: name"},
		{"all of a pod's addresses", "GET", "/api/v1/pods?fieldSelector=status.podIPs%3Dx", "", nil, 200, `"items":[]`},
		{"a binding to nothing", "POST", "/api/v1/namespaces/default/bindings", `{"metadata":{"name":"p"}}`, nil, 500,
			`"message":"target.name: Required value"`},
		{"reviews in no namespace", "POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", `{}`, nil, 404,
			"the server could not find the requested resource"},
		{"still there", "GET", one, "", nil, 200, `"name":"a"`},
	} {
		code, _, body := ask(t, config, tc.method, tc.path, tc.body, tc.headers...)
		if code != tc.code || !strings.Contains(body, tc.says) {
			t.Errorf("%s: got %d %s, want %d %s", tc.name, code, body, tc.code, tc.says)
		}
	}
}

// A revision that is not there yet is waited for, and then refused.
func TestRevisionsOfTheFuture(t *testing.T) {
	config := kajitest.Start(t).RESTConfig()
	for _, path := range []string{
		"/api/v1/namespaces/default?resourceVersion=99999999",
		"/api/v1/configmaps?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTAwMDAwMDAsInN0YXJ0IjoiYSJ9",
	} {
		code, header, body := ask(t, config, "GET", path, "")
		if code != http.StatusGatewayTimeout || header.Get("Retry-After") != "1" || !strings.Contains(body, "Too large resource version") {
			t.Errorf("%s: got %d %v %s", path, code, header, body)
		}
	}
}
