// SPDX-License-Identifier: Apache-2.0

package route_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/ingress/route"
)

// ingress makes one of lines "host path type service"; "-" is no host or type.
func ingress(name string, age int, annotations map[string]string, lines ...string) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: annotations,
		CreationTimestamp: metav1.NewTime(time.Unix(int64(1_000_000-age), 0))}}
	backend := func(service string) networkingv1.IngressBackend {
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}}}
	}
	for _, line := range lines {
		f := strings.Fields(strings.ReplaceAll(line, " - ", " \x00 "))
		if f[0] == "default" {
			b := backend(f[1])
			ing.Spec.DefaultBackend = &b
			continue
		}
		kind := networkingv1.PathType(f[2])
		host := strings.Trim(f[0], "-")
		ing.Spec.Rules = append(ing.Spec.Rules, networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: f[1], PathType: &kind, Backend: backend(f[3])}}}}})
	}
	return ing
}

func table(all ...*networkingv1.Ingress) *route.Table {
	var sources []*route.Source
	for _, ing := range all {
		sources = append(sources, route.Compile(ing))
	}
	return route.Merge(sources)
}

// ask returns "service path" for an address, "-" for none.
func ask(t *route.Table, address string) string {
	host, path, _ := strings.Cut(address, "/")
	path = route.Clean("/" + path)
	r := t.Match(route.Host(host), path)
	if r == nil {
		return "-"
	}
	if to := r.Rewrite(path); to != path {
		return fmt.Sprintf("%s %s", r.Backend.Service, to)
	}
	return r.Backend.Service
}

func check(t *testing.T, tab *route.Table, want map[string]string) {
	t.Helper()
	for address, service := range want {
		if got := ask(tab, address); got != service {
			t.Errorf("%s leads to %q, want %q", address, got, service)
		}
	}
}

// The examples of the Ingress documentation.
func TestPaths(t *testing.T) {
	for _, one := range []struct {
		kind, path string
		yes, no    []string
	}{
		{"Prefix", "/", []string{"/", "/a", "/a/b"}, nil},
		{"Exact", "/foo", []string{"/foo"}, []string{"/bar", "/foo/", "/Foo", "/foo/x"}},
		{"Exact", "/foo/", []string{"/foo/"}, []string{"/foo"}},
		{"Prefix", "/foo", []string{"/foo", "/foo/", "/foo/bar"}, []string{"/foobar", "/FOO", "/"}},
		{"Prefix", "/foo/", []string{"/foo", "/foo/"}, []string{"/foobar"}},
		{"Prefix", "/aaa/bb", []string{"/aaa/bb"}, []string{"/aaa/bbb"}},
		{"Prefix", "/aaa/bbb/", []string{"/aaa/bbb", "/aaa/bbb/ccc"}, []string{"/aaa/bbbxyz"}},
		{"ImplementationSpecific", "/foo", []string{"/foo", "/foo/bar"}, []string{"/foobar"}},
		{"Prefix", "/admin", []string{"/x/../admin", "//admin", "/./admin/"}, []string{"/admin/../x"}},
	} {
		tab := table(ingress("a", 0, nil, "h.test "+one.path+" "+one.kind+" svc"))
		for _, path := range one.yes {
			check(t, tab, map[string]string{"h.test" + path: "svc"})
		}
		for _, path := range one.no {
			check(t, tab, map[string]string{"h.test" + path: "-"})
		}
	}
}

func TestPrecedence(t *testing.T) {
	check(t, table(ingress("a", 0, nil, "h.test / Prefix root", "h.test /aaa Prefix three", "h.test /aaa/bbb Prefix six", "h.test /aaa/bbb Exact exact",
		"h.test /aaa/b ImplementationSpecific own")), map[string]string{
		"h.test/": "root", "h.test/x": "root", "h.test/aaa": "three", "h.test/aaa/ccc": "three", "h.test/aaa/bbb": "exact", "h.test/aaa/bbb/": "six", "h.test/aaa/b/c": "own"})
}

func TestHosts(t *testing.T) {
	tab := table(
		ingress("hosts", 0, nil, "*.foo.com / Prefix wild", "bar.foo.com /only Prefix exact", "- /all Prefix all"),
		ingress("fallback", 0, nil, "default last"))
	check(t, tab, map[string]string{
		"a.foo.com/":         "wild",
		"A.FOO.com:8080/":    "wild",
		"a.foo.com./x":       "wild",
		"a.b.foo.com/":       "last",
		"a.b.foo.com/all":    "all",
		"foo.com/":           "last",
		"bar.foo.com/only/x": "exact",
		// The exact host is not given the wildcard's paths.
		"bar.foo.com/else":     "last",
		"other.test/all":       "all",
		"other.test/no":        "last",
		"[2001:db8::1]:80/all": "all",
	})
}

func TestDefaultBackendStandsInForItsOwnHosts(t *testing.T) {
	check(t, table(ingress("a", 0, nil, "default mine", "h.test /x Prefix x"), ingress("b", 5, nil, "default all")),
		map[string]string{"h.test/x": "x", "h.test/y": "mine", "else.test/": "all"})
}

func TestTheOldestWins(t *testing.T) {
	old, young := ingress("z-old", 10, nil, "h.test /a Prefix old", "default old"), ingress("a-young", 1, nil, "h.test /a Prefix young", "h.test /b Prefix young")
	for _, tab := range []*route.Table{table(old, young), table(young, old)} {
		check(t, tab, map[string]string{"h.test/a": "old", "h.test/b": "young"})
	}
	same := []*networkingv1.Ingress{ingress("b", 1, nil, "h.test /a Exact b"), ingress("a", 1, nil, "h.test /a Exact a")}
	check(t, table(same...), map[string]string{"h.test/a": "a"})
}

func TestRewrite(t *testing.T) {
	target := func(to string) map[string]string {
		return map[string]string{"nginx.ingress.kubernetes.io/rewrite-target": to}
	}
	check(t, table(ingress("groups", 0, target("/$2"), "h.test /something(/|$)(.*) ImplementationSpecific svc")), map[string]string{
		"h.test/something": "svc /", "h.test/something/": "svc /", "h.test/Something/new/x": "svc /new/x", "h.test/somethingelse": "-"})
	check(t, table(ingress("plain", 0, target("/to"), "h.test /from Prefix svc")), map[string]string{"h.test/from/x": "svc /to", "h.test/to": "-"})
	check(t, table(ingress("dollar", 0, target("/$1x$"), "h.test /(a+) ImplementationSpecific svc")), map[string]string{"h.test/aa": "svc /aax$"})
	// What is longer is asked first, pattern or not.
	check(t, table(ingress("regex", 0, map[string]string{"kaji.dev/use-regex": "true"}, "h.test /v[0-9]+/api ImplementationSpecific v"),
		ingress("rest", 9, nil, "h.test / Prefix root")), map[string]string{"h.test/v12/api/x": "v", "h.test/vx/api": "root"})
}

func TestWhatIsWrongIsLeftOut(t *testing.T) {
	ing := ingress("bad", 0, map[string]string{"kaji.dev/use-regex": "true"}, "h.test /( ImplementationSpecific bad", "h.test /ok ImplementationSpecific ok")
	source := route.Compile(ing)
	if len(source.Problems) != 1 || !strings.Contains(source.Problems[0], "regular expression") {
		t.Errorf("problems are %q", source.Problems)
	}
	check(t, route.Merge([]*route.Source{source}), map[string]string{"h.test/ok": "ok", "h.test/(": "-"})
}

func TestCertificates(t *testing.T) {
	secure := func(name string, age int, secret string, hosts ...string) *networkingv1.Ingress {
		ing := ingress(name, age, nil, "rule.test / Prefix svc")
		ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: hosts, SecretName: secret}}
		return ing
	}
	tab := table(secure("a", 5, "one", "one.test", "*.wild.test"), secure("b", 1, "two", "one.test", "x.wild.test"), secure("c", 1, "rules"), secure("d", 9, "", "none.test"))
	for host, want := range map[string]string{"one.test": "one", "a.wild.test": "one", "x.wild.test": "two", "rule.test": "rules", "none.test": ""} {
		if got, ok := tab.Secret(host); !ok || got.Name != want {
			t.Errorf("%s has the certificate %q %v, want %q", host, got.Name, ok, want)
		}
	}
	if _, ok := tab.Secret("other.test"); ok {
		t.Error("a host nobody named has TLS")
	}
}
