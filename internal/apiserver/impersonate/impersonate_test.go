// SPDX-License-Identifier: Apache-2.0

package impersonate

import (
	"context"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// rights are "verb group/resource[/sub] [namespace/]name".
type rights map[string]bool

func (r rights) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	resource := a.GetAPIGroup() + "/" + a.GetResource()
	if sub := a.GetSubresource(); sub != "" {
		resource += "/" + sub
	}
	name := a.GetName()
	if ns := a.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	if r[strings.TrimSpace(a.GetVerb()+" "+resource+" "+name)] {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func with(all ...string) rights {
	r := rights{}
	for _, one := range all {
		r[one] = true
	}
	return r
}

// Each mode stands for its sort of users, by its own verbs.
func TestModes(t *testing.T) {
	agent := &user.DefaultInfo{Name: "system:serviceaccount:kube-system:agent", Extra: map[string][]string{serviceaccount.NodeNameKey: {"n1"}}}
	request := &authorizer.AttributesRecord{Verb: "get", Namespace: "shop", Resource: "pods", Name: "p", ResourceRequest: true}
	for name, c := range map[string]struct {
		sender *user.DefaultInfo
		wanted user.DefaultInfo
		rights rights
		want   string // groups and constraint, or "!" and part of the refusal
	}{
		"its own node": {agent, user.DefaultInfo{Name: "system:node:n1"},
			with("impersonate-on:associated-node:get /pods shop/p", "impersonate:associated-node authentication.k8s.io/nodes *"),
			"system:nodes,system:authenticated impersonate:associated-node"},
		"another's node": {agent, user.DefaultInfo{Name: "system:node:n2"},
			with("impersonate-on:associated-node:get /pods shop/p", "impersonate:associated-node authentication.k8s.io/nodes *"),
			`!cannot impersonate-on:arbitrary-node:get resource "pods"`},
		"any node": {agent, user.DefaultInfo{Name: "system:node:n2"},
			with("impersonate-on:arbitrary-node:get /pods shop/p", "impersonate:arbitrary-node authentication.k8s.io/nodes n2"),
			"system:nodes,system:authenticated impersonate:arbitrary-node"},
		"a ServiceAccount": {agent, user.DefaultInfo{Name: "system:serviceaccount:a:b"},
			with("impersonate-on:serviceaccount:get /pods shop/p", "impersonate:serviceaccount authentication.k8s.io/serviceaccounts a/b"),
			"system:serviceaccounts,system:serviceaccounts:a,system:authenticated impersonate:serviceaccount"},
		"a ServiceAccount for another action": {agent, user.DefaultInfo{Name: "system:serviceaccount:a:b"},
			with("impersonate-on:serviceaccount:list /pods shop/p", "impersonate:serviceaccount authentication.k8s.io/serviceaccounts a/b"),
			`!cannot impersonate-on:serviceaccount:get resource "pods"`},
		"with groups a node is a user of old": {agent, user.DefaultInfo{Name: "system:node:n1", Groups: []string{"g"}},
			with("impersonate /users system:node:n1", "impersonate /groups g"), "g,system:authenticated "},
		"many groups by one right": {agent, user.DefaultInfo{Name: "zoe", Groups: []string{"a", "b", "c", "d"}},
			with("impersonate-on:user-info:get /pods shop/p", "impersonate:user-info authentication.k8s.io/users zoe", "impersonate:user-info authentication.k8s.io/groups *"),
			"a,b,c,d,system:authenticated impersonate:user-info"},
		"extra needs its key and value": {agent, user.DefaultInfo{Name: "zoe", Extra: map[string][]string{"example.com/team": {"x"}}},
			with("impersonate-on:user-info:get /pods shop/p", "impersonate:user-info authentication.k8s.io/users zoe", "impersonate:user-info authentication.k8s.io/userextras/example.com/team x"),
			"system:authenticated impersonate:user-info"},
		"extra of a bad key": {agent, user.DefaultInfo{Name: "zoe", Extra: map[string][]string{"team": {"x"}}},
			with("impersonate-on:user-info:get /pods shop/p", "impersonate:user-info authentication.k8s.io/users zoe"),
			"!impersonating an invalid key in extra is not allowed"},
		"anonymous": {agent, user.DefaultInfo{Name: user.Anonymous}, with("impersonate /users system:anonymous"), "system:unauthenticated "},
	} {
		attrs := *request
		attrs.User = c.sender
		g, err := newJudge(Config{Authorizer: c.rights}).judge(t.Context(), &c.wanted, &attrs)
		got := ""
		if err != nil {
			got = "!" + err.Error()
		} else {
			got = strings.Join(g.user.GetGroups(), ",") + " " + g.constraint
		}
		if got != c.want && !(strings.HasPrefix(c.want, "!") && strings.Contains(got, c.want[1:])) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
