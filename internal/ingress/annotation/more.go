// SPDX-License-Identifier: Apache-2.0

package annotation

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// external reads who is asked about each request.
func (p *parser) external(s *Settings) {
	for _, name := range []string{"auth-method", "auth-signin", "auth-signin-redirect-param", "auth-response-headers"} {
		p.asked[name] = true
	}
	to := p.text("auth-url", "")
	if to == "" {
		return
	}
	e := &External{URL: to, Method: strings.ToUpper(p.text("auth-method", http.MethodGet)), Signin: p.text("auth-signin", ""), Parameter: p.text("auth-signin-redirect-param", "rd")}
	example := Variables{Scheme: "http", Host: "h", URI: "/", Method: "GET"}
	for _, one := range []string{e.URL, e.Signin} {
		full := example.Expand(one)
		u, err := url.Parse(full)
		if one == "" || err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && !strings.Contains(full, "$") {
			continue
		}
		p.refuse("annotations auth-url and auth-signin: %q is not an address that can be asked", one)
		return
	}
	for name := range strings.SplitSeq(p.text("auth-response-headers", ""), ",") {
		if name = strings.TrimSpace(name); name != "" {
			e.Headers = append(e.Headers, http.CanonicalHeaderKey(name))
		}
	}
	s.External = e
}

// Variables are what nginx's variables stand for in addresses.
type Variables struct{ Scheme, Host, URI, Method string }

// Expand replaces the variables in an address.
func (v Variables) Expand(address string) string {
	return strings.NewReplacer("$scheme", v.Scheme, "$best_http_host", v.Host, "$http_host", v.Host, "$host", v.Host, "$escaped_request_uri", url.QueryEscape(v.URI),
		"$request_uri", v.URI, "$request_method", v.Method).Replace(address)
}

// canary reads which requests of another Ingress this one takes.
func (p *parser) canary(s *Settings) {
	c := &Canary{Header: http.CanonicalHeaderKey(p.text("canary-by-header", "")), Value: p.text("canary-by-header-value", ""), Cookie: p.text("canary-by-cookie", ""),
		Total: p.number("canary-weight-total", 100, 1_000_000)}
	c.Total = max(c.Total, 1)
	c.Weight = p.number("canary-weight", 0, c.Total)
	if pattern := p.text("canary-by-header-pattern", ""); pattern != "" {
		var err error
		if c.Pattern, err = regexp.Compile("^(?:" + pattern + ")$"); err != nil {
			p.problem("annotation canary-by-header-pattern: %v", err)
		}
	}
	if p.bool("canary", false) {
		s.Canary = c
	}
}

// unknown names, in one sentence, what has no meaning here.
func (p *parser) unknown() {
	var names []string
	for key, value := range p.all {
		name, ok := strings.CutPrefix(key, Nginx)
		if !ok {
			name, ok = strings.CutPrefix(key, Own)
		}
		if ok && !p.asked[name] && !slices.Contains(idle, name) && value != "" && value != "false" {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		p.problem("these annotations are not supported and have no effect: %s", strings.Join(names, ", "))
	}
}
