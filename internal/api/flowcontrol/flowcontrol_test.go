// SPDX-License-Identifier: Apache-2.0

package flowcontrol

import (
	"testing"

	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"kaji/internal/api/kindtest"
)

func TestFlowSchema(t *testing.T) {
	k := flowSchema()
	const head = "metadata: {name: f}\nspec: {priorityLevelConfiguration: {name: g}, "
	for text, want := range map[string][]string{
		"metadata: {name: f}\nspec: {matchingPrecedence: 1}": {
			"spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
			"spec.priorityLevelConfiguration.name: Required value: must reference a priority level"},
		head + "rules: [{}]}": {
			"spec.rules[0].subjects: Required value: subjects must contain at least one value",
			"spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty"},
		head + "rules: [{subjects: [{kind: User, group: {name: g}}], resourceRules: [{verbs: ['*', get], apiGroups: [''], resources: [x]}]}]}": {
			"spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
			"spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
			`spec.rules[0].resourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs`,
			"spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace"},
		head + "rules: [{subjects: [{kind: ServiceAccount, serviceAccount: {name: '*', namespace: ns}}], nonResourceRules: [{verbs: [bogus], nonResourceURLs: [x, /a*b]}]}]}": {
			`spec.rules[0].nonResourceRules[0].verbs: Unsupported value: ["bogus"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"`,
			`spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "x": must start with slash`,
			`spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a*b": wildcard can only do suffix matching`},
	} {
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
}

func TestPriorityLevel(t *testing.T) {
	k := priorityLevelConfiguration()
	for text, want := range map[string][]string{
		"metadata: {name: l}":                        {"spec.type: Required value"},
		"metadata: {name: l}\nspec: {type: X}":       {`spec.type: Unsupported value: "X": supported values: "Exempt", "Limited"`},
		"metadata: {name: l}\nspec: {type: Limited}": {"spec.limited: Required value"},
		"metadata: {name: exempt}\nspec: {type: Exempt, exempt: {lendablePercent: 200}}": {
			"spec.exempt.lendablePercent: Invalid value: 200: must be between 0 and 100, inclusive"},
		"metadata: {name: l}\nspec: {type: Limited, limited: {nominalConcurrencyShares: -1, limitResponse: {type: Queue, queuing: {queues: 99999999, handSize: 12}}}}": {
			"spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
			"spec.limited.limitResponse.queuing.queues: Invalid value: 99999999: must not be greater than 10000000",
			"spec.limited.limitResponse.queuing.handSize: Invalid value: 12: required entropy bits of deckSize 99999999 and handSize 12 should not be greater than 60"},
	} {
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
}

// TestMandatory checks that the objects every cluster has are valid.
func TestMandatory(t *testing.T) {
	for _, s := range append(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas...) {
		kindtest.Expect(t, kindtest.Messages(validateFlowSchema(s)))
	}
	for _, l := range append(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations...) {
		kindtest.Expect(t, kindtest.Messages(validatePriorityLevel(l)))
	}
	changed := bootstrap.MandatoryFlowSchemas[0].DeepCopy()
	changed.Spec.MatchingPrecedence = 7
	if len(validateFlowSchema(changed)) == 0 {
		t.Errorf("%s may be changed", changed.Name)
	}
}
