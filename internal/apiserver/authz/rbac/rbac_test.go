// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// indexed fills an authorizer's index without a cache behind it.
func indexed(objects ...any) *index {
	ix := newIndex()
	for _, o := range objects {
		switch o := o.(type) {
		case *rbacv1.Role:
			ix.add(o)
		case *rbacv1.ClusterRole:
			ix.add(o)
		case *rbacv1.RoleBinding:
			ix.add(o)
		case *rbacv1.ClusterRoleBinding:
			ix.add(o)
		}
	}
	return ix
}

// decide is what Authorize does once the index is current.
func decide(ix *index, a authorizer.Attributes) bool {
	allowed := false
	ix.visit(a.GetUser(), a.GetNamespace(), func(_ *binding, _ subjectKey, rules []rule, _ error) bool {
		for i := range rules {
			allowed = allowed || rules[i].allows(a)
		}
		return !allowed
	})
	return allowed
}

// ask parses "user[,group...] verb namespace group/resource[:sub][=name]" or
// "user verb /path".
func ask(question string) authorizer.Attributes {
	f := strings.Fields(question)
	who := strings.Split(f[0], ",")
	a := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: who[0], Groups: who[1:]}, Verb: f[1]}
	if strings.HasPrefix(f[2], "/") {
		a.Path = f[2]
		return a
	}
	a.ResourceRequest = true
	if f[2] != "-" {
		a.Namespace = f[2]
	}
	a.APIGroup, a.Resource, _ = strings.Cut(f[3], "/")
	a.Resource, a.Name, _ = strings.Cut(a.Resource, "=")
	a.Resource, a.Subresource, _ = strings.Cut(a.Resource, ":")
	return a
}

func TestDecisions(t *testing.T) {
	rule := func(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), APIGroups: strings.Split(groups, ","), Resources: strings.Split(resources, ","), ResourceNames: names}
	}
	ix := indexed(
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Rules: []rbacv1.PolicyRule{rule("*", "*", "*"), {Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Rules: []rbacv1.PolicyRule{rule("get,list", ",apps", "pods,pods/log,*/scale")}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "health"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/healthz/*"}}}},
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: "a"}, Rules: []rbacv1.PolicyRule{rule("get,create", "", "secrets", "s")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "root"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "all"},
			Subjects: []rbacv1.Subject{{Kind: "Group", Name: "admins"}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "health"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "health"},
			Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "pods", Namespace: "a"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "pods"},
			Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}, {Kind: "ServiceAccount", Name: "bot", Namespace: "b"}, {Kind: "ServiceAccount", Name: "here"}}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: "a"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "one"},
			Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
	)
	for question, want := range map[string]bool{
		"x,admins delete - /nodes":                  true,
		"x,admins get /metrics":                     true,
		"ann get a /pods":                           true,
		"ann get a apps/pods":                       true,
		"ann get b /pods":                           false,
		"ann get - /pods":                           false,
		"ann delete a /pods":                        false,
		"ann get a /pods:log":                       true,
		"ann get a /pods:exec":                      false,
		"ann get a apps/deployments:scale":          true,
		"ann get a apps/deployments":                false,
		"ann get a /secrets=s":                      true,
		"ann get a /secrets=t":                      false,
		"ann create a /secrets":                     false,
		"ann get /healthz":                          true,
		"ann get /healthz/etcd":                     true,
		"ann get /healthzz":                         false,
		"system:serviceaccount:b:bot list a /pods":  true,
		"system:serviceaccount:a:bot list a /pods":  false,
		"system:serviceaccount:a:here list a /pods": true,
		"bot,system:serviceaccounts list a /pods":   false,
	} {
		if got := decide(ix, ask(question)); got != want {
			t.Errorf("%q: %v, want %v", question, got, want)
		}
	}
	before := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "pods", Namespace: "a"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "pods"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}}
	ix.remove(before)
	if decide(ix, ask("ann get a /pods")) {
		t.Error("a binding taken away still counts")
	}
}

func BenchmarkAuthorizeAmong10000Bindings(b *testing.B) {
	ix := indexed(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "pods"},
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}})
	for i := range 10000 {
		ix.add(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("b", i), Namespace: fmt.Sprint("ns", i%100)},
			RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "pods"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: fmt.Sprint("u", i)}}})
	}
	a := ask("u4242,g1,g2,system:authenticated get ns42 /pods")
	b.ReportAllocs()
	for b.Loop() {
		if !decide(ix, a) {
			b.Fatal("denied")
		}
	}
}

// TestReasons: audit events say by which binding a request was allowed, in
// upstream's words.
func TestReasons(t *testing.T) {
	role := rbacv1.RoleRef{Kind: "ClusterRole", Name: "pods"}
	for want, c := range map[string]struct {
		binding binding
		subject rbacv1.Subject
	}{
		`RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "pods" to Group "ops"`:            {binding{"", "all", role, nil}, rbacv1.Subject{Kind: "Group", Name: "ops"}},
		`RBAC: allowed by RoleBinding "b/shop" of ClusterRole "pods" to ServiceAccount "bot/other"`: {binding{"shop", "b", role, nil}, rbacv1.Subject{Kind: "ServiceAccount", Namespace: "other", Name: "bot"}},
		`RBAC: allowed by RoleBinding "b/shop" of ClusterRole "pods" to ServiceAccount "bot/shop"`:  {binding{"shop", "b", role, nil}, rbacv1.Subject{Kind: "ServiceAccount", Name: "bot"}},
		`RBAC: allowed by RoleBinding "b/shop" of Role "own" to User "an \"odd\" name"`:             {binding{"shop", "b", rbacv1.RoleRef{Kind: "Role", Name: "own"}, nil}, rbacv1.Subject{Kind: "User", Name: `an "odd" name`}},
	} {
		if got := c.binding.allows(&c.subject); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestUnbind takes bindings of one subject away in an order of their own.
func TestUnbind(t *testing.T) {
	subjects := []rbacv1.Subject{{Kind: "User", Name: "ann"}, {Kind: "User", Name: "ann"}} // named twice
	ix := newIndex()
	names := []string{"c", "a", "d", "b"}
	for _, name := range names {
		ix.bind(&binding{name: name, subjects: subjects})
	}
	key := subjectKey{name: "ann"}
	if n := len(ix.bindings[key]); n != len(names) {
		t.Fatalf("%d bindings", n)
	}
	for i, name := range []string{"a", "d", "b", "c"} {
		ix.unbind("", name, subjects)
		for _, b := range ix.bindings[key] {
			if b.name == name {
				t.Errorf("%s is still there", name)
			}
		}
		if n := len(ix.bindings[key]); n != len(names)-i-1 {
			t.Errorf("after %s: %d bindings", name, n)
		}
	}
	if _, ok := ix.bindings[key]; ok {
		t.Error("an empty list is kept")
	}
}
