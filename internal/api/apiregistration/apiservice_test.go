// SPDX-License-Identifier: Apache-2.0

package apiregistration

import (
	"testing"

	"kaji/internal/api/kindtest"
)

func TestAPIService(t *testing.T) {
	k := apiService()
	local, errs := kindtest.Create(t, k, "metadata: {name: v1.example.com}\nspec: {group: example.com, version: v1, groupPriorityMinimum: 1, versionPriority: 1}")
	kindtest.Expect(t, errs)
	if cells := kindtest.Cells(t, k, local); cells[1] != "Local" || cells[2] != "True" {
		t.Errorf("cells %v", cells)
	}
	_, errs = kindtest.Create(t, k, "metadata: {name: v1.wrong}\nspec: {group: example.com, version: v1, groupPriorityMinimum: 20001, insecureSkipTLSVerify: true, caBundle: YQ==, service: {name: s, port: 0}}")
	kindtest.Expect(t, errs,
		"metadata.name: Invalid value: \"v1.wrong\": must be `spec.version+\".\"+spec.group`: \"v1.example.com\"",
		"spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
		"spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
		"spec.service.namespace: Required value",
		"spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
		"spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present")
	_, errs = kindtest.UpdateStatus(t, k, local, "metadata: {name: v1.example.com, resourceVersion: one}\nstatus: {conditions: [{type: Available, status: X}]}")
	kindtest.Expect(t, errs, `status.conditions[0].status: Unsupported value: "X": supported values: "True", "False", "Unknown"`)
}
