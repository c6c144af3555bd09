// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"encoding/json"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
)

const rbacPath = "/apis/rbac.authorization.k8s.io/v1"

// grant gives a user the rules of a cluster role, which are YAML lists.
func grant(t *testing.T, root *asker, user, name, rules string) {
	t.Helper()
	root.must(rbacPath+"/clusterroles", `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "`+name+`"}, "rules": `+rules+`}`)
	root.must(rbacPath+"/clusterrolebindings", `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "`+name+`"},
		"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "`+name+`"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "`+user+`"}]}`)
}

// who asks the server who it takes the sender for.
func (a *asker) who() authenticationv1.UserInfo {
	a.t.Helper()
	got := a.do("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}`)
	var review authenticationv1.SelfSubjectReview
	if err := json.Unmarshal(got.body, &review); err != nil || got.code != 201 {
		a.t.Fatalf("who: %v", got)
	}
	return review.Status.UserInfo
}

// A request acts as another only by rights on every attribute it names.
func TestImpersonation(t *testing.T) {
	t.Parallel()
	p := start(t)
	root := p.as(t, "root")
	if got := p.as(t, "root", "Impersonate-User: zoe", "Impersonate-Uid: 7", "Impersonate-Group: a", "Impersonate-Group: b", "Impersonate-Extra-Acme.com%2fTeam: x").who(); got.Username != "zoe" || got.UID != "7" ||
		strings.Join(got.Groups, " ") != "a b system:authenticated" || got.Extra["acme.com/team"][0] != "x" {
		t.Errorf("all attributes: %+v", got)
	}
	if got := p.as(t, "root", "Impersonate-User: system:serviceaccount:kube-system:default").who(); strings.Join(got.Groups, " ") != "system:serviceaccounts system:serviceaccounts:kube-system system:authenticated" {
		t.Errorf("groups of a ServiceAccount: %v", got.Groups)
	}
	if got := p.as(t, "root", "Impersonate-User: system:node:n1").who(); strings.Join(got.Groups, " ") != "system:nodes system:authenticated" {
		t.Errorf("groups of a node: %v", got.Groups)
	}
	// Anonymous has no right to ask who it is.
	p.as(t, "root", "Impersonate-User: system:anonymous").refused("GET", "/api/v1/pods", "", 403,
		`pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" at the cluster scope`)
	p.as(t, "root", "Impersonate-Group: a").refused("GET", "/api/v1/pods", "", 400,
		`requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"a"}, Extra:map[string][]string(nil)} without impersonating a user name`)
	// Without any right the first mode that applies is refused.
	p.as(t, "ann", "Impersonate-User: zoe").refused("GET", "/api/v1/pods", "", 403,
		`pods is forbidden: User "ann" cannot impersonate-on:user-info:list resource "pods" in API group "" at the cluster scope`)

	// The verb of old allows all requests; the groups need a right of their own.
	grant(t, root, "ann", "old", `[{"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["zoe"]}]`)
	if got := p.as(t, "ann", "Impersonate-User: zoe").who(); got.Username != "zoe" {
		t.Errorf("impersonate: %+v", got)
	}
	p.as(t, "ann", "Impersonate-User: zoe", "Impersonate-Group: system:masters").refused("GET", "/api/v1/pods", "", 403,
		`groups "system:masters" is forbidden: User "ann" cannot impersonate resource "groups" in API group "" at the cluster scope`)
	p.as(t, "ann", "Impersonate-User: root").refused("GET", "/api/v1/pods", "", 403,
		`users "root" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope`)

	// Constrained: as whom, and doing what.
	grant(t, root, "bob", "constrained", `[{"apiGroups": ["authentication.k8s.io"], "resources": ["users"], "verbs": ["impersonate:user-info"], "resourceNames": ["root-like"]},
		{"apiGroups": ["authentication.k8s.io"], "resources": ["groups"], "verbs": ["impersonate:user-info"]},
		{"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["impersonate-on:user-info:create"]}]`)
	if got := p.as(t, "bob", "Impersonate-User: root-like", "Impersonate-Group: ops").who(); strings.Join(got.Groups, " ") != "ops system:authenticated" {
		t.Errorf("constrained: %+v", got)
	}
	p.as(t, "bob", "Impersonate-User: root-like").refused("GET", "/api/v1/pods", "", 403,
		`pods is forbidden: User "bob" cannot impersonate-on:user-info:list resource "pods" in API group "" at the cluster scope`)
	p.as(t, "bob", "Impersonate-User: root-like", "Impersonate-Group: system:masters").refused("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{}`, 403,
		`groups.authentication.k8s.io "system:masters" is forbidden: User "bob" cannot impersonate:user-info resource "groups" in API group "authentication.k8s.io" at the cluster scope: impersonating the system:masters group is not allowed`)
}

// Nobody gives away what he does not have.
func TestEscalation(t *testing.T) {
	t.Parallel()
	p := start(t)
	root, ann := p.as(t, "root"), p.as(t, "ann")
	grant(t, root, "ann", "editor", `[{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["get", "create", "update", "patch"]},
		{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]`)
	role := func(name, rules string) string {
		return `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "` + name + `"}, "rules": [` + rules + `]}`
	}
	ann.must(rbacPath+"/clusterroles", role("small", `{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}`))
	const granting = `user "ann" (groups=["devs" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:` + "\n"
	ann.refused("POST", rbacPath+"/clusterroles", role("big", `{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete", "watch"]}, {"nonResourceURLs": ["/x"], "verbs": ["get"]}`), 403,
		`clusterroles.rbac.authorization.k8s.io "big" is forbidden: `+granting+`{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}`+"\n"+`{NonResourceURLs:["/x"], Verbs:["get"]}`)
	// An update is judged as well, unless it only serves garbage collection.
	merge := p.as(t, "ann", "Content-Type: application/merge-patch+json")
	merge.refused("PATCH", rbacPath+"/clusterroles/small", `{"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}`, 403,
		`clusterroles.rbac.authorization.k8s.io "small" is forbidden: `+granting+`{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`)
	if got := merge.do("PATCH", rbacPath+"/clusterroles/cluster-admin", `{"metadata": {"finalizers": ["example.com/hold"]}}`); got.code != 200 {
		t.Errorf("finalizers of a role with more rights: %v", got)
	}
	ann.refused("POST", rbacPath+"/clusterroles", `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [{}]}}`, 403,
		`clusterroles.rbac.authorization.k8s.io "all" is forbidden: must have cluster-admin privileges to use the aggregationRule`)

	bind := func(name, to string) string {
		return `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "` + name + `"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "` + to + `"}}`
	}
	ann.must(rbacPath+"/clusterrolebindings", bind("fine", "small"))
	ann.refused("POST", rbacPath+"/clusterrolebindings", bind("steal", "cluster-admin"), 403,
		`clusterrolebindings.rbac.authorization.k8s.io "steal" is forbidden: `+granting+`{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`+"\n"+`{NonResourceURLs:["*"], Verbs:["*"]}`)
	ann.refused("POST", rbacPath+"/clusterrolebindings", bind("void", "absent"), 404,
		`clusterrolebindings.rbac.authorization.k8s.io "absent" not found`)
	ann.refused("POST", rbacPath+"/clusterrolebindings", strings.Replace(bind("nowhere", "absent"), `"kind": "ClusterRole",`, `"kind": "Role",`, 1), 400, "Namespace parameter required.")
	grant(t, root, "ann", "binder", `[{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["cluster-admin"]}]`)
	ann.must(rbacPath+"/clusterrolebindings", bind("steal", "cluster-admin"))
	grant(t, root, "ann", "escalator", `[{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["escalate"]}]`)
	ann.must(rbacPath+"/clusterroles", role("big", `{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}`))
}
