// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"testing"

	"kaji/internal/api/kindtest"
)

func TestEndpointSlice(t *testing.T) {
	k := endpointSlice()
	old, errs := kindtest.Create(t, k, "metadata: {name: s}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.0.1, 10.0.0.2]}, {addresses: [10.0.0.3, 10.0.0.4]}]")
	kindtest.Expect(t, errs)
	if cells := kindtest.Cells(t, k, old); cells[2] != "80" || cells[3] != "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more..." {
		t.Errorf("cells %v", cells)
	}
	obj, errs := kindtest.Update(t, k, old, "metadata: {name: s}\naddressType: IPv6\nports: [{name: Bad_, protocol: X}, {name: a}, {name: a}]\nendpoints: [{}, {addresses: ['::1', 10.0.0.1], hostname: x.y, hints: {forZones: [{name: a}, {name: a}]}}]")
	if obj.GetGeneration() != 2 {
		t.Errorf("generation %d", obj.GetGeneration())
	}
	kindtest.Expect(t, errs,
		`addressType: Invalid value: null: field is immutable`,
		`ports[0].name: Invalid value: "Bad_": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
		`ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`,
		`ports[2].name: Duplicate value: "a"`,
		"endpoints[0].addresses: Required value",
		`endpoints[1].addresses[0]: Invalid value: "::1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
		`endpoints[1].addresses: Invalid value: "10.0.0.1": must be an IPv6 address`,
		`endpoints[1].hostname: Invalid value: "x.y": must not contain dots`,
		`endpoints[1].hints.forZones[1].name: Duplicate value: "a"`)
}
