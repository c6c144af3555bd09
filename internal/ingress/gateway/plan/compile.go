// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"net/http"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/backend"
)

// compiler makes the rules of one route.
type compiler struct {
	*maker
	route              *route
	accepted, resolved finding
	rules              []*Rule
	stream             *Stream
}

func httpRoute(r *gatewayv1.HTTPRoute) *route {
	out := newRoute(HTTPRoute, r, r.Spec.CommonRouteSpec, r.Spec.Hostnames)
	out.compile = func(c *compiler) {
		for i := range r.Spec.Rules {
			c.httpRule(&r.Spec.Rules[i])
		}
	}
	return out
}

func (c *compiler) httpRule(rule *gatewayv1.HTTPRouteRule) {
	a := &Action{}
	c.filters(rule.Filters, a)
	for _, b := range rule.BackendRefs {
		inner := &Action{}
		c.filters(b.Filters, inner)
		one := c.backend(b.BackendRef)
		one.Request, one.Response, one.Rewrite = inner.Request, inner.Response, inner.Rewrite
		a.Backends = append(a.Backends, one)
	}
	if t := rule.Timeouts; t != nil {
		a.Timeout, a.BackendTimeout = c.duration(t.Request), c.duration(t.BackendRequest)
	}
	matches := rule.Matches
	if len(matches) == 0 {
		matches = []gatewayv1.HTTPRouteMatch{{}}
	}
	for _, m := range matches {
		c.httpMatch(m, a)
	}
}

func (c *compiler) httpMatch(m gatewayv1.HTTPRouteMatch, a *Action) {
	r := &Rule{Route: c.route.name, Action: a, created: c.route.created, index: len(c.rules), kind: prefixPath, path: "/"}
	if p := m.Path; p != nil {
		if p.Value != nil {
			r.path = *p.Value
		}
		switch kind := value(p.Type, gatewayv1.PathMatchPathPrefix); kind {
		case gatewayv1.PathMatchExact:
			r.kind = exactPath
		case gatewayv1.PathMatchPathPrefix:
		case gatewayv1.PathMatchRegularExpression:
			r.kind, r.pattern = patternPath, c.pattern(r.path)
		default:
			c.accepted.set(string(gatewayv1.RouteReasonUnsupportedValue), "paths of type %q are not supported", kind)
		}
	}
	if m.Method != nil {
		r.method = string(*m.Method)
	}
	for _, h := range m.Headers {
		r.headers = append(r.headers, c.value(http.CanonicalHeaderKey(string(h.Name)), h.Value, value(h.Type, gatewayv1.HeaderMatchExact) == gatewayv1.HeaderMatchRegularExpression))
	}
	for _, q := range m.QueryParams {
		r.queries = append(r.queries, c.value(string(q.Name), q.Value, value(q.Type, gatewayv1.QueryParamMatchExact) == gatewayv1.QueryParamMatchRegularExpression))
	}
	c.rules = append(c.rules, r)
}

func grpcRoute(r *gatewayv1.GRPCRoute) *route {
	out := newRoute(GRPCRoute, r, r.Spec.CommonRouteSpec, r.Spec.Hostnames)
	out.compile = func(c *compiler) {
		for i := range r.Spec.Rules {
			c.grpcRule(&r.Spec.Rules[i])
		}
	}
	return out
}

func (c *compiler) grpcRule(rule *gatewayv1.GRPCRouteRule) {
	a := &Action{GRPC: true}
	c.filters(asHTTP(rule.Filters), a)
	for _, b := range rule.BackendRefs {
		inner := &Action{}
		c.filters(asHTTP(b.Filters), inner)
		one := c.backend(b.BackendRef)
		one.Request, one.Response = inner.Request, inner.Response
		a.Backends = append(a.Backends, one)
	}
	matches := rule.Matches
	if len(matches) == 0 {
		matches = []gatewayv1.GRPCRouteMatch{{}}
	}
	for _, m := range matches {
		r := &Rule{Route: c.route.name, Action: a, created: c.route.created, index: len(c.rules), kind: prefixPath, path: "/"}
		if m.Method != nil {
			c.grpcMethod(m.Method, r)
		}
		for _, h := range m.Headers {
			r.headers = append(r.headers, c.value(http.CanonicalHeaderKey(string(h.Name)), h.Value, value(h.Type, gatewayv1.GRPCHeaderMatchExact) == gatewayv1.GRPCHeaderMatchRegularExpression))
		}
		c.rules = append(c.rules, r)
	}
}

// grpcMethod makes a path of a service and a method: "/service/method".
func (c *compiler) grpcMethod(m *gatewayv1.GRPCMethodMatch, r *Rule) {
	service, method := value(m.Service, ""), value(m.Method, "")
	if value(m.Type, gatewayv1.GRPCMethodMatchExact) == gatewayv1.GRPCMethodMatchRegularExpression {
		r.kind, r.path = patternPath, "/"+cmp.Or(service, "[^/]+")+"/"+cmp.Or(method, "[^/]+")
		r.pattern = c.pattern(r.path)
		return
	}
	switch {
	case service != "" && method != "":
		r.kind, r.path = exactPath, "/"+service+"/"+method
	case service != "":
		r.path = "/" + service
	case method != "":
		r.kind, r.path = patternPath, "/[^/]+/"+regexp.QuoteMeta(method)
		r.pattern = c.pattern(r.path)
	}
}

func asHTTP(filters []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	var out []gatewayv1.HTTPRouteFilter
	for _, f := range filters {
		out = append(out, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef})
	}
	return out
}

func tlsRoute(r *gatewayv1.TLSRoute) *route {
	out := newRoute(TLSRoute, r, r.Spec.CommonRouteSpec, r.Spec.Hostnames)
	out.compile = func(c *compiler) {
		c.stream = &Stream{}
		for _, rule := range r.Spec.Rules {
			for _, b := range rule.BackendRefs {
				c.stream.Backends = append(c.stream.Backends, c.backend(b))
			}
		}
	}
	return out
}

// filters reads what is done with requests and answers.
func (c *compiler) filters(filters []gatewayv1.HTTPRouteFilter, a *Action) {
	for _, f := range filters {
		switch {
		case f.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
			a.Request = headersOf(f.RequestHeaderModifier)
		case f.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
			a.Response = headersOf(f.ResponseHeaderModifier)
		case f.Type == gatewayv1.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
			a.Redirect = f.RequestRedirect
		case f.Type == gatewayv1.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
			a.Rewrite = f.URLRewrite
		case f.Type == gatewayv1.HTTPRouteFilterRequestMirror && f.RequestMirror != nil:
			c.mirror(f.RequestMirror, a)
		case f.Type == gatewayv1.HTTPRouteFilterCORS && f.CORS != nil:
			a.CORS = corsOf(f.CORS)
		default:
			// A filter must not be skipped: it may protect something.
			c.accepted.set(string(gatewayv1.RouteReasonUnsupportedValue), "filters of type %s are not supported", f.Type)
		}
	}
	if a.Redirect != nil && a.Rewrite != nil {
		c.accepted.set(string(gatewayv1.RouteReasonIncompatibleFilters), "a rule cannot both redirect and rewrite")
	}
}

func headersOf(f *gatewayv1.HTTPHeaderFilter) Headers {
	return Headers{Set: f.Set, Add: f.Add, Remove: f.Remove}
}

func corsOf(f *gatewayv1.HTTPCORSFilter) *annotation.CORS {
	out := &annotation.CORS{Credentials: f.AllowCredentials != nil && *f.AllowCredentials, MaxAge: int(f.MaxAge)}
	out.Named = out.Credentials
	for _, o := range f.AllowOrigins {
		out.Origins = append(out.Origins, string(o))
	}
	out.Methods, out.Headers, out.Expose = list(f.AllowMethods), list(f.AllowHeaders), list(f.ExposeHeaders)
	return out
}

func list[T ~string](all []T) string {
	out := ""
	for i, one := range all {
		if i > 0 {
			out += ", "
		}
		out += string(one)
	}
	return out
}

func (c *compiler) mirror(f *gatewayv1.HTTPRequestMirrorFilter, a *Action) {
	b := c.backend(gatewayv1.BackendRef{BackendObjectReference: f.BackendRef})
	if b.Ref == nil {
		return
	}
	m := Mirror{Ref: *b.Ref, Numerator: 1, Denominator: 1}
	switch {
	case f.Percent != nil:
		m.Numerator, m.Denominator = int(*f.Percent), 100
	case f.Fraction != nil:
		m.Numerator, m.Denominator = int(f.Fraction.Numerator), max(1, int(value(f.Fraction.Denominator, 100)))
	}
	a.Mirrors = append(a.Mirrors, m)
}

// backend resolves a reference to a Service.
func (c *compiler) backend(ref gatewayv1.BackendRef) Backend {
	out := Backend{Weight: int(value(ref.Weight, 1))}
	if value(ref.Group, "") != "" || value(ref.Kind, "Service") != "Service" {
		c.resolved.set(string(gatewayv1.RouteReasonInvalidKind), "backend %s is not a Service", ref.Name)
		return out
	}
	name := types.NamespacedName{Namespace: c.route.name.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		name.Namespace = string(*ref.Namespace)
	}
	if !c.granted(c.route.name.Kind, c.route.name.Namespace, "", "Service", name) {
		c.resolved.set(string(gatewayv1.RouteReasonRefNotPermitted), "no ReferenceGrant lets a %s in namespace %s use Service %s", c.route.name.Kind, c.route.name.Namespace, name)
		return out
	}
	service := c.Service(name.Namespace, name.Name)
	if service == nil {
		c.resolved.set(string(gatewayv1.RouteReasonBackendNotFound), "Service %s does not exist", name)
		return out
	}
	if ref.Port == nil {
		c.resolved.set(string(gatewayv1.RouteReasonUnsupportedValue), "backend %s names no port", name)
		return out
	}
	to := backend.Ref{Namespace: name.Namespace, Service: name.Name, Port: networkingv1.ServiceBackendPort{Number: int32(*ref.Port)}}
	if !backend.HasPort(service, to) && service.Spec.Type != corev1.ServiceTypeExternalName {
		c.resolved.set(string(gatewayv1.RouteReasonBackendNotFound), "Service %s has no port %d", name, *ref.Port)
		return out
	}
	c.out.Backends[to] = true
	out.Ref = &to
	return out
}

func (c *compiler) duration(d *gatewayv1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	out, err := time.ParseDuration(string(*d))
	if err != nil {
		c.accepted.set(string(gatewayv1.RouteReasonUnsupportedValue), "%q is no duration", *d)
	}
	return out
}

func (c *compiler) pattern(text string) *regexp.Regexp {
	p, err := regexp.Compile("^(?:" + text + ")$")
	if err != nil {
		c.accepted.set(string(gatewayv1.RouteReasonUnsupportedValue), "%q is no regular expression", text)
	}
	return p
}

func (c *compiler) value(name, text string, pattern bool) valueMatch {
	m := valueMatch{name: name, value: text}
	if pattern {
		m.pattern = c.pattern(text)
	}
	return m
}

// value is what a pointer leads to, or the default.
func value[T any](p *T, standard T) T {
	if p == nil {
		return standard
	}
	return *p
}
