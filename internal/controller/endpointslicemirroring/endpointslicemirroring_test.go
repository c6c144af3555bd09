// SPDX-License-Identifier: Apache-2.0

package endpointslicemirroring_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

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
		return []bubble.Controller{endpointslicemirroring.New(endpointslicemirroring.Config{Client: api})}
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

// As many addresses of a subset are mirrored as are allowed, and not before changes
// have waited for others.
func TestLimits(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{endpointslicemirroring.New(endpointslicemirroring.Config{Client: api, Max: 2, Batch: time.Minute})}
	}
	bubble.RunAs(t, "endpointslicemirroring-controller", start, func(b *bubble.Bubble) {
		bubble.Must(client.For[*corev1.Service](b.API).Create(b.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc"},
			Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}}}))(b)
		b.Settle()
		bubble.Must(client.For[*corev1.Endpoints](b.API).Create(b.Context(), &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc"},
			Subsets: []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: 80}}, Addresses: []corev1.EndpointAddress{{IP: "192.0.2.7"}, {IP: "192.0.2.8"}, {IP: "192.0.2.9"}}}}}))(b)
		mirrored := func() (n int) {
			for _, s := range bubble.Must(client.For[*discoveryv1.EndpointSlice](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b) {
				n += len(s.Endpoints)
			}
			return n
		}
		b.Wait(50 * time.Second)
		if n := mirrored(); n != 0 {
			b.Errorf("%d addresses at once", n)
		}
		b.Wait(20 * time.Second)
		if n := mirrored(); n != 2 {
			b.Errorf("%d addresses, want 2", n)
		}
		if events := bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b); !slices.ContainsFunc(events, func(e *corev1.Event) bool {
			return e.Reason == "TooManyAddressesToMirror" && e.Message == "A max of 2 addresses can be mirrored to EndpointSlices per Endpoints subset. 1 addresses were skipped"
		}) {
			b.Error("nobody is told of the third")
		}
	})
}

// An address of several subsets is what the first of them says.
func TestAddressOfSeveralSubsets(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{endpointslicemirroring.New(endpointslicemirroring.Config{Client: api})}
	}
	bubble.RunAs(t, "endpointslicemirroring-controller", start, func(b *bubble.Bubble) {
		bubble.Must(client.For[*corev1.Service](b.API).Create(b.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc"},
			Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}}}))(b)
		bubble.Must(client.For[*corev1.Endpoints](b.API).Create(b.Context(), &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc"}, Subsets: []corev1.EndpointSubset{
			{Ports: []corev1.EndpointPort{{Port: 80}}, Addresses: []corev1.EndpointAddress{{IP: "192.0.2.7", Hostname: "h"}}},
			{Ports: []corev1.EndpointPort{{Port: 90, Name: "x"}}, Addresses: []corev1.EndpointAddress{{IP: "192.0.2.7"}}}}}))(b)
		b.Settle()
		named := 0
		for _, s := range bubble.Must(client.For[*discoveryv1.EndpointSlice](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b) {
			for _, e := range s.Endpoints {
				if e.Hostname != nil && *e.Hostname == "h" {
					named++
				}
			}
		}
		if named != 2 {
			b.Errorf("%d endpoints are named, want 2", named)
		}
	})
}
