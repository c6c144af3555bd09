// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// rule is a PolicyRule with what a decision asks first worked out.
type rule struct {
	*rbacv1.PolicyRule
	anyVerb, anyGroup, anyResource bool
}

func compile(rules []rbacv1.PolicyRule) []rule {
	out := make([]rule, len(rules))
	for i := range rules {
		r := &rules[i]
		out[i] = rule{r, slices.Contains(r.Verbs, rbacv1.VerbAll), slices.Contains(r.APIGroups, rbacv1.APIGroupAll), slices.Contains(r.Resources, rbacv1.ResourceAll)}
	}
	return out
}

// Allowed says whether rules alone allow a request.
func Allowed(a authorizer.Attributes, rules []rbacv1.PolicyRule) bool {
	compiled := compile(rules)
	return slices.ContainsFunc(compiled, func(r rule) bool { return r.allows(a) })
}

// allows says whether the rule alone allows a request.
func (r *rule) allows(a authorizer.Attributes) bool {
	if !r.anyVerb && !slices.Contains(r.Verbs, a.GetVerb()) {
		return false
	}
	if !a.IsResourceRequest() {
		return r.allowsPath(a.GetPath())
	}
	return (r.anyGroup || slices.Contains(r.APIGroups, a.GetAPIGroup())) &&
		r.allowsResource(a.GetResource(), a.GetSubresource()) &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.GetName()))
}

func (r *rule) allowsResource(resource, subresource string) bool {
	if r.anyResource {
		return true
	}
	for _, name := range r.Resources {
		if subresource == "" {
			if name == resource {
				return true
			}
			continue
		}
		of, sub, ok := strings.Cut(name, "/")
		if ok && sub == subresource && (of == resource || of == "*") {
			return true
		}
	}
	return false
}

func (r *rule) allowsPath(path string) bool {
	for _, url := range r.NonResourceURLs {
		if url == rbacv1.NonResourceAll || url == path {
			return true
		}
		if prefix, ok := strings.CutSuffix(url, "*"); ok && strings.HasPrefix(path, strings.TrimRight(prefix, "*")) {
			return true
		}
	}
	return false
}
