// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/backend"
)

// Rule is one match of a route, with what is done then.
type Rule struct {
	Route  RouteName
	Action *Action

	created time.Time
	index   int
	kind    pathKind
	path    string
	pattern *regexp.Regexp
	method  string
	headers []valueMatch
	queries []valueMatch
}

// pathKind orders rules: exact paths come before prefixes, those before patterns.
type pathKind int

const (
	exactPath pathKind = iota
	prefixPath
	patternPath
)

// valueMatch compares a header or a parameter.
type valueMatch struct {
	name    string
	value   string
	pattern *regexp.Regexp
}

func (v *valueMatch) is(got string) bool {
	if v.pattern != nil {
		return v.pattern.MatchString(got)
	}
	return got == v.value
}

// Action is what becomes of a request.
type Action struct {
	// GRPC says that backends are spoken to by HTTP/2.
	GRPC     bool
	Request  Headers
	Response Headers
	Redirect *gatewayv1.HTTPRequestRedirectFilter
	Rewrite  *gatewayv1.HTTPURLRewriteFilter
	Mirrors  []Mirror
	CORS     *annotation.CORS
	Backends []Backend
	// Timeout bounds the whole request, BackendTimeout the backend's part; zero
	// is no bound.
	Timeout, BackendTimeout time.Duration
}

// Headers change headers.
type Headers struct {
	Set, Add []gatewayv1.HTTPHeader
	Remove   []string
}

// Apply changes the headers.
func (h *Headers) Apply(to http.Header) {
	for _, one := range h.Set {
		to.Set(string(one.Name), one.Value)
	}
	for _, one := range h.Add {
		to.Add(string(one.Name), one.Value)
	}
	for _, name := range h.Remove {
		to.Del(name)
	}
}

// Empty says that nothing is changed.
func (h *Headers) Empty() bool { return len(h.Set)+len(h.Add)+len(h.Remove) == 0 }

// Mirror gets copies of Numerator requests of Denominator.
type Mirror struct {
	Ref                    backend.Ref
	Numerator, Denominator int
}

// Backend gets its share of the requests.
type Backend struct {
	// Ref is nil where the reference is not valid: such requests fail.
	Ref      *backend.Ref
	Weight   int
	Request  Headers
	Response Headers
	Rewrite  *gatewayv1.HTTPURLRewriteFilter
}

// compareRules puts the rule that is to be asked first first.
func compareRules(a, b *Rule) int {
	has := func(method string) int {
		if method == "" {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(len(b.path), len(a.path)), cmp.Compare(has(a.method), has(b.method)),
		cmp.Compare(len(b.headers), len(a.headers)), cmp.Compare(len(b.queries), len(a.queries)), a.created.Compare(b.created),
		cmp.Compare(a.Route.Namespace, b.Route.Namespace), cmp.Compare(a.Route.Name, b.Route.Name), cmp.Compare(a.index, b.index))
}

// Match returns the rule for a request, or nil. The path must have been cleaned.
func (l *Listener) Match(host, path string, r *http.Request) *Rule {
	var query url.Values
	for pattern := range patterns(host) {
		for _, rule := range l.rules[pattern] {
			if len(rule.queries) > 0 && query == nil {
				query = r.URL.Query()
			}
			if rule.matches(path, r, query) {
				return rule
			}
		}
	}
	return nil
}

func (r *Rule) matches(path string, in *http.Request, query url.Values) bool {
	switch r.kind {
	case exactPath:
		if path != r.path {
			return false
		}
	case prefixPath:
		if _, ok := cutPrefix(path, r.path); !ok {
			return false
		}
	case patternPath:
		if !r.pattern.MatchString(path) {
			return false
		}
	}
	if r.method != "" && r.method != in.Method {
		return false
	}
	for i := range r.headers {
		values, ok := in.Header[r.headers[i].name]
		if !ok || !r.headers[i].is(strings.Join(values, ",")) {
			return false
		}
	}
	for i := range r.queries {
		values := query[r.queries[i].name]
		if len(values) == 0 || !r.queries[i].is(values[0]) {
			return false
		}
	}
	return true
}

// cutPrefix takes a prefix of whole elements away; a slash at its end does not
// count.
func cutPrefix(path, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, strings.TrimSuffix(prefix, "/"))
	return rest, ok && (rest == "" || rest[0] == '/')
}

// Replace applies a path modifier.
func (r *Rule) Replace(m *gatewayv1.HTTPPathModifier, path string) string {
	switch {
	case m == nil:
		return path
	case m.Type == gatewayv1.FullPathHTTPPathModifier && m.ReplaceFullPath != nil:
		return *m.ReplaceFullPath
	case m.Type == gatewayv1.PrefixMatchHTTPPathModifier && m.ReplacePrefixMatch != nil && r.kind == prefixPath:
		rest, _ := cutPrefix(path, r.path)
		out := strings.TrimSuffix(*m.ReplacePrefixMatch, "/") + rest
		if !strings.HasPrefix(out, "/") {
			out = "/" + out
		}
		return out
	}
	return path
}
