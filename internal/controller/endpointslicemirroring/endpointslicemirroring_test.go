// SPDX-License-Identifier: Apache-2.0

package endpointslicemirroring_test

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/endpointslicemirroring"
	"kaji/kajitest"
)

func TestHandMadeEndpointsAreMirrored(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{endpointslicemirroring.New(api, nil)}
	}
	bubble.RunAs(t, "endpointslicemirroring-controller", start, func(b *bubble.Bubble) {
		ctx, services, all := b.Context(), client.For[*corev1.Service](b.API), client.For[*corev1.Endpoints](b.API)
		mirrors := func(want int) []*discoveryv1.EndpointSlice {
			b.Helper()
			b.Settle()
			got := bubble.Must(client.For[*discoveryv1.EndpointSlice](b.API).List(ctx, "default", metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=svc"}))(b)
			if len(got) != want {
				b.Fatalf("%d slices, want %d", len(got), want)
			}
			return got
		}
		bubble.Must(services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc"},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}))(b)
		e := bubble.Must(all.Create(ctx, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc", Annotations: map[string]string{"a": "b"}},
			Subsets: []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: 80, Protocol: corev1.ProtocolTCP}},
				Addresses: []corev1.EndpointAddress{{IP: "192.0.2.7"}, {IP: "2001:db8::7"}}, NotReadyAddresses: []corev1.EndpointAddress{{IP: "192.0.2.8"}}}}}))(b)
		for _, s := range mirrors(2) {
			n := map[discoveryv1.AddressType]int{discoveryv1.AddressTypeIPv4: 2, discoveryv1.AddressTypeIPv6: 1}[s.AddressType]
			if len(s.Endpoints) != n || s.Annotations["a"] != "b" || s.OwnerReferences[0].Kind != "Endpoints" || s.GenerateName != "svc-" {
				b.Errorf("%s: %+v", s.AddressType, s)
			}
		}
		e = e.DeepCopy()
		e.Subsets[0].Addresses = e.Subsets[0].Addresses[:1]
		e.Subsets[0].Ports[0].Port = 81
		bubble.Must(all.Update(ctx, e))(b)
		if s := mirrors(1)[0]; *s.Ports[0].Port != 81 || len(s.Endpoints) != 2 {
			b.Errorf("changed: %+v", s)
		}
		bubble.Must(services.MergePatch(ctx, "default", "svc", map[string]any{"spec": map[string]any{"selector": map[string]string{"x": "y"}}}, ""))(b)
		mirrors(0)
	}, kajitest.WithServer(func(c *apiserver.Config) { c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")} }))
}
