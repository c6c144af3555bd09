// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/client"
)

// With a pool each Gateway has a Service of its own, and answers at its address for
// its routes only.
func TestOwnAddresses(t *testing.T) {
	w := newGateways(t, func(c *Config) { c.OwnAddresses = true; c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)) })
	w.listen.Store(func(ctx context.Context, _ uint16) (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp4", "0.0.0.0:0")
	})
	for name, address := range map[string]string{"a": "127.0.0.2", "b": "127.0.0.3"} {
		w.pod("10.0.0."+address[8:]+":8080", asks(name))
		w.service(name, "10.0.0."+address[8:])
		w.apply(`
kind: Gateway
metadata: {name: ` + name + `}
spec:
  gatewayClassName: kaji
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
kind: HTTPRoute
metadata: {name: ` + name + `}
spec:
  parentRefs: [{name: ` + name + `}]
  rules: [{matches: [{path: {type: PathPrefix, value: /` + name + `}}], backendRefs: [{name: ` + name + `, port: 80}]}]
`)
		w.balances("gateway-"+name, address)
		until(t, "the status of Gateway "+name, func() bool {
			var g gatewayv1.Gateway
			w.read("gateways", name, &g)
			return said(g.Status.Conditions, "Programmed") == "Programmed=True:Programmed" && len(g.Status.Addresses) == 1 && g.Status.Addresses[0].Value == address
		})
	}
	_, port, err := net.SplitHostPort(w.at(false))
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]int{"127.0.0.2/a": 200, "127.0.0.3/b": 200, "127.0.0.2/b": 404, "127.0.0.3/a": 404, "127.0.0.1/a": 200, "127.0.0.1/b": 200} {
		address := "http://" + url[:9] + ":" + port + url[9:]
		until(t, address+" answers "+strconv.Itoa(want), func() bool {
			answer, err := http.Get(address)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			_, _ = io.Copy(io.Discard, answer.Body)
			return answer.StatusCode == want
		})
	}
	// The nodes that serve are the endpoints.
	until(t, "the endpoints", func() bool {
		slice, err := client.For[*discoveryv1.EndpointSlice](w.api).Get(t.Context(), "default", "gateway-a-v4")
		return err == nil && len(slice.Endpoints) == 1 && slice.Endpoints[0].Addresses[0] == "192.0.2.10" && *slice.Endpoints[0].NodeName == "n1" &&
			slice.Endpoints[0].Hints != nil && slice.Endpoints[0].Hints.ForNodes[0].Name == "n1" // each node keeps what its own pods ask
	})
}

// balances gives a Service the address, as a load balancer would.
func (w *world) balances(name, address string) {
	w.t.Helper()
	api := client.For[*corev1.Service](w.api)
	var s *corev1.Service
	until(w.t, "Service "+name, func() (ok bool) {
		var err error
		s, err = api.Get(w.t.Context(), "default", name)
		return err == nil
	})
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal || len(s.Spec.Ports) != 1 || s.Spec.Ports[0].NodePort != 0 {
		w.t.Errorf("Service %s: %+v", name, s.Spec)
	}
	if _, err := api.MergePatch(w.t.Context(), "default", name, map[string]any{"metadata": map[string]any{"annotations": map[string]string{"kaji.dev/load-balancer-pool": "test"}}}, ""); err != nil {
		w.t.Fatal(err)
	}
	if _, err := api.MergePatch(w.t.Context(), "default", name, map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": []map[string]string{{"ip": address}}}}}, "status"); err != nil {
		w.t.Fatal(err)
	}
}
