// SPDX-License-Identifier: Apache-2.0

package endpointslice_test

import (
	"net/netip"

	"context"
	"fmt"
	stdslices "slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/endpointslice"
	"kaji/kajitest"
)

func TestAServiceHasSlicesOfItsPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		api := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
			c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
		})).Client()
		c := endpointslice.New(endpointslice.Config{Client: api})
		api.Start(ctx)
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		defer func() { cancel(); <-done }()
		settle := func() { <-time.After(time.Second); synctest.Wait() }
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		labels := map[string]string{"app": "web"}
		pods, slices := client.For[*corev1.Pod](api), client.For[*discoveryv1.EndpointSlice](api)
		must(client.For[*corev1.Node](api).Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}}))
		must(client.For[*corev1.Service](api).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, Selector: labels,
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("web")}}}}))
		settle()
		list := func(want int) []*discoveryv1.EndpointSlice {
			t.Helper()
			settle()
			all, err := slices.List(ctx, "default", metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
			must(nil, err)
			all = stdslices.DeleteFunc(all, func(s *discoveryv1.EndpointSlice) bool { return s.AddressType != discoveryv1.AddressTypeIPv4 })
			if len(all) != want {
				t.Fatalf("%d slices, want %d", len(all), want)
			}
			return all
		}
		if s := list(1)[0]; len(s.Endpoints) != 0 || s.GenerateName != "web-" || len(s.OwnerReferences) != 1 {
			t.Errorf("without pods: %+v", s)
		}
		const many = 101
		for i := range many {
			pod, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%03d", i), Labels: labels},
				Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "a", Image: "a",
					Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}}})
			must(pod, err)
			pod = pod.DeepCopy()
			pod.Status.Phase, pod.Status.PodIP = corev1.PodRunning, fmt.Sprintf("10.0.0.%d", i+1)
			pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
			if i > 0 {
				pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			}
			must(pods.UpdateStatus(ctx, pod))
		}
		total, ready := 0, 0
		for _, s := range list(2) {
			if len(s.Endpoints) > 100 || len(s.Ports) != 1 || *s.Ports[0].Port != 8080 {
				t.Errorf("%s: %d endpoints, ports %v", s.Name, len(s.Endpoints), s.Ports)
			}
			if _, ok := s.Labels[corev1.IsHeadlessService]; !ok {
				t.Errorf("%s is not labelled headless", s.Name)
			}
			for _, e := range s.Endpoints {
				total++
				if *e.Conditions.Ready {
					ready++
				}
				if *e.NodeName != "n" || *e.Zone != "z" || e.TargetRef.Kind != "Pod" {
					t.Errorf("endpoint %+v", e)
				}
			}
		}
		if total != many || ready != many-1 {
			t.Errorf("%d endpoints, %d ready", total, ready)
		}
	})
}

// bench is a cluster with the nodes n (zone a) and m (zone b), and a Service
// "web" of both families.
type bench struct {
	*bubble.Bubble
	pods     client.Typed[*corev1.Pod]
	services client.Typed[*corev1.Service]
}

func run(t *testing.T, test func(b *bench)) { runWith(t, endpointslice.Config{Max: 3}, test) }

func runWith(t *testing.T, c endpointslice.Config, test func(b *bench)) {
	start := func(api client.Interface) []bubble.Controller {
		c.Client = api
		return []bubble.Controller{endpointslice.New(c)}
	}
	bubble.RunAs(t, "endpointslice-controller", start, func(bb *bubble.Bubble) {
		for name, zone := range map[string]string{"n": "a", "m": "b"} {
			bubble.Must(client.For[*corev1.Node](bb.API).Create(bb.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}},
				Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}))(bb)
		}
		b := &bench{bb, client.For[*corev1.Pod](bb.API), client.For[*corev1.Service](bb.API)}
		b.service()
		test(b)
	}, kajitest.WithServer(func(c *apiserver.Config) {
		c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/24"), netip.MustParsePrefix("fd00::/112")}
	}))
}

func (b *bench) service() {
	b.Helper()
	both := corev1.IPFamilyPolicyRequireDualStack
	bubble.Must(b.services.Create(b.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, IPFamilyPolicy: &both, Ports: []corev1.ServicePort{{Port: 80}}}}))(b.Bubble)
	b.Settle()
}

func (b *bench) pod(name, node string, number int) {
	b.Helper()
	pod := bubble.Must(b.pods.Create(b.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}, Finalizers: []string{"x.example.com/y"}},
		Spec: corev1.PodSpec{NodeName: node, Hostname: "h", Subdomain: "web", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}))(b.Bubble).DeepCopy()
	four, six := fmt.Sprintf("10.0.0.%d", number), fmt.Sprintf("fd01::%d", number)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: four, PodIPs: []corev1.PodIP{{IP: four}, {IP: six}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}}
	bubble.Must(b.pods.UpdateStatus(b.Context(), pod))(b.Bubble)
	b.Settle()
}

// endpoints are those of all slices of a family, by pod.
func (b *bench) endpoints(family discoveryv1.AddressType) (out map[string]discoveryv1.Endpoint, slices int) {
	b.Helper()
	out = map[string]discoveryv1.Endpoint{}
	for _, s := range bubble.Must(client.For[*discoveryv1.EndpointSlice](b.API).List(b.Context(), "default", metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"}))(b.Bubble) {
		if s.AddressType != family {
			continue
		}
		slices++
		for _, e := range s.Endpoints {
			out[e.TargetRef.Name] = e
		}
	}
	return out, slices
}

func (b *bench) event(reason, message string) bool {
	b.Helper()
	for _, e := range bubble.Must(client.For[*corev1.Event](b.API).List(b.Context(), "default", metav1.ListOptions{}))(b.Bubble) {
		if e.Reason == reason && e.Message == message && e.Source.Component == "endpoint-slice-controller" {
			return true
		}
	}
	return false
}

func TestBothFamiliesAndPodsThatEnd(t *testing.T) {
	run(t, func(b *bench) {
		for i, node := range []string{"n", "m", "n", "m"} {
			b.pod(fmt.Sprintf("p%d", i), node, i+1)
		}
		for family, address := range map[discoveryv1.AddressType]string{discoveryv1.AddressTypeIPv4: "10.0.0.1", discoveryv1.AddressTypeIPv6: "fd01::1"} {
			got, slices := b.endpoints(family)
			if e := got["p0"]; len(got) != 4 || slices != 2 || e.Addresses[0] != address || *e.Hostname != "h" || *e.Zone != "a" || !*e.Conditions.Ready || e.Hints != nil {
				b.Errorf("%s: %d endpoints in %d slices, one is %+v", family, len(got), slices, e)
			}
		}
		if err := b.pods.Delete(b.Context(), "default", "p0", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		got, _ := b.endpoints(discoveryv1.AddressTypeIPv4)
		if c := got["p0"].Conditions; *c.Ready || !*c.Serving || !*c.Terminating {
			b.Errorf("a pod that ends is %+v", c)
		}
		b.pod("lost", "nowhere", 9)
		if got, _ := b.endpoints(discoveryv1.AddressTypeIPv4); got["lost"].TargetRef != nil {
			b.Error("a pod of a node that is not there has an endpoint")
		}
		if !b.event("FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Service default/web: skipping Pod lost for Service default/web: Node nowhere Not Found") {
			b.Error("nobody is told of the pod that is left out")
		}
	})
}

func TestHints(t *testing.T) {
	run(t, func(b *bench) {
		for i, node := range []string{"n", "m", "n", "m"} {
			b.pod(fmt.Sprintf("p%d", i), node, i+1)
		}
		set := func(patch map[string]any) map[string]discoveryv1.Endpoint {
			b.Helper()
			bubble.Must(b.services.MergePatch(b.Context(), "default", "web", patch, ""))(b.Bubble)
			b.Settle()
			got, _ := b.endpoints(discoveryv1.AddressTypeIPv4)
			return got
		}
		distribution := func(value any) map[string]discoveryv1.Endpoint {
			b.Helper()
			return set(map[string]any{"spec": map[string]any{"trafficDistribution": value}})
		}
		for _, value := range []string{"PreferSameZone", "PreferClose"} {
			if h := distribution(value)["p1"].Hints; h == nil || len(h.ForZones) != 1 || h.ForZones[0].Name != "b" || h.ForNodes != nil {
				b.Errorf("%s: hints %v", value, h)
			}
		}
		if h := distribution("PreferSameNode")["p1"].Hints; h == nil || len(h.ForNodes) != 1 || h.ForNodes[0].Name != "m" || len(h.ForZones) != 1 {
			b.Errorf("same node: hints %v", h)
		}
		if h := distribution(nil)["p1"].Hints; h != nil {
			b.Errorf("without distribution: hints %v", h)
		}
		mode := func(value any) map[string]discoveryv1.Endpoint {
			b.Helper()
			return set(map[string]any{"metadata": map[string]any{"annotations": map[string]any{"service.kubernetes.io/topology-mode": value}}})
		}
		got := mode("Auto")
		for name, zone := range map[string]string{"p0": "a", "p1": "b", "p2": "a", "p3": "b"} {
			if h := got[name].Hints; h == nil || len(h.ForZones) != 1 || h.ForZones[0].Name != zone {
				b.Errorf("spread: %s has hints %v", name, h)
			}
		}
		if !b.event("TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled, addressType: IPv4") {
			b.Error("nobody is told that the traffic spreads")
		}
		if h := mode(nil)["p0"].Hints; h != nil {
			b.Errorf("no more spread: hints %v", h)
		}
	})
}

func TestSlicesOfAFormerService(t *testing.T) {
	run(t, func(b *bench) {
		b.pod("p", "n", 1)
		if err := b.services.Delete(b.Context(), "default", "web", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		b.service()
		svc := bubble.Must(b.services.Get(b.Context(), "default", "web"))(b.Bubble)
		all := bubble.Must(client.For[*discoveryv1.EndpointSlice](b.API).List(b.Context(), "default", metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"}))(b.Bubble)
		for _, s := range all {
			if s.OwnerReferences[0].UID != svc.UID {
				b.Errorf("%s is of the former Service", s.Name)
			}
		}
		if got, slices := b.endpoints(discoveryv1.AddressTypeIPv4); len(got) != 1 || slices != 1 {
			b.Errorf("%d endpoints in %d slices", len(got), slices)
		}
	})
}

// Several ports are in the order that upstream gives them, by their hashes.
func TestOrderOfPorts(t *testing.T) {
	run(t, func(b *bench) {
		app := "x.io/dns"
		bubble.Must(b.services.Create(b.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "ports"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "a", Port: 80, TargetPort: intstr.FromInt32(8080)},
				{Name: "b", Port: 81, TargetPort: intstr.FromInt32(9)}, {Name: "u", Port: 53, Protocol: corev1.ProtocolUDP, AppProtocol: &app}}}}))(b.Bubble)
		b.pod("p", "n", 1)
		for _, s := range bubble.Must(client.For[*discoveryv1.EndpointSlice](b.API).List(b.Context(), "default", metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=ports"}))(b.Bubble) {
			var names []string
			for _, p := range s.Ports {
				names = append(names, *p.Name)
			}
			if len(s.Endpoints) != 1 || !stdslices.Equal(names, []string{"a", "u", "b"}) {
				b.Errorf("%d endpoints with ports %v", len(s.Endpoints), names)
			}
		}
	})
}

// Changes of pods wait for others as long as they are told to.
func TestBatch(t *testing.T) {
	runWith(t, endpointslice.Config{Batch: time.Minute}, func(b *bench) {
		b.pod("p", "n", 1)
		b.Wait(30 * time.Second)
		if got, _ := b.endpoints(discoveryv1.AddressTypeIPv4); len(got) != 0 {
			b.Errorf("%v at once", got)
		}
		b.Wait(time.Minute)
		if got, _ := b.endpoints(discoveryv1.AddressTypeIPv4); len(got) != 1 {
			b.Errorf("%v after a while", got)
		}
	})
}
