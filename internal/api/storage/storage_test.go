// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"testing"

	"kaji/internal/api"
	"kaji/internal/api/kindtest"
)

func TestValidation(t *testing.T) {
	for _, c := range []struct {
		name string
		kind *api.Kind
		text string
		want []string
	}{
		{"class", storageClass(), "reclaimPolicy: X\nvolumeBindingMode: Z\nparameters: {'': x}", []string{
			"provisioner: Required value",
			`reclaimPolicy: Unsupported value: "X": supported values: "Delete", "Retain"`,
			`volumeBindingMode: Unsupported value: "Z": supported values: "Immediate", "WaitForFirstConsumer"`,
			`parameters: Invalid value: "": field can not be empty.`}},
		{"topologies", storageClass(), "provisioner: a\nallowedTopologies: [{matchLabelExpressions: [{key: a, values: [x, x]}, {key: a}]}]", []string{
			`allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "x"`,
			"allowedTopologies[0].matchLabelExpressions[1].values: Required value",
			`allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "a"`}},
		{"empty term", storageClass(), "provisioner: a\nallowedTopologies: [{}]", []string{
			`allowedTopologies[0].matchLabelExpressions: Duplicate value: ""`}},
		{"attachment", volumeAttachment(), "spec: {nodeName: ok, source: {}}", []string{
			"spec.attacher: Required value",
			"spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"}},
		{"driver", csiDriver(), "spec: {fsGroupPolicy: X, volumeLifecycleModes: [Z], nodeAllocatableUpdatePeriodSeconds: 9, serviceAccountTokenInSecrets: true}", []string{
			`spec.fsGroupPolicy: Unsupported value: "X": supported values: "File", "None", "ReadWriteOnceWithFSType"`,
			`spec.volumeLifecycleModes: Unsupported value: "Z": supported values: "Persistent", "Ephemeral"`,
			"spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
			"spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified"}},
		{"tokens", csiDriver(), "spec: {tokenRequests: [{audience: a, expirationSeconds: 599}, {audience: a}]}", []string{
			"spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
			`spec.tokenRequests[1].audience: Duplicate value: "a"`}},
		{"node", csiNode(), "spec: {drivers: [{}, {name: a, nodeID: i, topologyKeys: [k, k], allocatable: {count: -1}}]}", []string{
			"spec.drivers[0].name: Required value", "spec.drivers[0].nodeID: Required value",
			"spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
			`spec.drivers[1]: Duplicate value: "k"`}},
		{"capacity", csiStorageCapacity(), "storageClassName: a\ncapacity: -1", []string{
			`capacity: Invalid value: "-1": must be greater than or equal to 0`}},
		{"attributes", volumeAttributesClass(), "driverName: a", []string{"parameters: Required value: must contain at least one key/value pair"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			obj, errs := kindtest.Create(t, c.kind, "metadata: {name: o}\n"+c.text)
			kindtest.Expect(t, errs, c.want...)
			if c.kind.Rules.Cells != nil {
				kindtest.Cells(t, c.kind, obj)
			}
		})
	}
}

func TestUpdates(t *testing.T) {
	for _, c := range []struct {
		name       string
		kind       *api.Kind
		old, text  string
		generation int64
		want       []string
	}{
		{"class", storageClass(), "provisioner: a", "provisioner: b\nparameters: {k: v}", 0, []string{
			`provisioner: Invalid value: null: field is immutable`, `parameters: Invalid value: null: field is immutable`}},
		{"driver", csiDriver(), "spec: {}", "spec: {attachRequired: false, podInfoOnMount: true}", 1, []string{
			"spec.attachedRequired: Invalid value: false: field is immutable"}},
		{"node", csiNode(), "spec: {drivers: [{name: a, nodeID: i}]}", "spec: {drivers: [{name: a, nodeID: k, allocatable: {count: 1}}]}", 0, []string{
			`spec.drivers: Invalid value: {"Name":"a","NodeID":"k","TopologyKeys":null,"Allocatable":null}: field is immutable`}},
		{"attributes", volumeAttributesClass(), "driverName: a\nparameters: {k: v}", "driverName: b\nparameters: {k: w}", 0, []string{
			"driverName: Forbidden: updates to driverName are forbidden.", "parameters: Forbidden: updates to parameters are forbidden."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, errs := kindtest.Create(t, c.kind, "metadata: {name: o}\n"+c.old)
			kindtest.Expect(t, errs)
			obj, errs := kindtest.Update(t, c.kind, old, "metadata: {name: o}\n"+c.text)
			kindtest.Expect(t, errs, c.want...)
			if obj.GetGeneration() != c.generation {
				t.Errorf("generation %d", obj.GetGeneration())
			}
		})
	}
}
