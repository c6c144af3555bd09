// SPDX-License-Identifier: Apache-2.0

package coordination

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"

	"kaji/internal/api/kindtest"
)

func TestLease(t *testing.T) {
	obj, errs := kindtest.Create(t, lease(), "metadata: {name: l}\nspec: {leaseDurationSeconds: 0, leaseTransitions: -1, strategy: X, holderIdentity: me}")
	kindtest.Expect(t, errs, "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
		"spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0")
	if obj.(*coordinationv1.Lease).Spec.Strategy != nil {
		t.Error("a strategy was kept")
	}
	if cells := kindtest.Cells(t, lease(), obj); cells[1] != "me" {
		t.Errorf("cells %v", cells)
	}
}
