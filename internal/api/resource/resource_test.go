// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"

	"kaji/internal/api/kindtest"
)

const claim = "metadata: {name: c}\nspec: {devices: {requests: [{name: r, exactly: {deviceClassName: dc"

func TestClaim(t *testing.T) {
	k := resourceClaim()
	for text, want := range map[string][]string{
		claim + "}}]}}": nil,
		"metadata: {name: c}\nspec: {devices: {requests: [{name: r}]}}": {
			"spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"},
		claim + ", count: 2, allocationMode: All}}]}}": {
			"spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"},
		claim + ", allocationMode: X, tolerations: [{operator: X, effect: Z}]}}]}}": {
			`spec.devices.requests[0].exactly.allocationMode: Unsupported value: "X": supported values: "All", "ExactCount"`,
			`spec.devices.requests[0].exactly.tolerations[0].operator: Unsupported value: "X": supported values: "Equal", "Exists"`,
			`spec.devices.requests[0].exactly.tolerations[0].effect: Unsupported value: "Z": supported values: "NoExecute", "NoSchedule", "None"`},
		claim + ", selectors: [{}, {cel: {expression: '1'}}]}}]}}": {
			"spec.devices.requests[0].exactly.selectors[0].cel: Required value",
			`spec.devices.requests[0].exactly.selectors[1].cel.expression: Invalid value: "1": must evaluate to bool or the unknown type, not int`},
		claim + "}}], constraints: [{requests: [nope], matchAttribute: bad}]}}": {
			"spec.devices.constraints[0].requests[0]: Invalid value: \"nope\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
			`spec.devices.constraints[0].matchAttribute: Invalid value: "bad": a fully qualified name must be a domain and a name separated by a slash`},
		claim + "}}], config: [{}, {opaque: {driver: '', parameters: [1]}}]}}": {
			"spec.devices.config[0].opaque: Required value",
			"spec.devices.config[1].opaque.driver: Required value",
			`spec.devices.config[1].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object`},
		claim + "}}], constraints: [{matchAttribute: a.b/c, distinctAttribute: /d}]}}": {
			`spec.devices.constraints[0].distinctAttribute: Invalid value: "": prefix must not be empty`},
		claim + "}, firstAvailable: [{name: a}, {name: a, deviceClassName: dc, allocationMode: X, tolerations: [{key: k, value: '!', effect: Z}]}]}]}}": {
			"spec.devices.requests[0]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
			"spec.devices.requests[0].firstAvailable[0].deviceClassName: Required value",
			`spec.devices.requests[0].firstAvailable[1].allocationMode: Unsupported value: "X": supported values: "All", "ExactCount"`,
			`spec.devices.requests[0].firstAvailable[1].tolerations[0].effect: Unsupported value: "Z": supported values: "NoExecute", "NoSchedule", "None"`,
			`spec.devices.requests[0].firstAvailable[1]: Duplicate value: {"name":"a","deviceClassName":"dc","allocationMode":"X","tolerations":[{"key":"k","operator":"Equal","value":"!","effect":"Z"}]}`},
		claim + "}}, {name: r, exactly: {deviceClassName: dc}}]}}": {
			`spec.devices.requests[1]: Duplicate value: {"name":"r","exactly":{"deviceClassName":"dc","allocationMode":"ExactCount","count":1}}`},
	} {
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
}

func TestClaimStatus(t *testing.T) {
	k := resourceClaim()
	old, _ := kindtest.Create(t, k, claim+"}}]}}")
	const allocation = "allocation: {devices: {results: [{request: r, driver: d.example.com, pool: p, device: a}]}}"
	held, errs := kindtest.UpdateStatus(t, k, old, "metadata: {name: c}\nstatus: {"+allocation+", reservedFor: [{resource: pods, name: x, uid: '1'}], devices: [{driver: d.example.com, pool: p, device: a}]}")
	kindtest.Expect(t, errs)
	if cells := kindtest.Cells(t, k, held); cells[1] != "allocated,reserved" {
		t.Errorf("cells %v", cells)
	}
	_, errs = kindtest.UpdateStatus(t, k, old, "metadata: {name: c}\nstatus: {reservedFor: [{resource: pods, uid: '1'}], devices: [{driver: d.example.com, pool: p, device: a}]}")
	kindtest.Expect(t, errs, "status.reservedFor[0].name: Required value",
		"status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
		`status.devices[0]: Invalid value: "d.example.com/p/a": must be an allocated device in the claim`)
	given, errs := kindtest.UpdateStatus(t, k, held, "metadata: {name: c}\nstatus: {devices: [{driver: d.example.com, pool: p, device: a}]}")
	kindtest.Expect(t, errs)
	if n := len(given.(*resourcev1.ResourceClaim).Status.Devices); n != 0 {
		t.Errorf("%d devices are told of after they were given back", n)
	}
}

const slice = "metadata: {name: s}\nspec: {driver: d.example.com, nodeName: n1, pool: {name: p, resourceSliceCount: 1}, devices: ["

func TestSlice(t *testing.T) {
	k := resourceSlice()
	for text, want := range map[string][]string{
		slice + "{name: a, attributes: {x: {int: 1}}}]}": nil,
		slice + "{name: a}, {name: a}]}":                 {`spec.devices[1]: Duplicate value: "a"`},
		slice + "{name: a, attributes: {x: {}, z: {int: 1, string: s}, v: {version: x}}}]}": {
			"spec.devices[0].attributes[x]: Invalid value: \"\": must specify one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`",
			"spec.devices[0].attributes[z]: Invalid value: \"{int, string}\": must specify exactly one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`",
			`spec.devices[0].attributes[v].version: Invalid value: "x": must be a string compatible with semver.org spec 2.0.0`},
		slice + "{name: a, consumesCounters: [{counterSet: c}], nodeName: n1}]}": {
			"spec.devices[0].consumesCounters[0].counters: Required value",
			"spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"},
		slice + "{name: a, allowMultipleAllocations: true, capacity: {x: {value: 10, requestPolicy: {default: 3, validRange: {min: 2, max: 11, step: 2}}}}}]}": {
			`spec.devices[0].capacity[x].requestPolicy.validRange.max: Invalid value: "11": max is larger than capacity value: 10`,
			`spec.devices[0].capacity[x].requestPolicy.validRange.step: Invalid value: "3": value is not a multiple of a given step (2) from (2)`,
			`spec.devices[0].capacity[x].requestPolicy.validRange.step: Invalid value: "11": value is not a multiple of a given step (2) from (2)`},
		"metadata: {name: s}\nspec: {driver: d, pool: {name: p}, allNodes: false}": {
			"spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
			"spec.allNodes: Invalid value: false: must be either unset or set to true",
			"spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"},
	} {
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
}

func TestClosedGates(t *testing.T) {
	k := resourceSlice()
	obj, errs := kindtest.Create(t, k, "metadata: {name: s}\nspec: {driver: d.example.com, nodeName: n1, partitionTypeAttribute: a.b/c, skipNodeOperations: ['*'], "+
		"pool: {name: p, resourceSliceCount: 1}, devices: [{name: a, attributes: {x: {int: 1, ints: [2]}}, nodeAllocatableResources: {cpu: {}}}]}")
	kindtest.Expect(t, errs)
	spec := obj.(*resourcev1.ResourceSlice).Spec
	if spec.PartitionTypeAttribute != nil || spec.SkipNodeOperations != nil || spec.Devices[0].NodeAllocatableResources != nil || spec.Devices[0].Attributes["x"].IntValues != nil {
		t.Errorf("slice keeps fields behind closed gates: %+v", spec)
	}
	obj, errs = kindtest.Create(t, resourceClaimTemplate(), "metadata: {name: c}\nspec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: dc, derivedAttributes: [{name: a, expression: b}]}}]}}}")
	kindtest.Expect(t, errs)
	if got := obj.(*resourcev1.ResourceClaimTemplate).Spec.Spec.Devices.Requests[0].Exactly.DerivedAttributes; got != nil {
		t.Errorf("template keeps derived attributes %v", got)
	}
	_, errs = kindtest.Update(t, resourceClaimTemplate(), obj, "metadata: {name: c}\nspec: {spec: {devices: {requests: [{name: r}]}}}")
	if len(errs) != 2 {
		t.Errorf("a changed template is judged for itself too: %q", errs)
	}
}

func TestTaintRule(t *testing.T) {
	k := deviceTaintRule()
	_, errs := kindtest.Create(t, k, "metadata: {name: t}\nspec: {deviceSelector: {pool: ''}, taint: {key: k}}")
	kindtest.Expect(t, errs, "spec.deviceSelector.pool: Required value", "spec.taint.effect: Required value")
	old, errs := kindtest.Create(t, k, "metadata: {name: t}\nspec: {taint: {key: k, effect: NoSchedule, timeAdded: '2026-01-01T00:00:00Z'}}")
	kindtest.Expect(t, errs)
	kindtest.Cells(t, k, old)
	obj, errs := kindtest.Update(t, k, old, "metadata: {name: t}\nspec: {taint: {key: k, effect: NoExecute, timeAdded: '2026-01-01T00:00:00Z'}}")
	kindtest.Expect(t, errs)
	if added := obj.(*resourcev1.DeviceTaintRule).Spec.Taint.TimeAdded; added.Equal(old.(*resourcev1.DeviceTaintRule).Spec.Taint.TimeAdded) || obj.GetGeneration() != 2 {
		t.Errorf("another effect since %v, generation %d", added, obj.GetGeneration())
	}
}

func TestDeviceClass(t *testing.T) {
	_, errs := kindtest.Create(t, deviceClass(), "metadata: {name: c}\nspec: {extendedResourceName: cpu, selectors: [{cel: {expression: 'true'}}]}")
	kindtest.Expect(t, errs, "spec.extendedResourceName: Invalid value: \"cpu\": a name must be a domain-prefixed path, such as 'example.com/my-prop'")
}

func TestClaimTemplateMetadata(t *testing.T) {
	_, errs := kindtest.Create(t, resourceClaimTemplate(), "metadata: {name: c}\nspec: {metadata: {name: x, labels: {a: b}}, spec: {devices: {}}}")
	kindtest.Expect(t, errs, "spec.metadata.name: Forbidden: cannot be set")
}

func TestDeviceClassName(t *testing.T) {
	messages := deviceClass().Rules.ValidateName(strings.Repeat("l", 300), false)
	if len(messages) != 1 || messages[0] != "must be no more than 253 bytes" {
		t.Errorf("a long name: %q", messages)
	}
}

func TestShorten(t *testing.T) {
	long := strings.Repeat("a", 50) + strings.Repeat("b", 50)
	if got := shorten(long, 20); len(got) != 20 || !strings.HasPrefix(got, "aaaaaaaaa...") || !strings.HasSuffix(got, "bbbbbbbb") {
		t.Errorf("got %q", got)
	}
}
