// SPDX-License-Identifier: Apache-2.0

package crd_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"kaji/internal/client"
	"kaji/kajitest"
)

// converter is a webhook that calls color what v2 calls colour.
func converter(t *testing.T, calls *atomic.Int32) *httptest.Server {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range review.Request.Objects {
			if !strings.Contains(string(raw.Raw), `"namespace":"default"`) {
				review.Response.Result = metav1.Status{Status: metav1.StatusFailure, Message: "an object without its namespace"}
			}
			text := strings.Replace(string(raw.Raw), `"color"`, `"colour"`, 1)
			if review.Request.DesiredAPIVersion == "example.com/v1" {
				text = strings.Replace(string(raw.Raw), `"colour"`, `"color"`, 1)
			}
			for _, version := range []string{"example.com/v1", "example.com/v2"} {
				text = strings.Replace(text, `"apiVersion":"`+version+`"`, `"apiVersion":"`+review.Request.DesiredAPIVersion+`"`, 1)
			}
			review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Raw: []byte(text)})
		}
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(server.Close)
	return server
}

// startConverting serves widgets in two versions, between which a webhook
// converts that counts its calls.
func startConverting(t *testing.T, calls *atomic.Int32) (*bench, *httptest.Server) {
	server := converter(t, calls)
	cluster := kajitest.Start(t)
	b := &bench{t: t, client: cluster.Client(), cluster: cluster}
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	text := widgetDefinition + `
  - name: v2
    served: true
    storage: false
    selectableFields: [{jsonPath: .spec.colour}]
    additionalPrinterColumns: [{name: Colour, type: string, jsonPath: .spec.colour}]
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {colour: {type: string}}}}}}
  conversion:
    strategy: Webhook
    webhook: {conversionReviewVersions: [v1], clientConfig: {url: "` + server.URL + `/convert", caBundle: ` + ca + `}}
`
	if err := b.define(text); err != nil {
		t.Fatal(err)
	}
	return b, server
}

// painted creates a widget in the version v2, as soon as it is served.
func (b *bench) painted(v2 client.Resource, name, colour string) {
	b.t.Helper()
	w := widget("metadata: {name: " + name + "}\nspec: {colour: " + colour + "}")
	w.SetAPIVersion("example.com/v2")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := b.client.Create(b.t.Context(), v2, "", w, metav1.CreateOptions{})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatal(err)
		}
		<-tick.C
	}
}

// A list asks the webhook once for all its objects, and what was converted is
// kept for other lists, tables, selections and watches.
func TestConversionsAreKept(t *testing.T) {
	var calls atomic.Int32
	b, _ := startConverting(t, &calls)
	v2 := widgets
	v2.Version = "v2"
	b.painted(v2, "a", "blue")
	for i := range 100 {
		if _, err := b.create(fmt.Sprintf("metadata: {name: w%d}\nspec: {}", i)); err != nil {
			t.Fatal(err)
		}
	}
	calls.Store(0)
	path := "/apis/example.com/v2/namespaces/default/widgets"
	for _, get := range []struct {
		query, accept, want string
		calls               int32
	}{
		{"", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", `"name":"w99"`, 0},
		{"?limit=10", "application/json", `"colour":"red"`, 1},
		{"?fieldSelector=spec.colour%3Dblue", "application/json", `"colour":"blue"`, 2},
		{"", "application/json;as=Table;v=v1;g=meta.k8s.io", `"cells":["w99","red"]`, 2},
		{"?watch=true&timeoutSeconds=1&fieldSelector=spec.colour%3Dblue&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
			"application/json", `"colour":"blue"`, 2},
	} {
		body := b.get(path+get.query, get.accept)
		if !strings.Contains(body, get.want) {
			t.Errorf("%s as %s: want %s in %.300s", get.query, get.accept, get.want, body)
		}
		if got := calls.Load(); got != get.calls {
			t.Errorf("%s as %s: %d calls of the webhook by now, want %d", get.query, get.accept, got, get.calls)
		}
	}
}

func (b *bench) get(path, accept string) string {
	b.t.Helper()
	_, body := b.fetch(path, accept)
	return body
}

// fetch returns how a GET is answered.
func (b *bench) fetch(path, accept string) (code int, body string) {
	b.t.Helper()
	cfg := b.cluster.RESTConfig()
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, cfg.Host+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
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
	return answer.StatusCode, string(data)
}

// Objects written in one version are read in the other as the webhook says.
func TestConversionWebhook(t *testing.T) {
	b, server := startConverting(t, new(atomic.Int32))
	v2 := widgets
	v2.Version = "v2"
	b.painted(v2, "a", "blue")
	obj, err := b.client.Get(t.Context(), widgets, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if color, _, _ := unstructured.NestedString(obj.(*unstructured.Unstructured).Object, "spec", "color"); color != "blue" {
		t.Errorf("v1: got color %q", color)
	}
	if obj, err = b.client.Get(t.Context(), v2, "a", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if colour, _, _ := unstructured.NestedString(obj.(*unstructured.Unstructured).Object, "spec", "colour"); colour != "blue" {
		t.Errorf("v2: got colour %q", colour)
	}
	for selector, want := range map[string]int{"spec.colour=blue": 1, "spec.colour=red": 0} {
		list, err := b.client.List(t.Context(), v2, metav1.ListOptions{FieldSelector: selector})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(list.(*unstructured.UnstructuredList).Items); got != want {
			t.Errorf("%s selects %d objects, want %d", selector, got, want)
		}
	}
	// What was converted before is known; what was not cannot be told.
	if _, err := b.create("metadata: {name: new}\nspec: {}"); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := b.client.List(t.Context(), v2, metav1.ListOptions{FieldSelector: "spec.colour=red"}); err == nil {
		t.Error("without its webhook a selection is said to be empty")
	}
}
