// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	"testing"

	"kaji/internal/api/kindtest"
)

const hook = "metadata: {name: w}\nwebhooks: [{name: a.example.com, sideEffects: None, admissionReviewVersions: [v1], "

func TestWebhooks(t *testing.T) {
	k := validatingWebhookConfiguration()
	for text, want := range map[string][]string{
		hook + "clientConfig: {service: {name: s, namespace: ns}}}]}": nil,
		hook + "clientConfig: {}, timeoutSeconds: 31, rules: [{operations: [X], apiGroups: ['*', a], apiVersions: [''], resources: [pods/*, pods/x, '*/*']}]}]": {
			"webhooks[0].clientConfig: Required value: exactly one of url or service is required",
			"webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
			`webhooks[0].rules[0].operations[0]: Unsupported value: "X": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"`,
			`webhooks[0].rules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other API groups`,
			"webhooks[0].rules[0].apiVersions[0]: Required value",
			`webhooks[0].rules[0].resources[1]: Invalid value: "pods/x": if 'pods/*' is present, must not specify pods/x`,
			`webhooks[0].rules[0].resources: Invalid value: ["pods/*","pods/x","*/*"]: if '*/*' is present, must not specify other resources`},
		"metadata: {name: w}\nwebhooks: [{name: bad, clientConfig: {url: 'http://x'}, admissionReviewVersions: [v0, v0], matchConditions: [{name: c, expression: '1'}]}]": {
			"webhooks[0].name: Invalid value: \"bad\": should be a domain with at least three segments separated by dots",
			`webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun`,
			`webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]`,
			`webhooks[0].admissionReviewVersions[1]: Invalid value: "v0": duplicate version`,
			`webhooks[0].admissionReviewVersions: Invalid value: ["v0","v0"]: must include at least one of v1, v1beta1`,
			`webhooks[0].matchConditions[0].expression: Invalid value: "1": must evaluate to bool but got int`},
	} {
		if text[len(text)-1] == '}' {
			text = text[:len(text)-1]
		}
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
}

const match = "matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]}"

func TestPolicy(t *testing.T) {
	k := validatingAdmissionPolicy()
	old, errs := kindtest.Create(t, k, "metadata: {name: p}\nspec: {"+match+", variables: [{name: v, expression: 'object.spec'}], validations: [{expression: 'has(variables.v.x)'}]}")
	kindtest.Expect(t, errs)
	kindtest.Cells(t, k, old)
	_, errs = kindtest.Create(t, k, "metadata: {name: p}\nspec: {}")
	kindtest.Expect(t, errs, "spec.matchConstraints: Required value",
		"spec.validations: Required value: validations or auditAnnotations must contain at least one item",
		"spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item")
	obj, errs := kindtest.Update(t, k, old, "metadata: {name: p}\nspec: {"+match+", paramKind: {apiVersion: a/b/c, kind: K}, variables: [{name: if, expression: 'true'}], validations: [{expression: '1', message: \"a\\nb\", reason: X}]}")
	kindtest.Expect(t, errs,
		`spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c`,
		`spec.variables[0].name: Invalid value: "if": must be a valid CEL identifier`,
		`spec.validations[0].expression: Invalid value: "1": must evaluate to bool but got int`,
		`spec.validations[0].message: Invalid value: "a\nb": must not contain line breaks`,
		`spec.validations[0].reason: Unsupported value: "X": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"`)
	if obj.GetGeneration() != 2 {
		t.Errorf("generation %d", obj.GetGeneration())
	}
}

func TestMutatingPolicy(t *testing.T) {
	k := mutatingAdmissionPolicy()
	obj, errs := kindtest.Create(t, k, "metadata: {name: p}\nspec: {"+match+", reinvocationPolicy: Never, mutations: [{patchType: JSONPatch, applyConfiguration: {expression: 'x'}}, {patchType: X}]}")
	kindtest.Expect(t, errs,
		"spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
		`spec.mutations[0].applyConfiguration: Invalid value: "{applyConfiguration}": must not be specified when patchType is JSONPatch`,
		`spec.mutations[1].patchType: Unsupported value: "X": supported values: "ApplyConfiguration", "JSONPatch"`)
	kindtest.Cells(t, k, obj)
	_, errs = kindtest.Create(t, k, "metadata: {name: p}\nspec: {"+match+", reinvocationPolicy: Never, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{}'}}]}")
	kindtest.Expect(t, errs)
}

func TestBinding(t *testing.T) {
	k := validatingAdmissionPolicyBinding()
	obj, errs := kindtest.Create(t, k, "metadata: {name: b}\nspec: {policyName: Bad_, paramRef: {name: x, selector: {}}, validationActions: [Deny, Warn, Warn]}")
	kindtest.Expect(t, errs,
		`spec.policyName: Invalid value: "Bad_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		"spec.paramRef.name: Forbidden: name and selector are mutually exclusive", "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
		"spec.paramRef.parameterNotFoundAction: Required value",
		`spec.validationActions[2]: Duplicate value: "Warn"`,
		`spec.validationActions: Invalid value: ["Deny","Warn","Warn"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)`)
	if cells := kindtest.Cells(t, k, obj); cells[2] != "*/x" {
		t.Errorf("cells %v", cells)
	}
	_, errs = kindtest.Create(t, mutatingAdmissionPolicyBinding(), "metadata: {name: b}\nspec: {matchResources: {resourceRules: [{operations: [DELETE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]}}")
	kindtest.Expect(t, errs, "spec.policyName: Required value",
		`spec.matchResources.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE"`)
}
