// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"kaji/internal/netfilter"
	"kaji/internal/netfilter/nstest"
	"kaji/internal/podnet"
)

// node is a namespace that plays a machine, with an uplink to the world.
type node struct {
	t     *testing.T
	ns    *nstest.Namespace
	world *nstest.Namespace
}

func newNode(t *testing.T) *node {
	n := &node{t: t, ns: nstest.New(t), world: nstest.New(t)}
	n.ns.Connect("uplink", "192.0.2.10/24", n.world, "node", "192.0.2.1/24")
	n.ns.Route("default", "192.0.2.1")
	return n
}

// network starts the pod network as a process would, over what is there.
func (n *node) network(cidrs ...string) *Network {
	n.t.Helper()
	net := New(Config{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
	var prefixes []netip.Prefix
	for _, c := range cidrs {
		prefixes = append(prefixes, netip.MustParsePrefix(c))
	}
	n.ns.Do(func() error { return net.SetPodCIDRs(context.Background(), prefixes) })
	return net
}

// pod connects a sandbox.
func (n *node) pod(net *Network, id string, ports ...podnet.PortMapping) (*nstest.Namespace, []netip.Addr) {
	n.t.Helper()
	ns := nstest.New(n.t)
	var r *podnet.Result
	n.ns.Do(func() (err error) {
		r, err = net.Setup(context.Background(), podnet.Sandbox{ID: id, Namespace: "default", Name: id, Netns: ns.Path, Ports: ports})
		return err
	})
	return ns, r.IPs
}

func TestPodsReachEachOtherAndTheWorld(t *testing.T) {
	n := newNode(t)
	net := n.network("10.244.1.0/24", "fd00:10:244:1::/64")
	a, aIP := n.pod(net, "a")
	b, bIP := n.pod(net, "b")
	if want := []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00:10:244:1::2")}; aIP[0] != want[0] || aIP[1] != want[1] {
		t.Fatalf("addresses of a: %v, want %v", aIP, want)
	}
	a.Serve(":80", "a")
	n.world.Serve("192.0.2.1:80", "world")
	a.MustReach("tcp", "127.0.0.1:80", "a 127.0.0.1")
	b.MustReach("tcp", "10.244.1.2:80", "a "+bIP[0].String())
	b.MustReach("tcp", "[fd00:10:244:1::2]:80", "a "+bIP[1].String())
	n.ns.MustReach("tcp", "10.244.1.2:80", "a 10.244.1.1")
	b.MustReach("tcp", "192.0.2.1:80", "world 192.0.2.10")
}

func TestHostPorts(t *testing.T) {
	n := newNode(t)
	net := n.network("10.244.1.0/24")
	web, ips := n.pod(net, "web",
		podnet.PortMapping{Protocol: "TCP", HostPort: 8080, ContainerPort: 80},
		podnet.PortMapping{Protocol: "TCP", HostIP: "127.0.0.1", HostPort: 8081, ContainerPort: 80})
	other, _ := n.pod(net, "other")
	web.Serve(":80", "web")
	n.world.MustReach("tcp", "192.0.2.10:8080", "web 192.0.2.1")
	n.ns.MustReach("tcp", "192.0.2.10:8080", "web 192.0.2.10")
	other.MustReach("tcp", "192.0.2.10:8080", "web 10.244.1.3")
	web.MustReach("tcp", "192.0.2.10:8080", "web 10.244.1.1") // hairpin
	n.ns.MustReach("tcp", "127.0.0.1:8080", "web 10.244.1.1")
	n.ns.MustReach("tcp", "127.0.0.1:8081", "web 10.244.1.1")
	n.world.MustNotReach("tcp", "192.0.2.10:8081")

	// A pod must not reach the host's loopback services.
	n.ns.Serve("127.0.0.1:9000", "secret")
	other.Do(func() error {
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if err := netlink.AddrDel(lo, &a); err != nil {
				return err
			}
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: single(netip.MustParseAddr("127.0.0.1")), Gw: []byte{10, 244, 1, 1}})
	})
	other.MustNotReach("tcp", "127.0.0.1:9000")

	// Published ports outlive the process and go with the pod.
	net = n.network("10.244.1.0/24")
	n.world.MustReach("tcp", "192.0.2.10:8080", "web 192.0.2.1")
	n.ns.Do(func() error { return net.Teardown(context.Background(), podnet.Sandbox{ID: "web", Netns: web.Path}) })
	n.world.MustNotReach("tcp", "192.0.2.10:8080")
	n.ns.Do(func() error {
		r := net.tables[false]
		for _, set := range []*nftables.Set{r.hostPorts, r.hostAddressPorts, r.hairpin} {
			left, err := r.conn.GetSetElements(set)
			if err != nil {
				return err
			}
			if len(left) > 0 {
				t.Errorf("%s still holds %d elements of %s", set.Name, len(left), ips[0])
			}
		}
		return nil
	})
}

// TestRulesAreGone lets a pod go whose rules somebody has removed, with all others
// of the machine.
func TestRulesAreGone(t *testing.T) {
	n := newNode(t)
	net := n.network("10.244.1.0/24")
	web, _ := n.pod(net, "web", podnet.PortMapping{Protocol: "TCP", HostPort: 8080, ContainerPort: 80})
	n.ns.Do(removeRules)
	n.ns.Do(func() error { return net.Teardown(context.Background(), podnet.Sandbox{ID: "web", Netns: web.Path}) })
}

func TestAddressesOutliveTheProcess(t *testing.T) {
	n := newNode(t)
	first := n.network("10.244.1.0/24")
	_, ips := n.pod(first, "a")
	second := n.network("10.244.1.0/24")
	_, others := n.pod(second, "b")
	if ips[0] == others[0] {
		t.Fatalf("%s was given to two pods", ips[0])
	}
	n.ns.Do(func() error {
		r, err := second.Check(context.Background(), podnet.Sandbox{ID: "a"})
		if err == nil && r.IPs[0] != ips[0] {
			t.Errorf("a has %v, want %v", r.IPs, ips)
		}
		return err
	})
	for range 2 { // a repeated teardown is no error
		n.ns.Do(func() error { return second.Teardown(context.Background(), podnet.Sandbox{ID: "a"}) })
	}
	n.ns.Do(func() error {
		if _, err := second.Check(context.Background(), podnet.Sandbox{ID: "a"}); err == nil {
			t.Error("a is still connected")
		}
		return second.Remove()
	})
	n.ns.Do(func() error {
		links, err := ownLinks()
		if len(links) > 0 {
			t.Errorf("Remove left %d links", len(links))
		}
		conn, e := netfilter.Open(0)
		if e != nil {
			return e
		}
		tables, e := conn.ListTables()
		if len(tables) > 0 {
			t.Errorf("Remove left table %s", tables[0].Name)
		}
		return errors.Join(err, e)
	})
}

func TestFailedSetupLeavesNothing(t *testing.T) {
	n := newNode(t)
	net := n.network("10.244.1.0/30")
	pod := podnet.Sandbox{ID: "x", Namespace: "default", Name: "x", Netns: "/run/netns/absent"}
	for range 3 {
		n.ns.Do(func() error {
			if _, err := net.Setup(context.Background(), pod); err == nil {
				t.Error("a sandbox without namespace was connected")
			}
			return nil
		})
	}
	_, _ = n.pod(net, "a")
	b := nstest.New(t)
	n.ns.Do(func() error {
		_, err := net.Setup(context.Background(), podnet.Sandbox{ID: "b", Netns: b.Path})
		if err == nil || err.Error() != "all 1 addresses of pod CIDR 10.244.1.0/30 are in use" {
			t.Errorf("got %v", err)
		}
		return nil
	})
}

func TestBandwidth(t *testing.T) {
	n := newNode(t)
	net := n.network("10.244.1.0/24")
	ns := nstest.New(t)
	n.ns.Do(func() error {
		_, err := net.Setup(context.Background(), podnet.Sandbox{ID: "slow", Netns: ns.Path, IngressBandwidth: 8_000_000, EgressBandwidth: 16_000_000})
		return err
	})
	rate := func(link string) func() error {
		return func() error {
			l, err := netlink.LinkByName(link)
			if err != nil {
				return err
			}
			qdiscs, err := netlink.QdiscList(l)
			if err != nil {
				return err
			}
			for _, q := range qdiscs {
				if tbf, ok := q.(*netlink.Tbf); ok {
					want := map[string]uint64{"eth0": 2_000_000, LinkName(podnet.Sandbox{ID: "slow"}): 1_000_000}[link]
					if tbf.Rate != want {
						t.Errorf("%s: rate %d bytes/s, want %d", link, tbf.Rate, want)
					}
					return nil
				}
			}
			t.Errorf("%s has no token bucket: %v", link, qdiscs)
			return nil
		}
	}
	ns.Do(rate("eth0"))
	n.ns.Do(rate(LinkName(podnet.Sandbox{ID: "slow"})))
}

func TestPoolRotates(t *testing.T) {
	p, err := newPool(netip.MustParsePrefix("10.0.0.0/29"), []netip.Addr{netip.MustParseAddr("10.0.0.3")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	take := func(want string) {
		t.Helper()
		ip, err := p.take()
		if err != nil || ip.String() != want {
			t.Fatalf("took %v, %v; want %s", ip, err, want)
		}
	}
	take("10.0.0.4")
	p.release(netip.MustParseAddr("10.0.0.4"))
	take("10.0.0.5") // not the one just given back
	take("10.0.0.6")
	take("10.0.0.2")
	take("10.0.0.4")
	if _, err := p.take(); err == nil {
		t.Fatal("an address was taken twice")
	}
}
