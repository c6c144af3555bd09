// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"testing"

	"kaji/internal/api/kindtest"
)

func TestPriorityClass(t *testing.T) {
	k := priorityClass()
	for text, want := range map[string][]string{
		"metadata: {name: c}\nvalue: 10": nil,
		"metadata: {name: c}\nvalue: 1000000001": {
			"value: Forbidden: maximum allowed value of a user defined priority is 1000000000"},
		"metadata: {name: c}\npreemptionPolicy: X": {
			`preemptionPolicy: Unsupported value: "X": supported values: "PreemptLowerPriority", "Never"`},
		"metadata: {name: system-x}": {
			"metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class"},
		"metadata: {name: system-node-critical}\nvalue: 1": {
			"metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000"},
		"metadata: {name: system-cluster-critical}\nvalue: 2000000000": nil,
	} {
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
	old, _ := kindtest.Create(t, k, "metadata: {name: c}\nvalue: 10")
	_, errs := kindtest.Update(t, k, old, "metadata: {name: c}\nvalue: 11\npreemptionPolicy: Never")
	kindtest.Expect(t, errs, "value: Forbidden: may not be changed in an update.", `preemptionPolicy: Invalid value: "Never": field is immutable`)
}
