// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

var node = Node{Name: "here", Zone: "a", IPv4: true, IPv6: true}

func service(change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080}},
	}}
	if change != nil {
		change(s)
	}
	return s
}

// end is an endpoint "10.1.0.n": its node, and what it says of itself.
func end(n int, nodeName string, change ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.1.0.%d", n)}, NodeName: &nodeName,
		Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)}}
	for _, c := range change {
		c(&e)
	}
	return e
}

func notReady(e *discoveryv1.Endpoint) {
	e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(false), Terminating: ptr.To(false)}
}

func draining(e *discoveryv1.Endpoint) {
	e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
}

func zone(z string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: z}}}
	}
}

func endpoints(all ...discoveryv1.Endpoint) []*discoveryv1.EndpointSlice {
	return []*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: all,
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(8080))}}}}
}

func frontend(addr string, port uint16) Frontend {
	return Frontend{netip.MustParseAddr(addr), corev1.ProtocolTCP, port}
}

func numbers(all []Backend) []int {
	out := []int{}
	for _, b := range all {
		out = append(out, int(b.Addr.As4()[3]))
	}
	return out
}

func TestBackendsOfAClusterIP(t *testing.T) {
	for name, c := range map[string]struct {
		svc  *corev1.Service
		ends []discoveryv1.Endpoint
		want []int
		drop bool
	}{
		"ready ones":                     {service(nil), []discoveryv1.Endpoint{end(1, "here"), end(2, "there", notReady), end(3, "there")}, []int{1, 3}, false},
		"draining ones if none is ready": {service(nil), []discoveryv1.Endpoint{end(1, "here", notReady), end(2, "there", draining)}, []int{2}, false},
		"not draining ones otherwise":    {service(nil), []discoveryv1.Endpoint{end(1, "here"), end(2, "there", draining)}, []int{1}, false},
		"published though not ready": {service(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }),
			[]discoveryv1.Endpoint{end(1, "here", notReady)}, []int{1}, false},
		"own zone":                     {service(nil), []discoveryv1.Endpoint{end(1, "here", zone("a")), end(2, "there", zone("b"))}, []int{1}, false},
		"all zones if one has no hint": {service(nil), []discoveryv1.Endpoint{end(1, "here", zone("a")), end(2, "there")}, []int{1, 2}, false},
		"all zones if none is the own": {service(nil), []discoveryv1.Endpoint{end(1, "there", zone("b")), end(2, "there", zone("c"))}, []int{1, 2}, false},
		"internal policy Local":        {service(internalLocal), []discoveryv1.Endpoint{end(1, "here"), end(2, "there")}, []int{1}, false},
		"internal policy Local, none":  {service(internalLocal), []discoveryv1.Endpoint{end(2, "there")}, []int{}, true},
		"no endpoints":                 {service(nil), nil, []int{}, false},
		"one endpoint in two places":   {service(nil), []discoveryv1.Endpoint{end(1, "here"), end(1, "here")}, []int{1}, false},
	} {
		got := Service(node, c.svc, endpoints(c.ends...))[frontend("10.96.0.10", 80)]
		if !slices.Equal(numbers(got.Backends), c.want) || got.Drop != c.drop {
			t.Errorf("%s: backends %v, drop %v; want %v, %v", name, numbers(got.Backends), got.Drop, c.want, c.drop)
		}
		for _, b := range got.Backends {
			if b.Port != 8080 {
				t.Errorf("%s: port %d, want the endpoint's", name, b.Port)
			}
		}
	}
}

func internalLocal(s *corev1.Service) {
	s.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
}

func TestFrontendsOfALoadBalancer(t *testing.T) {
	svc := service(func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.ExternalIPs = []string{"198.51.100.7"}
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24", "2001:db8::/32"}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
			{IP: "203.0.113.9"}, {IP: "203.0.113.10", IPMode: ptr.To(corev1.LoadBalancerIPModeProxy)}, {Hostname: "lb.example"}}
	})
	got := Service(node, svc, endpoints(end(1, "here"), end(2, "there")))
	if len(got) != 4 {
		t.Fatalf("%d frontends, want 4: %v", len(got), got)
	}
	for f, want := range map[Frontend]Target{
		frontend("10.96.0.10", 80):   {Masquerade: MasqueradeOutside},
		frontend("198.51.100.7", 80): {Masquerade: MasqueradeNone, PreferLocal: true},
		frontend("0.0.0.0", 30080):   {Masquerade: MasqueradeNone, PreferLocal: true},
		frontend("203.0.113.9", 80):  {Masquerade: MasqueradeNone, PreferLocal: true, Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
	} {
		g := got[f]
		if g.Masquerade != want.Masquerade || g.PreferLocal != want.PreferLocal || !slices.Equal(g.Sources, want.Sources) {
			t.Errorf("%v: %+v, want %+v", f, g, want)
		}
		if want.PreferLocal && !slices.Equal(numbers(g.Local), []int{1}) {
			t.Errorf("%v: local backends %v, want 1", f, numbers(g.Local))
		}
	}
}

func TestSourceRanges(t *testing.T) {
	for text, want := range map[string][]string{"192.0.2.0/24, 198.51.100.0/24": {"192.0.2.0/24", "198.51.100.0/24"}, " ": nil, "0.0.0.0/0": nil, "2001:db8::/32": {}} {
		svc := service(func(s *corev1.Service) {
			s.Annotations = map[string]string{corev1.AnnotationLoadBalancerSourceRangesKey: text}
		})
		got := sourceRanges(svc, false)
		if (got == nil) != (want == nil) || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("annotation %q: %v, want %v", text, got, want)
		}
		svc.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24"}
		if got := sourceRanges(svc, false); len(got) != 1 || got[0].String() != "203.0.113.0/24" {
			t.Errorf("field beside annotation %q: %v", text, got)
		}
	}
}

func TestServicesLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*corev1.Service){
		"headless": func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} },
		"external name": func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ServiceTypeExternalName, "", nil
		},
		"another proxy": func(s *corev1.Service) { s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "x"} },
	} {
		svc := service(change)
		svc.UID = types.UID(name)
		if got := Service(node, svc, endpoints(end(1, "here"))); len(got) != 0 {
			t.Errorf("%s: %v, want nothing", name, got)
		}
	}
}
