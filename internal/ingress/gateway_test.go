// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"kaji/internal/client"
	"kaji/internal/ingress/gateway/definition"
)

// newGateways makes a world in which the Gateway API is defined, with the class kaji.
func newGateways(t *testing.T, options ...func(*Config)) *world {
	t.Helper()
	w := newWorld(t, options...)
	w.define()
	w.apply(`
kind: GatewayClass
metadata: {name: kaji}
spec: {controllerName: kaji.dev/gateway}
`)
	return w
}

// define defines the kinds of the Gateway API.
func (w *world) define() {
	w.t.Helper()
	t := w.t
	all, err := definition.Load()
	if err != nil {
		t.Fatal(err)
	}
	at := client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}}
	for _, o := range all {
		if _, err := w.api.Create(t.Context(), at, "", o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the kinds are served", func() bool {
		for _, name := range definition.Names() {
			resource, _, _ := strings.Cut(name, ".")
			if _, err := w.api.List(t.Context(), w.resource(resource, ""), metav1.ListOptions{}); err != nil {
				return false
			}
		}
		return true
	})
}

func (w *world) resource(resource, namespace string) client.Resource {
	version := "v1"
	if resource == "referencegrants" {
		version = "v1beta1"
	}
	return client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: version, Resource: resource}, Namespace: namespace}
}

// apply creates objects of the Gateway API.
func (w *world) apply(text string) {
	w.t.Helper()
	for one := range strings.SplitSeq(text, "\n---\n") {
		o := &unstructured.Unstructured{}
		data, err := yaml.YAMLToJSON([]byte(one))
		if err == nil {
			err = o.UnmarshalJSON(data)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		resource := strings.ToLower(o.GetKind()) + "s"
		if resource == "gatewayclasss" {
			resource = "gatewayclasses"
		} else if o.GetNamespace() == "" {
			o.SetNamespace("default")
		}
		at := w.resource(resource, o.GetNamespace())
		o.SetAPIVersion(at.Group + "/" + at.Version)
		if _, err := w.api.Create(w.t.Context(), at, "", o, metav1.CreateOptions{}); err != nil {
			w.t.Fatalf("%s: %v", one, err)
		}
	}
}

// read reads an object of the Gateway API.
func (w *world) read(resource, name string, into any) {
	w.t.Helper()
	got, err := w.api.Get(w.t.Context(), w.resource(resource, "default"), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(got)
	if err == nil {
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(content, into)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// said writes conditions as "Type=Status:Reason", those that are named only.
func said(all []metav1.Condition, names ...string) string {
	var out []string
	for _, name := range names {
		for _, c := range all {
			if c.Type == name {
				out = append(out, fmt.Sprintf("%s=%s:%s", c.Type, c.Status, c.Reason))
			}
		}
	}
	return strings.Join(out, " ")
}

const plain = `
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: kaji
  listeners: [{name: http, port: 80, protocol: HTTP}]
`

// A Gateway and a route serve, and say so in their status.
func TestGateway(t *testing.T) {
	w := newGateways(t)
	w.pod("10.0.0.1:8080", echo("a"))
	w.service("app", "10.0.0.1")
	w.apply(plain)
	w.apply(`
kind: HTTPRoute
metadata: {name: app}
spec:
  parentRefs: [{name: web}]
  hostnames: [app.test]
  rules: [{backendRefs: [{name: app, port: 80}]}]
`)
	got := w.reaches("http://app.test/x%2Fy?q=1", 200)
	if got.body != "a app.test /x%2Fy?q=1 127.0.0.1 http 127.0.0.1 app.test" {
		t.Errorf("%q", got.body)
	}
	if got := w.get("http://other.test/"); got.status != 404 {
		t.Errorf("an unknown host: %d", got.status)
	}
	until(t, "the status of the class", func() bool {
		var c gatewayv1.GatewayClass
		all, err := w.api.Get(t.Context(), w.resource("gatewayclasses", ""), "kaji", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(all)
		if err != nil || json.Unmarshal(data, &c) != nil {
			t.Fatal(err)
		}
		return said(c.Status.Conditions, "Accepted") == "Accepted=True:Accepted" && len(c.Status.SupportedFeatures) > 5
	})
	until(t, "the status of the Gateway", func() bool {
		var g gatewayv1.Gateway
		w.read("gateways", "web", &g)
		return said(g.Status.Conditions, "Accepted", "Programmed") == "Accepted=True:Accepted Programmed=True:Programmed" &&
			len(g.Status.Addresses) == 1 && g.Status.Addresses[0].Value == "192.0.2.10" && len(g.Status.Listeners) == 1 && g.Status.Listeners[0].AttachedRoutes == 1 &&
			said(g.Status.Listeners[0].Conditions, "Accepted", "Programmed", "ResolvedRefs", "Conflicted") ==
				"Accepted=True:Accepted Programmed=True:Programmed ResolvedRefs=True:ResolvedRefs Conflicted=False:NoConflicts"
	})
	until(t, "the status of the route", func() bool {
		var r gatewayv1.HTTPRoute
		w.read("httproutes", "app", &r)
		return len(r.Status.Parents) == 1 && said(r.Status.Parents[0].Conditions, "Accepted", "ResolvedRefs") == "Accepted=True:Accepted ResolvedRefs=True:ResolvedRefs"
	})
	if err := w.api.Delete(t.Context(), w.resource("httproutes", "default"), "app", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.reaches("http://app.test/", 404)
}

// asks answers with what a backend was asked.
func asks(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Kept", "1")
		w.Header().Set("X-Dropped", "1")
		fmt.Fprintf(w, "%s %s %s set=%s add=%s removed=%s", name, r.Host, r.URL.RequestURI(), r.Header.Get("X-Set"), strings.Join(r.Header.Values("X-Add"), "|"), r.Header.Get("X-Remove"))
	})
}

// The filters of HTTPRoutes, and which of several matches counts.
func TestHTTPRoute(t *testing.T) {
	w := newGateways(t)
	for i, name := range []string{"a", "b", "c"} {
		w.pod(fmt.Sprintf("10.0.0.%d:8080", i+1), asks(name))
		w.service(name, fmt.Sprintf("10.0.0.%d", i+1))
	}
	w.apply(plain)
	w.apply(`
kind: HTTPRoute
metadata: {name: matches}
spec:
  parentRefs: [{name: web}]
  hostnames: [m.test]
  rules:
  - backendRefs: [{name: a, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /b}}, {path: {type: Exact, value: /exact}}]
    backendRefs: [{name: b, port: 80}]
  - matches:
    - path: {type: PathPrefix, value: /b}
      headers: [{name: x-version, value: "2"}]
    - path: {type: PathPrefix, value: /}
      queryParams: [{name: q, value: c}]
    - path: {type: RegularExpression, value: "/[0-9]+/c"}
    - path: {type: PathPrefix, value: /method}
      method: PUT
    backendRefs: [{name: c, port: 80}]
---
kind: HTTPRoute
metadata: {name: wild}
spec:
  parentRefs: [{name: web}]
  hostnames: ["*.m.test"]
  rules: [{backendRefs: [{name: b, port: 80}]}]
---
kind: HTTPRoute
metadata: {name: filters}
spec:
  parentRefs: [{name: web}]
  hostnames: [f.test]
  rules:
  - matches: [{path: {value: /redirect}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: x.test, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /to}}}]
  - matches: [{path: {value: /port}}]
    filters: [{type: RequestRedirect, requestRedirect: {port: 8080}}]
  - matches: [{path: {value: /rewrite}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: inner.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: a, port: 80}]
  - matches: [{path: {value: /full}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /whole}}}]
    backendRefs: [{name: a, port: 80}]
  - matches: [{path: {value: /headers}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: s}], add: [{name: X-Add, value: more}], remove: [X-Remove]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-New, value: fresh}], remove: [X-Dropped]}}
    backendRefs: [{name: a, port: 80}]
  - matches: [{path: {value: /weights}}]
    backendRefs: [{name: a, port: 80, weight: 0}, {name: b, port: 80, weight: 1}, {name: c, port: 80, weight: 1}]
  - matches: [{path: {value: /nobody}}]
    backendRefs: [{name: missing, port: 80}]
  - matches: [{path: {value: /nothing}}]
  - matches: [{path: {value: /cors}}]
    filters: [{type: CORS, cors: {allowOrigins: ["https://o.test"], allowMethods: [GET, PUT]}}]
    backendRefs: [{name: a, port: 80}]
  - matches: [{path: {value: /any}}]
    filters: [{type: CORS, cors: {allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"], allowCredentials: true}}]
    backendRefs: [{name: a, port: 80}]
`)
	w.reaches("http://m.test/", 200)
	w.reaches("http://f.test/full", 200)
	w.reaches("http://x.m.test/", 200)
	for _, one := range []struct {
		url     string
		headers []string
		want    string
	}{
		{"http://m.test/", nil, "a"}, {"http://m.test/bx", nil, "a"}, {"http://m.test/b", nil, "b"}, {"http://m.test/b/x", nil, "b"},
		{"http://m.test/exact", nil, "b"}, {"http://m.test/exact/", nil, "a"}, {"http://m.test/b", []string{"X-Version", "2"}, "c"},
		{"http://m.test/b?q=c", nil, "b"}, {"http://m.test/other?q=c", nil, "c"}, {"http://m.test/12/c", nil, "a"}, {"http://m.test/method", nil, "a"},
		{"http://x.m.test/", nil, "b"}, {"http://x.y.m.test/", nil, "b"}, {"http://m.test/./b", nil, "b"},
	} {
		if got := w.get(one.url, one.headers...); got.status != 200 || got.name() != one.want {
			t.Errorf("%s %q: %d %q, want %s", one.url, one.headers, got.status, got.body, one.want)
		}
	}
	for url, want := range map[string]string{"http://f.test/redirect/a?q=1": "301 https://x.test/to/a?q=1", "http://f.test/port": "302 http://f.test:8080/port"} {
		if got := w.get(url); fmt.Sprint(got.status, " ", got.header.Get("Location")) != want {
			t.Errorf("%s: %d %q, want %s", url, got.status, got.header.Get("Location"), want)
		}
	}
	for url, want := range map[string]string{"http://f.test/rewrite/a": "a inner.test /a ", "http://f.test/rewrite": "a inner.test / ", "http://f.test/full/x?q=1": "a f.test /whole?q=1 "} {
		if got := w.get(url); !strings.HasPrefix(got.body, want) {
			t.Errorf("%s: %q, want %q", url, got.body, want)
		}
	}
	got := w.get("http://f.test/headers", "X-Set", "theirs", "X-Add", "one", "X-Remove", "x")
	if !strings.HasSuffix(got.body, "set=s add=one|more removed=") || got.header.Get("X-New") != "fresh" || got.header.Get("X-Dropped") != "" || got.header.Get("X-Kept") != "1" {
		t.Errorf("headers: %q %v", got.body, got.header)
	}
	seen := map[string]bool{}
	until(t, "both backends with a weight are asked", func() bool { seen[w.get("http://f.test/weights").name()] = true; return seen["b"] && seen["c"] })
	if seen["a"] {
		t.Error("a backend without weight is asked")
	}
	for _, path := range []string{"/nobody", "/nothing"} {
		if got := w.get("http://f.test" + path); got.status != 500 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	asked := w.call("OPTIONS", "http://f.test/any", "Origin", "https://o.test", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-a, x-b").header
	if asked.Get("Access-Control-Allow-Origin") != "https://o.test" || asked.Get("Access-Control-Allow-Methods") != "PUT" || asked.Get("Access-Control-Allow-Headers") != "x-a, x-b" {
		t.Errorf("wildcards with credentials: %v", asked)
	}
	if got := w.get("http://f.test/cors", "Origin", "https://o.test"); got.header.Get("Access-Control-Allow-Origin") != "https://o.test" {
		t.Errorf("CORS: %v", got.header)
	}
	until(t, "the route says what it lacks", func() bool {
		var r gatewayv1.HTTPRoute
		w.read("httproutes", "filters", &r)
		return len(r.Status.Parents) == 1 && said(r.Status.Parents[0].Conditions, "Accepted", "ResolvedRefs") == "Accepted=True:Accepted ResolvedRefs=False:BackendNotFound"
	})
}

// Time-outs end requests, and mirrors get their copies.
func TestTimeoutsAndMirrors(t *testing.T) {
	w := newGateways(t)
	mirrored := make(chan string, 10)
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}))
	w.pod("10.0.0.2:8080", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mirrored <- r.Method + " " + r.Host + r.URL.Path + " " + string(body)
	}))
	w.service("app", "10.0.0.1")
	w.service("copy", "10.0.0.2")
	w.apply(plain)
	w.apply(`
kind: HTTPRoute
metadata: {name: app}
spec:
  parentRefs: [{name: web}]
  rules:
  - matches: [{path: {value: /slow}}]
    timeouts: {request: 100ms}
    backendRefs: [{name: app, port: 80}]
  - matches: [{path: {value: /mirror}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}}}]
    backendRefs: [{name: app, port: 80}]
`)
	w.reaches("http://app.test/slow", 504)
	for _, one := range []struct{ method, body string }{{"GET", ""}, {"POST", "hello"}} {
		r, err := http.NewRequestWithContext(t.Context(), one.method, "http://app.test/mirror/x", strings.NewReader(one.body))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.do(r); got.status != 200 {
			t.Fatalf("%s: %d", one.method, got.status)
		}
		if got, want := <-mirrored, one.method+" app.test/mirror/x "+one.body; got != want {
			t.Errorf("mirrored %q, want %q", got, want)
		}
	}
}

// Listeners with TLS, their certificates and who may use them; GRPCRoutes and
// TLSRoutes.
func TestSecureListeners(t *testing.T) {
	w := newGateways(t)
	w.pod("10.0.0.1:8080", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "%d %s", r.ProtoMajor, r.URL.Path)
	}))
	w.service("app", "10.0.0.1")
	create(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other", Labels: map[string]string{"team": "x"}}})
	for _, namespace := range []string{"default", "other"} {
		chain, key := pair(t, namespace)
		create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cert"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": chain, "tls.key": key}})
	}
	w.apply(`
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: kaji
  listeners:
  - {name: mine, port: 443, protocol: HTTPS, hostname: mine.test, tls: {certificateRefs: [{name: cert}]}}
  - {name: theirs, port: 443, protocol: HTTPS, hostname: "*.theirs.test", tls: {certificateRefs: [{name: cert, namespace: other}]}}
  - {name: none, port: 443, protocol: HTTPS, hostname: none.test, tls: {certificateRefs: [{name: nope}]}}
  - {name: pass, port: 443, protocol: TLS, hostname: pass.test, tls: {mode: Passthrough}}
  - {name: udp, port: 53, protocol: UDP}
---
kind: GRPCRoute
metadata: {name: rpc}
spec:
  parentRefs: [{name: web, sectionName: mine}]
  rules: [{matches: [{method: {service: s.S, method: M}}], backendRefs: [{name: app, port: 80}]}]
---
kind: HTTPRoute
metadata: {name: app}
spec:
  parentRefs: [{name: web, sectionName: theirs}, {name: web, sectionName: absent}]
  hostnames: [a.theirs.test]
  rules: [{backendRefs: [{name: app, port: 80}]}]
---
kind: HTTPRoute
metadata: {name: foreign, namespace: other}
spec:
  parentRefs: [{name: web, namespace: default}]
  rules: [{backendRefs: [{name: app, namespace: default, port: 80}]}]
---
kind: TLSRoute
metadata: {name: pass}
spec:
  parentRefs: [{name: web}]
  hostnames: [pass.test]
  rules: [{backendRefs: [{name: tls, port: 80}]}]
`)
	listener := func(name string) string {
		var g gatewayv1.Gateway
		w.read("gateways", "web", &g)
		for _, l := range g.Status.Listeners {
			if string(l.Name) == name {
				return fmt.Sprint(l.AttachedRoutes, " ", said(l.Conditions, "Accepted", "Programmed", "ResolvedRefs"))
			}
		}
		return ""
	}
	for name, want := range map[string]string{
		"mine":   "1 Accepted=True:Accepted Programmed=True:Programmed ResolvedRefs=True:ResolvedRefs",
		"theirs": "1 Accepted=True:Accepted Programmed=False:Invalid ResolvedRefs=False:RefNotPermitted",
		"none":   "0 Accepted=True:Accepted Programmed=False:Invalid ResolvedRefs=False:InvalidCertificateRef",
		"pass":   "1 Accepted=True:Accepted Programmed=True:Programmed ResolvedRefs=True:ResolvedRefs",
		"udp":    "0 Accepted=False:UnsupportedProtocol Programmed=False:Invalid ResolvedRefs=True:ResolvedRefs",
	} {
		got := ""
		until(t, "listener "+name+" says "+want, func() bool { got = listener(name); return got == want })
	}
	if got := w.shown("mine.test"); got != "default" {
		t.Errorf("mine.test is shown %q", got)
	}
	if got := w.reaches("https://mine.test/s.S/M", 200); got.body != "2 /s.S/M" {
		t.Errorf("gRPC reaches the pod as %q", got.body)
	}
	if got := w.get("https://mine.test/s.S/Other"); got.status != 404 {
		t.Errorf("another method: %d", got.status)
	}
	// A connection for one listener carries no requests for another, whether a
	// route is for them or not.
	for host, want := range map[string]int{"mine.test": 404, "other.theirs.test": 404, "pass.test": 421} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://mine.test/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		if got := w.do(r); got.status != want {
			t.Errorf("a request for %s on the connection of mine.test: %d, want %d", host, got.status, want)
		}
	}
	w.apply(`
kind: ReferenceGrant
metadata: {name: certs, namespace: other}
spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}], to: [{group: "", kind: Secret}]}
`)
	until(t, "the granted certificate", func() bool { return w.shown("a.theirs.test") == "other" })
	w.reaches("https://a.theirs.test/", 200)
	until(t, "the route names the parents it has and has not", func() bool {
		var r gatewayv1.HTTPRoute
		w.read("httproutes", "app", &r)
		return len(r.Status.Parents) == 2 && said(r.Status.Parents[0].Conditions, "Accepted") == "Accepted=True:Accepted" &&
			said(r.Status.Parents[1].Conditions, "Accepted") == "Accepted=False:NoMatchingParent"
	})
	until(t, "a route of another namespace is told so", func() bool {
		got, err := w.api.Get(t.Context(), w.resource("httproutes", "other"), "foreign", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(got)
		return err == nil && strings.Contains(string(text), `"NotAllowedByListeners"`) && strings.Contains(string(text), `"RefNotPermitted"`)
	})
	w.backend(t, "tls", "10.0.0.7", "pod")
	until(t, "the pod's own certificate", func() bool { return w.shown("pass.test") == "pod" })
}
