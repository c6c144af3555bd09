// SPDX-License-Identifier: Apache-2.0

package crd_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"kaji/kajitest"
)

// converter is a webhook that calls color what v2 calls colour.
func converter(t *testing.T) *httptest.Server {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range review.Request.Objects {
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

// Objects written in one version are read in the other as the webhook says.
func TestConversionWebhook(t *testing.T) {
	server := converter(t)
	cluster := kajitest.Start(t)
	b := &bench{t: t, client: cluster.Client(), cluster: cluster}
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	text := widgetDefinition + `
  - name: v2
    served: true
    storage: false
    selectableFields: [{jsonPath: .spec.colour}]
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {colour: {type: string}}}}}}
  conversion:
    strategy: Webhook
    webhook: {conversionReviewVersions: [v1], clientConfig: {url: "` + server.URL + `/convert", caBundle: ` + ca + `}}
`
	if err := b.define(text); err != nil {
		t.Fatal(err)
	}
	v2 := widgets
	v2.Version = "v2"
	w := widget("metadata: {name: a}\nspec: {colour: blue}")
	w.SetAPIVersion("example.com/v2")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := b.client.Create(t.Context(), v2, "", w, metav1.CreateOptions{})
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-tick.C
	}
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
	server.Close()
	if _, err := b.client.List(t.Context(), v2, metav1.ListOptions{FieldSelector: "spec.colour=red"}); err == nil {
		t.Error("without its webhook a selection is said to be empty")
	}
}
