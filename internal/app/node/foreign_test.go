// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/cni/mesh"
	"kaji/internal/cni/nodenet"
	"kaji/internal/cni/veth"
	"kaji/internal/loadbalancer"
	"kaji/internal/netfilter/nstest"
	"kaji/internal/podnet"
	"kaji/internal/policy"
	"kaji/internal/proxy"
	"kaji/kajitest"
)

// place is a machine with rules of others, and a cluster's API.
type place struct {
	*testing.T
	machine *nstest.Namespace
	api     client.Interface
	foreign *nstest.Foreign
}

var podRanges = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}

func newPlace(t *testing.T) *place {
	api := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) {
		c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}
	})).Client()
	p := &place{T: t, machine: nstest.New(t), api: api}
	outside := nstest.New(t)
	p.machine.Connect("uplink", "192.0.2.10/24", outside, "machine", "192.0.2.1/24")
	p.machine.Route("default", "192.0.2.1")
	create(p, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}, Spec: corev1.NodeSpec{PodCIDR: podRanges[0].String(), PodCIDRs: []string{podRanges[0].String(), podRanges[1].String()}}})
	other := create(p, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "there"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.2.0/24", PodCIDRs: []string{"10.244.2.0/24", "fd00:10:244:2::/64"}}})
	status(p, other, corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.11"}}})
	p.foreign = p.machine.Foreign()
	return p
}

func create[T client.Object](p *place, o T) T {
	p.Helper()
	made, err := client.For[T](p.api).Create(p.Context(), o)
	if err != nil {
		p.Fatal(err)
	}
	return made
}

func status[T client.Object](p *place, o T, to any) {
	p.Helper()
	if _, err := client.For[T](p.api).MergePatch(p.Context(), o.GetNamespace(), o.GetName(), map[string]any{"status": to}, "status"); err != nil {
		p.Fatal(err)
	}
}

// run runs parts of a node in the machine's namespace; stop ends them.
func (p *place) run() (stop func()) {
	p.Helper()
	service, err := proxy.New(proxy.Config{Client: p.api, NodeName: "here", PodCIDRs: podRanges, IPv4: true, IPv6: true, LocalhostNodePorts: true,
		Tracking: proxy.DefaultTracking(), NetNS: p.machine.FD()})
	if err != nil {
		p.Fatal(err)
	}
	policies, err := policy.New(policy.Config{Client: p.api, NodeName: "here", IPv4: true, IPv6: true, NetNS: p.machine.FD()})
	if err != nil {
		p.Fatal(err)
	}
	balancer := loadbalancer.New(loadbalancer.Config{Client: p.api, NodeName: "here", NetNS: p.machine.FD()})
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.Context()))
	parts := []func(context.Context) error{service.Run, policies.Run, balancer.Run}
	done := make(chan error, len(parts))
	for _, part := range parts {
		go func() { done <- part(ctx) }()
	}
	return func() {
		cancel()
		for range parts {
			if err := <-done; err != nil {
				p.Error(err)
			}
		}
	}
}

// becomes waits until something is as wanted.
func (p *place) becomes(what string, want func() error) {
	p.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if err = want(); err == nil {
			p.foreign.Unchanged(what)
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	p.Fatalf("%s: %v", what, err)
}

// reaches waits until the machine reaches a pod at an address, or nobody.
func (p *place) reaches(address, want string) {
	p.Helper()
	p.becomes(fmt.Sprintf("%q at %s", want, address), func() error {
		name, _, err := p.machine.Ask("tcp", address)
		if name != want {
			return fmt.Errorf("reached %q, %w", name, err)
		}
		return nil
	})
}

// Rules of others stay as they are, byte for byte, while those of kaji come,
// change, stay over a restart and go.
func TestRulesOfOthers(t *testing.T) {
	p := newPlace(t)
	pods := veth.New(veth.Config{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
	p.machine.Do(func() error { return pods.SetPodCIDRs(t.Context(), podRanges) })
	p.foreign.Unchanged("the pod network opens")
	inside := nstest.New(t)
	box := podnet.Sandbox{ID: "web", Namespace: "default", Name: "web", Netns: inside.Path, Ports: []podnet.PortMapping{{Protocol: "TCP", HostPort: 8080, ContainerPort: 80}}}
	var ips []netip.Addr
	p.machine.Do(func() error {
		r, err := pods.Setup(t.Context(), box)
		if err == nil {
			ips = r.IPs
		}
		return err
	})
	inside.Serve(":80", "web")
	p.reaches("192.0.2.10:8080", "web")

	stop := p.run()
	svc := create(p, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{loadbalancer.PoolAnnotation: "test"}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyRequireDualStack), SessionAffinity: corev1.ServiceAffinityClientIP,
			Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}, LoadBalancerSourceRanges: []string{"192.0.2.0/24", "2001:db8::/32"}}})
	status(p, svc, map[string]any{"loadBalancer": map[string]any{"ingress": []map[string]string{{"ip": "192.0.2.200", "ipMode": "VIP"}}}})
	for kind, ip := range map[discoveryv1.AddressType]netip.Addr{discoveryv1.AddressTypeIPv4: ips[0], discoveryv1.AddressTypeIPv6: ips[1]} {
		create(p, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-" + map[bool]string{true: "6", false: "4"}[ip.Is6()], Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: kind, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To(int32(80)), Protocol: ptr.To(corev1.ProtocolTCP)}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{ip.String()}, NodeName: ptr.To("here")}}})
	}
	p.reaches(svc.Spec.ClusterIP+":80", "web")
	p.reaches("192.0.2.200:80", "web")
	p.reaches("127.0.0.1:30080", "web")

	pod := create(p, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	status(p, pod, map[string]any{"phase": "Running", "podIP": ips[0].String(), "podIPs": []map[string]any{{"ip": ips[0].String()}, {"ip": ips[1].String()}}})
	create(p, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "none"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}}})
	p.becomes("the policy", func() error { return p.has("kaji-policy", true) })
	if _, err := client.For[*corev1.Service](p.api).MergePatch(t.Context(), "default", "web", map[string]any{"spec": map[string]any{"sessionAffinity": "None", "loadBalancerSourceRanges": nil}}, ""); err != nil {
		t.Fatal(err)
	}
	if err := client.For[*discoveryv1.EndpointSlice](p.api).Delete(t.Context(), "default", "web-4", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.reaches(svc.Spec.ClusterIP+":80", "")
	stop()
	p.foreign.Unchanged("the node stops")
	stop = p.run()
	p.reaches("192.0.2.10:8080", "web")
	if err := client.For[*corev1.Service](p.api).Delete(t.Context(), "default", "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.reaches("127.0.0.1:30080", "")

	p.ways()
	p.nodes()
	stop()
	p.machine.Do(func() error { return pods.Teardown(t.Context(), box) })
	p.machine.Do(func() error { return errors.Join(proxy.Cleanup(), policy.Cleanup(), mesh.Cleanup(), pods.Remove()) })
	p.foreign.Unchanged("all is removed")
	for _, table := range []string{"kaji-proxy", "kaji-policy", "kaji-pods"} {
		if err := p.has(table, false); err != nil {
			t.Error(err)
		}
	}
}

// has says whether a table of the family ip is there.
func (p *place) has(table string, want bool) error {
	got := slices.Contains(p.machine.Tables(), table)
	if got != want {
		return fmt.Errorf("table %s is there: %v", table, got)
	}
	return nil
}

// ways keeps routes to other nodes beside a route of another.
func (p *place) ways() {
	p.machine.Route("198.51.100.0/24", "192.0.2.77")
	ours := func() (n int) {
		p.machine.Do(func() error {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
			for _, r := range routes {
				if r.Dst != nil && r.Dst.String() == "10.244.2.0/24" {
					n++
				}
				if r.Dst != nil && r.Dst.String() == "198.51.100.0/24" {
					n += 10
				}
			}
			return err
		})
		return n
	}
	m := mesh.New(mesh.Config{Client: p.api, NodeName: "here"})
	ctx, cancel := context.WithCancel(p.Context())
	done := make(chan error, 1)
	go p.machine.Do(func() error { done <- m.Run(ctx); return nil })
	p.becomes("the way to the other node", func() error {
		if n := ours(); n != 11 {
			return fmt.Errorf("%d routes", n)
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		p.Error(err)
	}
	p.machine.Do(mesh.Cleanup)
	if n := ours(); n != 10 {
		p.Errorf("after the end: %d routes", n)
	}
}

// nodes makes nodes on this machine and takes them away.
func (p *place) nodes() {
	net := nodenet.Network{Cluster: fmt.Sprint("others", os.Getpid()), Subnet: netip.MustParsePrefix("100.127.0.0/24")}
	p.Cleanup(func() { p.machine.Do(net.Close) })
	p.machine.Do(func() error { return errors.Join(net.Open(), net.Add("b", 2)) })
	p.foreign.Unchanged("nodes open")
	p.machine.Do(net.Close)
	p.foreign.Unchanged("nodes close")
}
