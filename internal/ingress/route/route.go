// SPDX-License-Identifier: Apache-2.0

// Package route decides which backend a request is for: a pure table, made from
// the Ingresses' specs and replaced as a whole. Package ingress compiles each
// Ingress once per revision, merges them and asks at every request.
package route

import (
	"path"
	"regexp"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/ingress/annotation"
	"kaji/internal/ingress/backend"
)

// Rule leads to one backend.
type Rule struct {
	// Ingress is whose rule it is, UID the object's.
	Ingress types.NamespacedName
	UID     types.UID
	// Host is in lower case, "*.…" for a wildcard, empty for all.
	Host string
	// Path is as the Ingress says it; of a default backend it is empty.
	Path string
	// Backend is nil where the Ingress names a resource instead of a Service.
	Backend  *backend.Ref
	Settings *annotation.Settings

	kind    networkingv1.PathType
	pattern *regexp.Regexp
}

// Rewrite returns the path the backend is asked for.
func (r *Rule) Rewrite(requested string) string {
	if r.Settings.RewriteTarget == "" {
		return requested
	}
	if r.pattern == nil {
		return r.Settings.RewriteTarget
	}
	found := r.pattern.FindStringSubmatchIndex(requested)
	if found == nil {
		return requested
	}
	return string(r.pattern.ExpandString(nil, template(r.Settings.RewriteTarget), requested, found))
}

var reference = regexp.MustCompile(`\$(\d)`)

// template writes nginx's $1 so that what follows it is not part of the name.
func template(target string) string {
	var out strings.Builder
	rest := target
	for {
		at := reference.FindStringIndex(rest)
		if at == nil {
			out.WriteString(strings.ReplaceAll(rest, "$", "$$"))
			return out.String()
		}
		out.WriteString(strings.ReplaceAll(rest[:at[0]], "$", "$$"))
		out.WriteString("${" + rest[at[0]+1:at[1]] + "}")
		rest = rest[at[1]:]
	}
}

func (r *Rule) matches(requested string) bool {
	if r.pattern != nil {
		return r.pattern.MatchString(requested)
	}
	if r.kind == networkingv1.PathTypeExact {
		return requested == r.Path
	}
	return hasElements(requested, r.Path)
}

// hasElements says whether the path starts with the elements of prefix; its
// trailing slash does not count.
func hasElements(requested, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	rest, ok := strings.CutPrefix(requested, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// Clean resolves "." and ".." and doubled slashes, as a request's path must be
// before it is compared; a trailing slash stays.
func Clean(requested string) string {
	if requested == "" {
		return "/"
	}
	if requested[0] == '/' && !strings.Contains(requested, "//") && !strings.Contains(requested, "/.") {
		return requested
	}
	out := path.Clean("/" + requested)
	if strings.HasSuffix(requested, "/") && out != "/" {
		out += "/"
	}
	return out
}

// Host brings a host header or server name to the form the table compares: in
// lower case, without port and trailing dot.
func Host(h string) string {
	if i := strings.LastIndexByte(h, ':'); i >= 0 && strings.IndexByte(h[i:], ']') < 0 {
		h = h[:i]
	}
	return strings.ToLower(strings.TrimSuffix(h, "."))
}
