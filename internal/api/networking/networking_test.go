// SPDX-License-Identifier: Apache-2.0

package networking

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/api/kindtest"
)

func TestIngressValidation(t *testing.T) {
	const service = "service: {name: s, port: {number: 80}}"
	for _, c := range []struct {
		name, spec string
		want       []string
	}{
		{"empty", "{}", []string{"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"}},
		{"no port", "{defaultBackend: {service: {name: s}}}", []string{"spec.defaultBackend: Required value: port name or number is required"}},
		{"both backends", "{defaultBackend: {" + service + ", resource: {kind: K, name: n}}}", []string{
			`spec.defaultBackend: Invalid value: "": cannot set both resource and service backends`}},
		{"path type", "{rules: [{http: {paths: [{path: /, pathType: X, backend: {" + service + "}}]}}]}", []string{
			`spec.rules[0].http.paths[0].pathType: Unsupported value: "X": supported values: "Exact", "ImplementationSpecific", "Prefix"`}},
		{"path", "{rules: [{http: {paths: [{path: /a//b/.., pathType: Exact, backend: {" + service + "}}]}}]}", []string{
			`spec.rules[0].http.paths[0].path: Invalid value: "/a//b/..": must not contain '//'`,
			`spec.rules[0].http.paths[0].path: Invalid value: "/a//b/..": cannot end with '/..'`}},
		{"address for a host", "{rules: [{host: 192.0.2.1}]}", []string{
			`spec.rules[0].host: Invalid value: "192.0.2.1": must be a DNS name, not an IP address`}},
		{"good", "{rules: [{host: '*.example.com', http: {paths: [{path: /, pathType: Prefix, backend: {" + service + "}}]}}]}", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			obj, errs := kindtest.Create(t, ingress(), "metadata: {name: i}\nspec: "+c.spec)
			kindtest.Expect(t, errs, c.want...)
			kindtest.Cells(t, ingress(), obj)
		})
	}
}

func TestIngressClass(t *testing.T) {
	obj, errs := kindtest.Create(t, ingressClass(), "metadata: {name: c}\nspec: {controller: example.com/c, parameters: {kind: K, name: n}}")
	kindtest.Expect(t, errs)
	if scope := obj.(*networkingv1.IngressClass).Spec.Parameters.Scope; scope == nil || *scope != "Cluster" {
		t.Errorf("scope %v", scope)
	}
	_, errs = kindtest.Update(t, ingressClass(), obj, "metadata: {name: c}\nspec: {controller: example.com/d, parameters: {kind: K, name: n, scope: Namespace}}")
	kindtest.Expect(t, errs, `spec.controller: Invalid value: "example.com/d": field is immutable`,
		"spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'")
}

func TestNetworkPolicy(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		want       []string
	}{
		{"types", "{podSelector: {}, policyTypes: [X]}", []string{
			`spec.policyTypes[0]: Unsupported value: "X": supported values: "Ingress", "Egress"`}},
		{"end port", "{podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}, {endPort: 1}, {port: http, endPort: 1}]}]}", []string{
			"spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
			"spec.ingress[0].ports[1].endPort: Invalid value: 1: may not be specified when `port` is not specified",
			"spec.ingress[0].ports[2].endPort: Invalid value: 1: may not be specified when `port` is non-numeric"}},
		{"block", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.1.0.0/25]}}, {}]}]}", []string{
			"spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"10.1.0.0/25\": must be a strict subset of `cidr`",
			"spec.egress[0].to[1]: Required value: must specify a peer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			obj, errs := kindtest.Create(t, networkPolicy(), "metadata: {name: p}\nspec: "+c.spec)
			kindtest.Expect(t, errs, c.want...)
			kindtest.Cells(t, networkPolicy(), obj)
		})
	}
	obj, _ := kindtest.Create(t, networkPolicy(), "metadata: {name: p}\nspec: {podSelector: {}, egress: [{}]}")
	if got := obj.(*networkingv1.NetworkPolicy).Spec.PolicyTypes; len(got) != 2 {
		t.Errorf("policy types %v", got)
	}
}

// The reference tells an empty list from none when it counts generations.
func TestNetworkPolicyGeneration(t *testing.T) {
	old, _ := kindtest.Create(t, networkPolicy(), "metadata: {name: p}\nspec: {podSelector: {}}")
	obj, errs := kindtest.Update(t, networkPolicy(), old, "metadata: {name: p}\nspec: {podSelector: {}, egress: []}")
	kindtest.Expect(t, errs)
	if got := obj.GetGeneration(); got != 2 {
		t.Errorf("generation %d", got)
	}
}

func TestServiceCIDR(t *testing.T) {
	old, errs := kindtest.Create(t, serviceCIDR(), "metadata: {name: c}\nspec: {cidrs: [203.0.113.0/24]}")
	kindtest.Expect(t, errs)
	_, errs = kindtest.Update(t, serviceCIDR(), old, "metadata: {name: c}\nspec: {cidrs: [203.0.113.0/24, '2001:db8::/64']}")
	kindtest.Expect(t, errs)
	_, errs = kindtest.Update(t, serviceCIDR(), old, "metadata: {name: c}\nspec: {cidrs: [203.0.113.0/25]}")
	kindtest.Expect(t, errs, `spec.cidrs[0]: Invalid value: "203.0.113.0/25": field is immutable`)
	_, errs = kindtest.Create(t, serviceCIDR(), "metadata: {name: c}\nspec: {cidrs: [203.0.113.0/24, 198.51.100.0/24]}")
	kindtest.Expect(t, errs, `spec.cidrs: Invalid value: ["203.0.113.0/24","198.51.100.0/24"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64`)
}

func TestIPAddress(t *testing.T) {
	k := ipAddress()
	if k.Rules.ValidateName("192.0.2.1", false) != nil || k.Rules.ValidateName("192.0.2.001", false) == nil {
		t.Error("names are addresses in canonical form")
	}
	_, errs := kindtest.Create(t, k, "metadata: {name: 192.0.2.1}\nspec: {parentRef: {}}")
	kindtest.Expect(t, errs, "spec.parentRef.name: Required value", "spec.parentRef.resource: Required value")
}
