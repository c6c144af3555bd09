// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/api/catalog"
	"kaji/internal/apiserver/request"
)

const asAggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// current is the catalog without the versions that must be asked for.
func current() []*api.Kind {
	var kinds []*api.Kind
	for _, k := range catalog.All() {
		var versions []api.Version
		for _, v := range k.Versions {
			if !v.OptIn {
				versions = append(versions, v)
			}
		}
		k.Versions = versions
		if len(versions) > 0 {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

func get(t *testing.T, d *Discovery, path, accept, etag string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	r.Header.Set("If-None-Match", etag)
	w := httptest.NewRecorder()
	found, err := d.Serve(w, r)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if !found {
		w.Code = http.StatusNotFound
	}
	return w
}

func decode(t *testing.T, data []byte) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The documents equal those of a Kubernetes 1.37.2 server.
func TestEqualsUpstream(t *testing.T) {
	d := New(Config{Kinds: request.NewKinds(current()...)})
	for file, path := range map[string]string{
		"aggregated-api":        "/api",
		"aggregated-apis":       "/apis",
		"apis":                  "/apis",
		"api-v1":                "/api/v1",
		"apis-apps-v1":          "/apis/apps/v1",
		"apis-autoscaling-v1":   "/apis/autoscaling/v1",
		"apis-events.k8s.io-v1": "/apis/events.k8s.io/v1",
	} {
		want, err := os.ReadFile("testdata/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		accept := "application/json"
		if strings.HasPrefix(file, "aggregated") {
			accept = asAggregated
		}
		got := get(t, d, path, accept, "").Body.Bytes()
		if diff := cmp.Diff(decode(t, want), decode(t, got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

func TestETag(t *testing.T) {
	kinds := request.NewKinds(current()...)
	d := New(Config{Kinds: kinds})
	first := get(t, d, "/apis", asAggregated, "")
	etag := first.Header().Get("ETag")
	if again := get(t, d, "/apis", asAggregated, etag); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
		t.Errorf("unchanged: got %d with %d bytes", again.Code, again.Body.Len())
	}
	gv := schema.GroupVersion{Group: "example.com", Version: "v1"}
	kinds.Add(&api.Kind{
		Group: gv.Group, Name: "Widget", Resource: "widgets", Singular: "widget", Namespaced: true, Custom: true,
		Versions: []api.Version{{GroupVersion: gv}, {GroupVersion: schema.GroupVersion{Group: gv.Group, Version: "v1beta1"}}}, Storage: gv, Prefix: "/registry/example.com/widgets",
	})
	changed := get(t, d, "/apis", asAggregated, etag)
	if changed.Code != http.StatusOK || !strings.Contains(changed.Body.String(), "widgets") {
		t.Errorf("changed: got %d %s", changed.Code, changed.Body)
	}
	group := decode(t, get(t, d, "/apis/example.com", "application/json", "").Body.Bytes())
	if got := group["preferredVersion"].(map[string]any)["version"]; got != "v1" {
		t.Errorf("preferred version: got %v", got)
	}
}

// Groups of other servers stand where their APIServices put them.
func TestRemote(t *testing.T) {
	remote := []Remote{{
		GroupVersion: schema.GroupVersion{Group: "metrics.k8s.io", Version: "v1"}, GroupPriority: 17850, VersionPriority: 5,
		Document: apidiscoveryv2.APIVersionDiscovery{Version: "v1", Freshness: apidiscoveryv2.DiscoveryFreshnessStale},
	}}
	d := New(Config{Kinds: request.NewKinds(current()...), Remote: func() ([]Remote, uint64) { return remote, 1 }})
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(get(t, d, "/apis", asAggregated, "").Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	if got := list.Items[1]; got.Name != "metrics.k8s.io" || got.Versions[0].Freshness != apidiscoveryv2.DiscoveryFreshnessStale {
		t.Errorf("second group: got %+v", got)
	}
	if got := get(t, d, "/apis/metrics.k8s.io/v1", "application/json", "").Code; got != http.StatusNotFound {
		t.Errorf("resources of another server: got %d", got)
	}
}

func TestNotFound(t *testing.T) {
	d := New(Config{Kinds: request.NewKinds(current()...)})
	for _, path := range []string{"/apis/nope", "/apis/apps/v9", "/api/v9", "/apis/apps/v1/deployments", "/other"} {
		if got := get(t, d, path, "application/json", "").Code; got != http.StatusNotFound {
			t.Errorf("%s: got %d", path, got)
		}
	}
}
