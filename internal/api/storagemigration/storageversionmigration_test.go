// SPDX-License-Identifier: Apache-2.0

package storagemigration

import (
	"testing"

	"kaji/internal/api/kindtest"
)

func TestMigration(t *testing.T) {
	k := storageVersionMigration()
	_, errs := kindtest.Create(t, k, "metadata: {name: m}\nspec: {resource: {resource: ''}}")
	kindtest.Expect(t, errs, "spec.resource.resource: Required value: resource is required to be set")
	old, errs := kindtest.Create(t, k, "metadata: {name: m}\nspec: {resource: {group: apps, resource: deployments}}")
	kindtest.Expect(t, errs)
	if cells := kindtest.Cells(t, k, old); cells[1] != "deployments.apps" || cells[2] != "Unknown" {
		t.Errorf("cells %v", cells)
	}
	_, errs = kindtest.Update(t, k, old, "metadata: {name: m}\nspec: {resource: {resource: pods}}")
	kindtest.Expect(t, errs, `spec: Invalid value: {"Resource":{"group":"","resource":"pods"}}: field is immutable`)
	done, errs := kindtest.UpdateStatus(t, k, old, "metadata: {name: m}\nstatus: {resourceVersion: '5', conditions: [{type: Succeeded, status: 'True', reason: R, lastTransitionTime: '2026-01-01T00:00:00Z'}]}")
	kindtest.Expect(t, errs)
	if _, errs := kindtest.UpdateStatus(t, k, done, "metadata: {name: m}\nstatus: {resourceVersion: '6'}"); len(errs) != 2 {
		t.Errorf("taken back: %q", errs)
	}
}
