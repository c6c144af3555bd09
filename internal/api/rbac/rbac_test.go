// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"testing"

	"kaji/internal/api/kindtest"
)

func TestRules(t *testing.T) {
	_, errs := kindtest.Create(t, role(), "metadata: {name: r}\nrules: [{}, {verbs: [get], nonResourceURLs: [/x], resources: [pods]}]")
	kindtest.Expect(t, errs,
		"rules[0].verbs: Required value",
		"rules[0].apiGroups: Required value: resource rules must supply at least one api group",
		"rules[0].resources: Required value: resource rules must supply at least one resource",
		`rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`,
		`rules[1].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs`)
	_, errs = kindtest.Create(t, clusterRole(), "metadata: {name: 'system:r'}\nrules: [{verbs: [get], nonResourceURLs: [/x]}]\naggregationRule: {}")
	kindtest.Expect(t, errs, "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil")
}

func TestBindings(t *testing.T) {
	old, errs := kindtest.Create(t, roleBinding(), "metadata: {name: b}\nroleRef: {kind: Role, name: r}\nsubjects: [{kind: User, name: u}, {kind: ServiceAccount, name: s, namespace: ns}]")
	kindtest.Expect(t, errs)
	if cells := kindtest.Cells(t, roleBinding(), old); cells[1] != "Role/r" || cells[3] != "u" || cells[5] != "ns/s" {
		t.Errorf("cells %v", cells)
	}
	_, errs = kindtest.Update(t, roleBinding(), old, "metadata: {name: b}\nroleRef: {kind: ClusterRole, name: r}")
	kindtest.Expect(t, errs, `roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"ClusterRole","Name":"r"}: field is immutable`)
	_, errs = kindtest.Create(t, clusterRoleBinding(), "metadata: {name: b}\nroleRef: {kind: Role}\nsubjects: [{kind: ServiceAccount, name: s}, {kind: X, name: x}, {kind: Group, apiGroup: yy}]")
	kindtest.Expect(t, errs,
		`roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"`,
		"roleRef.name: Required value",
		"subjects[0].namespace: Required value",
		`subjects[1].kind: Unsupported value: "X": supported values: "ServiceAccount", "User", "Group"`,
		"subjects[2].name: Required value",
		`subjects[2].apiGroup: Unsupported value: "yy": supported values: "rbac.authorization.k8s.io"`)
}
