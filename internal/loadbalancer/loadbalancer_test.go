// SPDX-License-Identifier: Apache-2.0

package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/controller/servicelb"
	"kaji/internal/netfilter/nstest"
	"kaji/internal/proxy"
	"kaji/kajitest"
)

// office is a link with a client, outside the cluster, and nodes n1 and n2,
// each with a pod behind it.
type office struct {
	*testing.T
	api      client.Interface
	link     *nstest.Namespace
	client   *nstest.Namespace
	machines map[string]*nstest.Namespace
	stops    map[string]func()
}

const (
	vip  = "192.0.2.200"
	vip6 = "2001:db8::200"
)

func newOffice(t *testing.T) *office {
	api := kajitest.Start(t, kajitest.WithServer(func(c *apiserver.Config) { c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")} })).Client()
	o := &office{T: t, api: api, link: nstest.New(t), machines: map[string]*nstest.Namespace{}, stops: map[string]func(){}}
	o.link.Do(func() error {
		return errors.Join(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}), os.WriteFile("/proc/sys/net/ipv6/conf/br/disable_ipv6", []byte("1"), 0o644))
	})
	o.link.Do(func() error {
		br, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	})
	o.client = o.plug("client", "192.0.2.9", "2001:db8::9")
	for i, name := range []string{"n1", "n2"} {
		ns := o.plug(name, fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("2001:db8::%d", i+1))
		o.machines[name] = ns
		ns.Do(func() error {
			return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644), os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644))
		})
		pod := nstest.New(t)
		quick(ns, pod)
		ns.Connect("pod", fmt.Sprintf("10.244.%d.1/24", i+1), pod, "eth0", fmt.Sprintf("10.244.%d.2/24", i+1))
		ns.Address("pod", fmt.Sprintf("fd00:%d::1/64", i+1))
		pod.Address("eth0", fmt.Sprintf("fd00:%d::2/64", i+1))
		pod.Route("default", fmt.Sprintf("10.244.%d.1", i+1))
		pod.Route("::/0", fmt.Sprintf("fd00:%d::1", i+1))
		pod.Serve(":8080", "pod-"+name)
		o.node(name, fmt.Sprintf("192.0.2.%d", i+1))
	}
	return o
}

// quick makes IPv6 addresses usable at once.
func quick(all ...*nstest.Namespace) {
	for _, ns := range all {
		ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644) })
	}
}

// plug connects a new machine with the link.
func (o *office) plug(name, v4, v6 string) *nstest.Namespace {
	ns := nstest.New(o.T)
	quick(ns)
	o.link.Do(func() error {
		br, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: br.Attrs().Index, Flags: 1}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.FD())}
		return netlink.LinkAdd(port)
	})
	ns.Address("eth0", v4+"/24")
	ns.Address("eth0", v6+"/64")
	return ns
}

func create[T client.Object](o *office, obj T) T {
	o.Helper()
	made, err := client.For[T](o.api).Create(o.Context(), obj)
	if err != nil {
		o.Fatal(err)
	}
	return made
}

func status[T client.Object](o *office, obj T, status any) {
	o.Helper()
	if _, err := client.For[T](o.api).MergePatch(o.Context(), obj.GetNamespace(), obj.GetName(), map[string]any{"status": status}, "status"); err != nil {
		o.Fatal(err)
	}
}

func (o *office) node(name, ip string) {
	n := create(o, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	status(o, n, corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}})
}

// service has its addresses and endpoints on both nodes.
func (o *office) service(change func(*corev1.Service)) {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{PoolAnnotation: "test"}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}
	if change != nil {
		change(s)
	}
	s = create(o, s)
	for i, name := range []string{"n1", "n2"} {
		create(o, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-" + name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{fmt.Sprintf("10.244.%d.2", i+1)}, NodeName: ptr.To(name)}}})
	}
	status(o, s, map[string]any{"loadBalancer": map[string]any{"ingress": []map[string]string{{"ip": vip, "ipMode": "VIP"}, {"ip": vip6, "ipMode": "VIP"}}}})
}

// start runs a node's announcer and proxy.
func (o *office) start(name string) {
	p, err := proxy.New(proxy.Config{Client: o.api, NodeName: name, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, NetNS: o.machines[name].FD()})
	if err != nil {
		o.Fatal(err)
	}
	a := New(Config{Client: o.api, NodeName: name, NetNS: o.machines[name].FD()})
	ctx, cancel := context.WithCancel(context.WithoutCancel(o.Context()))
	done := make(chan error, 2)
	go func() { done <- p.Run(ctx) }()
	go func() { done <- a.Run(ctx) }()
	o.stops[name] = func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			o.Error(err)
		}
		delete(o.stops, name)
	}
}

func (o *office) stop() {
	for _, stop := range o.stops {
		stop()
	}
}

// known returns to whom the client sends what is for an address, asking nobody.
func (o *office) known(addr string) (mac string) {
	o.client.Do(func() error {
		all, err := netlink.NeighList(0, netlink.FAMILY_V4)
		for _, n := range all {
			if a, _ := netip.AddrFromSlice(n.IP); a.Unmap() == netip.MustParseAddr(addr) {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	})
	return mac
}

// mac returns who answers the client for an address, freshly asked.
func (o *office) mac(addr string) (mac string) {
	ip := netip.MustParseAddr(addr)
	o.client.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		// What was known is forgotten; a packet makes the kernel ask.
		_ = netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ip.AsSlice()})
		conn, err := net.Dial("udp", netip.AddrPortFrom(ip, 9).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, _ = conn.Write([]byte("?"))
		for deadline := time.Now().Add(time.Second); mac == "" && time.Now().Before(deadline); {
			all, err := netlink.NeighList(link.Attrs().Index, 0)
			if err != nil {
				return err
			}
			for _, n := range all {
				if a, _ := netip.AddrFromSlice(n.IP); a.Unmap() == ip && n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) == 0 {
					mac = n.HardwareAddr.String()
				}
			}
			<-time.After(10 * time.Millisecond)
		}
		return nil
	})
	return mac
}

func (o *office) macOf(name string) (mac string) {
	o.machines[name].Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			mac = link.Attrs().HardwareAddr.String()
		}
		return err
	})
	return mac
}

// answers waits until a node, and only it, answers for an address.
func (o *office) answers(name, addr string) {
	o.Helper()
	got := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if got = o.mac(addr); got == o.macOf(name) {
			return
		}
	}
	o.Fatalf("for %s %q answers, want %s", addr, got, name)
}

func (o *office) reaches(want func(name, client string) bool) {
	o.Helper()
	name, seen := "", ""
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if name, seen, err = o.client.Ask("tcp", vip+":80"); err == nil && want(name, seen) {
			return
		}
	}
	o.Fatalf("the client reached %q as %q, %v", name, seen, err)
}

// leader returns who is first for an address, and the other.
func leader(addr string) (first, second string) {
	a := netip.MustParseAddr(addr)
	if rank("n1", a) > rank("n2", a) {
		return "n1", "n2"
	}
	return "n2", "n1"
}

func TestOneNode(t *testing.T) {
	o := newOffice(t)
	if err := client.For[*corev1.Node](o.api).Delete(t.Context(), "", "n2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	o.start("n1")
	defer o.stop()
	o.service(nil)
	o.answers("n1", vip)
	o.answers("n1", vip6)
	o.reaches(func(name, _ string) bool { return name == "pod-n1" })
	for _, name := range []string{"n1", "n2"} {
		if err := client.For[*discoveryv1.EndpointSlice](o.api).Delete(t.Context(), "default", "web-"+name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; {
		_, _, err := o.client.Ask("tcp", vip+":80")
		if err != nil && strings.Contains(err.Error(), "refused") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("without endpoints the client got %v, want a refusal", err)
		}
	}
	if o.mac("192.0.2.201") != "" {
		t.Error("an address of no Service is answered for")
	}
	if err := client.For[*corev1.Service](o.api).Delete(t.Context(), "default", "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); o.mac(vip) != ""; {
		if time.Now().After(deadline) {
			t.Fatal("the address of a Service that is gone is answered for")
		}
	}
}

func TestFailover(t *testing.T) {
	o := newOffice(t)
	o.start("n1")
	o.start("n2")
	defer o.stop()
	o.service(func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal })
	for _, addr := range []string{vip, vip6} {
		first, second := leader(addr)
		o.answers(first, addr)
		o.stops[first]()
		o.answers(second, addr)
		if addr == vip { // the packets go on to the node's own pod, and the client is seen
			o.reaches(func(name, seen string) bool { return name == "pod-"+second && seen == "192.0.2.9" })
		}
		o.start(first)
		o.answers(first, addr)
	}
	// Without endpoints of its own a node leaves the address to others.
	first, second := leader(vip)
	if err := client.For[*discoveryv1.EndpointSlice](o.api).Delete(t.Context(), "default", "web-"+first, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	o.answers(second, vip)
	nodes := client.For[*corev1.Node](o.api)
	if _, err := nodes.MergePatch(t.Context(), "", second, map[string]any{"metadata": map[string]any{"labels": map[string]string{corev1.LabelNodeExcludeBalancers: ""}}}, ""); err != nil {
		t.Fatal(err)
	}
	o.reaches(func(name, _ string) bool { return name == "pod-"+second }) // still better than nobody
}

// A node that is gone without a word loses its addresses to the other, and gets
// them back when it is there again.
func TestNodeDies(t *testing.T) {
	o := newOffice(t)
	o.start("n1")
	o.start("n2")
	defer o.stop()
	o.service(func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal })
	first, second := leader(vip)
	o.answers(first, vip)
	cable := func(change func(netlink.Link) error) { // at its far end
		o.link.Do(func() error {
			link, err := netlink.LinkByName(first)
			if err != nil {
				return err
			}
			return change(link)
		})
	}
	cable(netlink.LinkSetDown)
	died := time.Now()
	o.answers(second, vip)
	o.reaches(func(name, _ string) bool { return name == "pod-"+second })
	t.Logf("%v after its node died, the address is served by another", time.Since(died).Round(10*time.Millisecond))
	cable(netlink.LinkSetUp)
	// It never ceased to answer, as it sees it, and yet tells the client.
	for deadline := time.Now().Add(time.Minute); o.known(vip) != o.macOf(first); {
		if time.Now().After(deadline) {
			t.Fatalf("the client still sends to %s", o.known(vip))
		}
		<-time.After(10 * time.Millisecond)
	}
	o.answers(first, vip)
}

// TestAnnotation: two packages that must not know one another agree.
func TestAnnotation(t *testing.T) {
	if PoolAnnotation != servicelb.PoolAnnotation {
		t.Errorf("the controller writes %s, the nodes read %s", servicelb.PoolAnnotation, PoolAnnotation)
	}
}
