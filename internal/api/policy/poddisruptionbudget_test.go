// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"kaji/internal/api/kindtest"
)

func TestBudget(t *testing.T) {
	k := podDisruptionBudget()
	old, errs := kindtest.Create(t, k, "metadata: {name: b}\nspec: {minAvailable: 101%, unhealthyPodEvictionPolicy: X}")
	kindtest.Expect(t, errs, `spec.minAvailable: Invalid value: "101%": must not be greater than 100%`,
		`spec.unhealthyPodEvictionPolicy: Unsupported value: "X": supported values: "AlwaysAllow", "IfHealthyBudget"`)
	if cells := kindtest.Cells(t, k, old); cells[1] != "101%" || cells[2] != "N/A" {
		t.Errorf("cells %v", cells)
	}
	obj, errs := kindtest.Update(t, k, old, "metadata: {name: b}\nspec: {minAvailable: -1, maxUnavailable: x}")
	kindtest.Expect(t, errs,
		`spec: Invalid value: {"MinAvailable":-1,"Selector":null,"MaxUnavailable":"x","UnhealthyPodEvictionPolicy":null}: minAvailable and maxUnavailable cannot be both set`,
		"spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
		`spec.maxUnavailable: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')`)
	if obj.GetGeneration() != 2 {
		t.Errorf("generation %d", obj.GetGeneration())
	}
	_, errs = kindtest.UpdateStatus(t, k, old, "metadata: {name: b}\nstatus: {expectedPods: -1}")
	kindtest.Expect(t, errs, "status.expectedPods: Invalid value: -1: must be greater than or equal to 0")
}
