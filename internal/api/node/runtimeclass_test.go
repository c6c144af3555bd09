// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	"kaji/internal/api/kindtest"
)

func TestRuntimeClass(t *testing.T) {
	k := runtimeClass()
	_, errs := kindtest.Create(t, k, "metadata: {name: c}\noverhead: {podFixed: {cpu: -1}}")
	kindtest.Expect(t, errs, "handler: Required value", `overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0`)
	_, errs = kindtest.Create(t, k, "metadata: {name: c}\nhandler: a\noverhead: {podFixed: {hugepages-2Mi: 1}}")
	kindtest.Expect(t, errs, `overhead.limits[hugepages-2Mi]: Invalid value: "1": 1 is not positive integer multiple of hugepages-2Mi`,
		"overhead: Forbidden: HugePages require cpu or memory")
	old, errs := kindtest.Create(t, k, "metadata: {name: c}\nhandler: a\nscheduling: {tolerations: [{key: a, operator: Exists}, {key: a, operator: Exists}]}")
	kindtest.Expect(t, errs, `scheduling.tolerations[1]: Duplicate value: {"Key":"a","Operator":"Exists","Value":"","Effect":"","TolerationSeconds":null}`)
	kindtest.Cells(t, k, old)
	obj, errs := kindtest.Update(t, k, old, "metadata: {name: c}\nhandler: b\nscheduling: {nodeSelector: {beta.kubernetes.io/os: linux}}")
	kindtest.Expect(t, errs, `handler: Invalid value: null: field is immutable`)
	if warnings := k.Rules.Warnings(obj, old); len(warnings) != 1 {
		t.Errorf("warnings %q", warnings)
	}
}
