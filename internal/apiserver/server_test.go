// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/store/memory"
	"kaji/kajitest"
)

// ask sends a request and returns status, headers and body.
func ask(t *testing.T, config *rest.Config, method, path, body string, headers ...string) (int, http.Header, string) {
	t.Helper()
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(data)
}

func TestAnswersOutsideOfResources(t *testing.T) {
	config := kajitest.Start(t).RESTConfig()
	for _, tc := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/livez/ping", 200, "ok"},
		{"GET", "/readyz?verbose", 200, "[+]etcd ok\n"},
		{"GET", "/readyz/nope", 404, "404 page not found"},
		{"GET", "/version", 200, `"gitVersion": "v1.37.2+kaji"`},
		{"POST", "/version", 405, "the server does not allow this method on the requested resource"},
		{"GET", "/nope", 404, "404 page not found"},
		{"GET", "/api/v1/nope", 404, "the server could not find the requested resource"},
		{"GET", "/api/v1/pods/p", 404, "the server could not find the requested resource"},
		{"GET", "/apis/apps/v9", 404, "the server could not find the requested resource"},
		{"GET", "/api/v1/namespaces/default/configmaps?timeout=x", 400, "invalid timeout specified in the request URL"},
		{"PUT", "/api/v1/namespaces/default/configmaps", 405, "the server does not allow this method"},
		{"DELETE", "/api/v1/configmaps", 405, "the server does not allow this method"},
	} {
		code, _, body := ask(t, config, tc.method, tc.path, "")
		if code != tc.code || !strings.Contains(body, tc.body) {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, code, body)
		}
	}
}

func TestLimitsOfABody(t *testing.T) {
	config := kajitest.Start(t).RESTConfig()
	big := `{"data":{"a":"` + strings.Repeat("x", 3<<20) + `"}}`
	if code, _, body := ask(t, config, "POST", "/api/v1/namespaces/default/configmaps", big); code != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d %.100s", code, body)
	}
	deep := strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000)
	if code, _, body := ask(t, config, "POST", "/api/v1/namespaces/default/configmaps", deep); code != http.StatusBadRequest {
		t.Errorf("too deep: %d %.100s", code, body)
	}
	if code, _, _ := ask(t, config, "POST", "/api/v1/namespaces/default/configmaps", "x", "Content-Type", "text/plain"); code != http.StatusUnsupportedMediaType {
		t.Errorf("media type: %d", code)
	}
}

func TestFieldValidation(t *testing.T) {
	config := kajitest.Start(t).RESTConfig()
	path := "/api/v1/namespaces/default/configmaps"
	body := `{"metadata":{"name":"NAME"},"nope":1,"data":{"a":"1","a":"2"}}`
	code, _, answer := ask(t, config, "POST", path+"?fieldValidation=Strict", strings.Replace(body, "NAME", "strict", 1))
	if code != 400 || !strings.Contains(answer, `strict decoding error: unknown field \"nope\", duplicate field \"data.a\"`) {
		t.Errorf("strict: %d %s", code, answer)
	}
	code, header, _ := ask(t, config, "POST", path, strings.Replace(body, "NAME", "warn", 1))
	if got := header.Values("Warning"); code != 201 || len(got) != 2 || got[0] != `299 - "unknown field \"nope\""` {
		t.Errorf("warn: %d %q", code, got)
	}
	code, header, _ = ask(t, config, "POST", path+"?fieldValidation=Ignore", strings.Replace(body, "NAME", "ignore", 1))
	if code != 201 || header.Get("Warning") != "" {
		t.Errorf("ignore: %d %q", code, header)
	}
}

func TestMetricsNameWhatIsServed(t *testing.T) {
	config := kajitest.Start(t).RESTConfig()
	cs := kubernetes.NewForConfigOrDie(config)
	if _, err := cs.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	ask(t, config, "GET", "/api/v1/some/strange/path", "")
	_, _, body := ask(t, config, "GET", "/metrics", "")
	for _, want := range []string{
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="namespaces",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_current_inflight_requests{request_kind="readOnly"}`,
		`apiserver_resource_objects{group="",resource="namespaces"} 4`,
		`kubernetes_build_info{`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, "strange") {
		t.Error("a path became a label")
	}
}

// nobody refuses everything.
type nobody struct{ authorizer.Authorizer }

// Authorize implements authorizer.Authorizer.
func (nobody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionNoOpinion, "", nil
}

func TestRefusalIsWordedAsUpstreams(t *testing.T) {
	cluster := kajitest.Start(t, kajitest.WithServer(func(cfg *apiserver.Config) {
		cfg.AlwaysAllow, cfg.Authorizer = false, nobody{}
	}))
	want := `configmaps is forbidden: User "alice" cannot list resource "configmaps" in API group "" in the namespace "default"`
	config := cluster.RESTConfig()
	config.BearerToken = "alice"
	_, err := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || err.Error() != want {
		t.Errorf("over HTTP: %v", err)
	}
	_, err = client.For[*corev1.ConfigMap](cluster.Client()).List(t.Context(), "default", metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `cannot list resource "configmaps"`) {
		t.Errorf("in process: %v", err)
	}
}

func TestNoAuthorizerFailsClosed(t *testing.T) {
	s := memory.New()
	defer s.Close()
	if _, err := apiserver.New(apiserver.Config{Store: s}); err == nil {
		t.Error("a server without an authorizer was made")
	}
}

// What is only answered and never stored has no table to be shown as.
func TestReviewsAreNoTables(t *testing.T) {
	config := kajitest.Start(t).RESTConfig()
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io"
	for path, body := range map[string]string{
		"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": `{"spec":{"nonResourceAttributes":{"path":"/","verb":"get"}}}`,
		"/api/v1/namespaces/default/pods/p/eviction":             `{}`,
	} {
		if code, _, answer := ask(t, config, "POST", path, body, "Accept", table); code != http.StatusNotAcceptable {
			t.Errorf("%s: %d %s", path, code, answer)
		}
	}
	if code, _, answer := ask(t, config, "POST", "/api/v1/namespaces", `{"metadata":{"name":"a"}}`, "Accept", table); code != http.StatusCreated || !strings.Contains(answer, `"kind":"Table"`) {
		t.Errorf("namespaces: %d %s", code, answer)
	}
}
