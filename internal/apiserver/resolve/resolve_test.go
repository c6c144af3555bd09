// SPDX-License-Identifier: Apache-2.0

package resolve_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/api/catalog"
	"kaji/internal/api/kindtest"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/cache/cachetest"
	"kaji/internal/apiserver/resolve"
)

func TestResolveEndpoint(t *testing.T) {
	services, slices := kindtest.Find(t, catalog.Current(), "Service"), kindtest.Find(t, catalog.Current(), "EndpointSlice")
	b := cachetest.Start(t, cache.Config{}, services, slices)
	meta := metav1.ObjectMeta{Namespace: "default", Name: "hook"}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.9", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		Ports: []corev1.ServicePort{{Name: "https", Port: 443}},
	}}
	b.Put(services, service)
	for _, at := range []struct {
		address string
		ready   bool
	}{{"10.244.0.7", false}, {"10.244.0.8", true}} {
		slice := &discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}, ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
			Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To[int32](8443)}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{at.address}, Conditions: discoveryv1.EndpointConditions{Ready: &at.ready}}}}
		slice.Name, slice.Labels = "hook-"+at.address, map[string]string{discoveryv1.LabelServiceName: "hook"}
		b.Put(slices, slice)
	}
	byIP, byEndpoint := &resolve.Services{Cache: b.Cache, Kind: services}, &resolve.Services{Cache: b.Cache, Kind: services, Slices: slices}
	for _, c := range []struct {
		name     string
		services *resolve.Services
		service  string
		port     int32
		want     string // the URL, or what the error says
	}{
		{"cluster IP", byIP, "hook", 443, "https://10.96.0.9:443"},
		{"cluster IP, another port", byIP, "hook", 80, `no service port 80 found for service "hook"`},
		{"endpoint", byEndpoint, "hook", 443, "https://10.244.0.8:8443"},
		{"endpoint, another port", byEndpoint, "hook", 80, `no service port 80 found for service "hook"`},
		{"no Service", byEndpoint, "none", 443, `"none" not found`},
	} {
		got, err := c.services.ResolveEndpoint("default", c.service, c.port)
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && got.String() != c.want {
			t.Errorf("%s: got %v, %v, want %s", c.name, got, err, c.want)
		}
	}
	b.Delete(slices, "default", "hook-10.244.0.8")
	if _, err := byEndpoint.ResolveEndpoint("default", "hook", 443); err == nil || !strings.Contains(err.Error(), `no endpoints available for service "hook"`) {
		t.Errorf("nothing is ready: %v", err)
	}
}
