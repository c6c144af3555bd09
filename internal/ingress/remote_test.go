// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"testing"

	"kaji/internal/client/remote"
	"kaji/kajitest"
)

// A node elsewhere reads custom resources by HTTP: Gateways, too.
func TestGatewayOfAnotherNode(t *testing.T) {
	plane := kajitest.Start(t)
	w := &world{t: t, api: plane.Client()}
	w.define()
	w.apply(`
kind: GatewayClass
metadata: {name: kaji}
spec: {controllerName: kaji.dev/gateway}
---` + plain)
	api, err := remote.New(plane.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	api.Start(t.Context())
	w.api, w.pods = api, map[string]string{}
	w.listen.Store(anywhere)
	w.run()
	until(t, "the Gateway's port", func() bool { return w.c.ports.Bound(80) != nil })
}
