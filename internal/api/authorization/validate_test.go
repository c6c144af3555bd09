// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"testing"

	"kaji/internal/api/kindtest"
)

func TestReviews(t *testing.T) {
	_, errs := kindtest.Create(t, subjectAccessReview(), "metadata: {name: x}\nspec: {}")
	kindtest.Expect(t, errs,
		"spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
		`spec.user: Invalid value: "": at least one of user or group must be specified`,
		`metadata: Invalid value: {"name":"x"}: must be empty`)
	_, errs = kindtest.Create(t, localSubjectAccessReview(), "metadata: {namespace: a}\nspec: {user: u, resourceAttributes: {namespace: b, fieldSelector: {}}}")
	kindtest.Expect(t, errs,
		`spec.resourceAttributes.namespace: Invalid value: "b": must match metadata.namespace`,
		"spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required")
	_, errs = kindtest.Create(t, selfSubjectAccessReview(), "spec: {nonResourceAttributes: {path: /x}, resourceAttributes: {labelSelector: {rawSelector: a, requirements: [{key: a, operator: Exists}]}}}")
	kindtest.Expect(t, errs,
		`spec: Invalid value: {"Path":"/x","Verb":""}: exactly one of nonResourceAttributes or resourceAttributes must be specified`,
		`spec.resourceAttributes.labelSelector.rawSelector: Invalid value: "a": may not specified at the same time as requirements`)
}
