// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// world reads Gateways and HTTPRoutes; every Service "web" has port 80.
func world(t *testing.T, text string) *World {
	t.Helper()
	w := &World{Controller: "test", Addresses: []string{"192.0.2.1"}, Problem: func(uint16) error { return nil },
		Secret: func(n types.NamespacedName) error {
			if n.Name != "cert" {
				return errors.New("it does not exist")
			}
			return nil
		},
		Labels: func(n string) map[string]string { return map[string]string{"name": n} },
		Service: func(namespace, name string) *corev1.Service {
			if name != "web" {
				return nil
			}
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		}}
	for i, one := range strings.Split(text, "\n---\n") {
		var err error
		created := metav1.NewTime(time.Unix(int64(1000+i), 0))
		if strings.Contains(one, "listeners:") {
			g := &gatewayv1.Gateway{}
			err = yaml.UnmarshalStrict([]byte(one), g)
			g.CreationTimestamp = created
			w.Gateways = append(w.Gateways, g)
		} else {
			r := &gatewayv1.HTTPRoute{}
			err = yaml.UnmarshalStrict([]byte(one), r)
			r.CreationTimestamp = created
			w.HTTP = append(w.HTTP, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// status writes a condition of each listener as "name=reason".
func status(p *Plan, gateway, condition string) string {
	var out []string
	for _, l := range p.Gateways[types.NamespacedName{Namespace: "ns", Name: gateway}].Listeners {
		for _, c := range l.Conditions {
			if c.Type == condition {
				out = append(out, fmt.Sprintf("%s=%s", l.Name, c.Reason))
			}
		}
	}
	return strings.Join(out, " ")
}

func TestListenersInConflict(t *testing.T) {
	w := world(t, `
metadata: {namespace: ns, name: one}
spec:
  listeners:
  - {name: a, port: 80, protocol: HTTP}
  - {name: b, port: 80, protocol: HTTP, hostname: b.test}
  - {name: c, port: 81, protocol: HTTP}
  - {name: d, port: 81, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
  - {name: e, port: 443, protocol: HTTP}
---
metadata: {namespace: ns, name: two}
spec:
  listeners:
  - {name: a, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
  - {name: b, port: 9000, protocol: HTTP}`)
	w.Taken = map[uint16]bool{443: true}
	w.Problem = func(port uint16) error {
		if port == 9000 {
			return errors.New("port 9000 is in use by another program")
		}
		return nil
	}
	p := Make(w)
	if got, want := status(p, "one", "Accepted"), "a=Accepted b=Accepted c=ProtocolConflict d=ProtocolConflict e=PortUnavailable"; got != want {
		t.Errorf("the first Gateway's listeners are %s, want %s", got, want)
	}
	if got, want := status(p, "two", "Accepted"), "a=PortUnavailable b=PortUnavailable"; got != want {
		t.Errorf("the second's are %s, want %s", got, want)
	}
	// A port that is in use is still wanted: it may become free.
	if p.Ports[80] == nil || p.Ports[81] != nil || p.Ports[443] != nil || p.Ports[9000] == nil {
		t.Errorf("ports are %v", p.Ports)
	}
}

func TestParents(t *testing.T) {
	const gateway = `
metadata: {namespace: ns, name: gw}
spec:
  listeners:
  - {name: same, port: 80, protocol: HTTP, hostname: "*.a.test"}
  - {name: some, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {name: friend}}}}}
  - {name: grpc, port: 82, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}}
---
`
	for _, one := range []struct{ route, accepted, resolved string }{
		{`metadata: {namespace: ns, name: r}
spec: {parentRefs: [{name: gw, sectionName: same}], hostnames: [x.a.test], rules: [{backendRefs: [{name: web, port: 80}]}]}`, "Accepted", "ResolvedRefs"},
		{`metadata: {namespace: ns, name: r}
spec: {parentRefs: [{name: gw, sectionName: same}], hostnames: [a.test], rules: [{backendRefs: [{name: web, port: 80}]}]}`, "NoMatchingListenerHostname", "ResolvedRefs"},
		{`metadata: {namespace: friend, name: r}
spec: {parentRefs: [{name: gw, namespace: ns, port: 81}], rules: [{backendRefs: [{name: web, port: 81}]}]}`, "Accepted", "BackendNotFound"},
		{`metadata: {namespace: enemy, name: r}
spec: {parentRefs: [{name: gw, namespace: ns, port: 81}], rules: [{backendRefs: [{name: web, port: 80, namespace: ns}]}]}`, "NotAllowedByListeners", "RefNotPermitted"},
		{`metadata: {namespace: ns, name: r}
spec: {parentRefs: [{name: gw, sectionName: grpc}], rules: [{backendRefs: [{name: web, port: 80, kind: Bucket}]}]}`, "NotAllowedByListeners", "InvalidKind"},
		{`metadata: {namespace: ns, name: r}
spec: {parentRefs: [{name: gw, port: 99}], rules: [{backendRefs: [{name: web, port: 80}]}]}`, "NoMatchingParent", "ResolvedRefs"},
		{`metadata: {namespace: ns, name: r}
spec: {parentRefs: [{name: gw}], rules: [{matches: [{path: {type: RegularExpression, value: "("}}]}]}`, "UnsupportedValue", "ResolvedRefs"},
		{`metadata: {namespace: ns, name: r}
spec: {parentRefs: [{name: gw}], rules: [{filters: [{type: ExtensionRef, extensionRef: {group: x, kind: Y, name: z}}]}]}`, "UnsupportedValue", "ResolvedRefs"},
	} {
		w := world(t, gateway+one.route)
		p := Make(w)
		parents := p.Parents[RouteName{HTTPRoute, nameOf(w.HTTP[0])}]
		if len(parents) != 1 {
			t.Errorf("%s\nhas %d parents", one.route, len(parents))
			continue
		}
		if c := parents[0].Conditions; c[0].Reason != one.accepted || c[1].Reason != one.resolved {
			t.Errorf("%s\nis %s and %s, want %s and %s", one.route, c[0].Reason, c[1].Reason, one.accepted, one.resolved)
		}
	}
}

func TestPatterns(t *testing.T) {
	for host, want := range map[string]string{"a.b.test": "a.b.test *.b.test *.test ", "test": "test ", "": "", "1.2.3.4": "1.2.3.4 *.2.3.4 *.3.4 *.4 "} {
		if got := strings.Join(slices.Collect(patterns(host)), " "); got != want {
			t.Errorf("%q is covered by %q, want %q", host, got, want)
		}
	}
	for _, one := range [][3]string{{"", "", ""}, {"", "a.test", "a.test"}, {"a.test", "", "a.test"}, {"*.test", "a.b.test", "a.b.test"}, {"*.b.test", "*.test", "*.b.test"},
		{"*.test", "test", "-"}, {"a.test", "b.test", "-"}} {
		got, ok := intersect(one[0], one[1])
		if !ok {
			got = "-"
		}
		if got != one[2] {
			t.Errorf("%q and %q have %q in common, want %q", one[0], one[1], got, one[2])
		}
	}
}

func TestReplacePrefix(t *testing.T) {
	for _, one := range [][4]string{{"/foo", "/xyz", "/foo/bar", "/xyz/bar"}, {"/foo", "/xyz/", "/foo/bar", "/xyz/bar"}, {"/foo/", "/xyz", "/foo/bar", "/xyz/bar"},
		{"/foo", "/xyz", "/foo", "/xyz"}, {"/foo", "/", "/foo/bar", "/bar"}, {"/foo", "/", "/foo", "/"}, {"/foo", "", "/foo/bar", "/bar"}, {"/", "/x", "/a", "/x/a"}} {
		r := &Rule{kind: prefixPath, path: one[0]}
		if got := r.Replace(&gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: &one[1]}, one[2]); got != one[3] {
			t.Errorf("%s to %s makes %s of %s, want %s", one[0], one[1], got, one[2], one[3])
		}
	}
}
