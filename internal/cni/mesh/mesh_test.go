// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"kaji/internal/netfilter/nstest"
)

// end is one node: a namespace with a pod's address on its loopback link.
type end struct {
	*nstest.Namespace
	self
}

func node(t *testing.T, addr, pods, pod string) end {
	e := end{nstest.New(t), self{[]netip.Prefix{netip.MustParsePrefix(pods)}, []netip.Addr{netip.MustParseAddr(addr)}}}
	e.Address("lo", pod+"/32")
	return e
}

func (e end) to(others ...end) []peer {
	var out []peer
	for _, o := range others {
		for _, pods := range o.pods {
			p := peer{pods: pods, over: o.addrs[0]}
			if pods.Addr().Is4() == o.addrs[0].Is4() {
				p.node = o.addrs[0]
			}
			out = append(out, p)
		}
	}
	return out
}

func (e end) overlay() (there bool) {
	e.Do(func() error {
		_, err := netlink.LinkByName(linkName)
		there = err == nil
		return nil
	})
	return there
}

func both(a, b end) {
	a.Do(func() error { return apply(a.self, a.to(b), nil) })
	b.Do(func() error { return apply(b.self, b.to(a), nil) })
}

func TestNeighboursByRoute(t *testing.T) {
	a, b := node(t, "192.168.7.1", "10.244.1.0/24", "10.244.1.5"), node(t, "192.168.7.2", "10.244.2.0/24", "10.244.2.5")
	a.Connect("eth0", "192.168.7.1/24", b.Namespace, "eth0", "192.168.7.2/24")
	b.Serve("10.244.2.5:80", "pod")
	both(a, b)
	both(a, b) // again changes nothing
	a.MustReach("tcp", "10.244.2.5:80", "pod 192.168.7.1")
	if a.overlay() {
		t.Error("neighbours need no overlay")
	}
	a.Do(func() error { return apply(a.self, nil, nil) })
	a.MustNotReach("tcp", "10.244.2.5:80")
}

// Pods have both families although the nodes have addresses of one only.
func TestOtherFamilyByOverlay(t *testing.T) {
	a, b := node(t, "192.168.7.1", "10.244.1.0/24", "10.244.1.5"), node(t, "192.168.7.2", "10.244.2.0/24", "10.244.2.5")
	a.pods, b.pods = append(a.pods, netip.MustParsePrefix("fd44:0:0:1::/64")), append(b.pods, netip.MustParsePrefix("fd44:0:0:2::/64"))
	a.Connect("eth0", "192.168.7.1/24", b.Namespace, "eth0", "192.168.7.2/24")
	b.Address("lo", "fd44:0:0:2::5/128")
	b.Serve("[::]:81", "pod6")
	b.Serve("10.244.2.5:80", "pod4")
	both(a, b)
	both(a, b)
	a.MustReach("tcp", "10.244.2.5:80", "pod4 192.168.7.1")
	// The kernel takes a moment to make up its mind about a new address.
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if _, _, err := a.Ask("tcp", "[fd44:0:0:2::5]:81"); err == nil {
			break
		}
	}
	a.MustReach("tcp", "[fd44:0:0:2::5]:81", "pod6 fd44:0:0:1::")
}

func TestFarNodesByOverlay(t *testing.T) {
	a, b := node(t, "192.168.7.1", "10.244.1.0/24", "10.244.1.5"), node(t, "192.168.8.1", "10.244.2.0/24", "10.244.2.5")
	router := nstest.New(t)
	router.Connect("a", "192.168.7.254/24", a.Namespace, "eth0", "192.168.7.1/24")
	router.Connect("b", "192.168.8.254/24", b.Namespace, "eth0", "192.168.8.1/24")
	router.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	a.Route("default", "192.168.7.254")
	b.Route("default", "192.168.8.254")
	b.Serve("10.244.2.5:80", "pod")
	a.MustNotReach("tcp", "10.244.2.5:80") // the router knows no pods
	both(a, b)
	both(a, b)
	a.MustReach("tcp", "10.244.2.5:80", "pod 10.244.1.0")
	if !a.overlay() {
		t.Error("far nodes are reached without an overlay")
	}
	a.Do(Cleanup)
	a.MustNotReach("tcp", "10.244.2.5:80")
	if a.overlay() {
		t.Error("the overlay stays")
	}
}

// Without a default route there is one to Services, and only then; nobody else's
// is touched.
func TestServicesWithoutDefaultRoute(t *testing.T) {
	a, b := node(t, "192.168.7.1", "10.244.1.0/24", "10.244.1.5"), node(t, "192.168.7.2", "10.244.2.0/24", "10.244.2.5")
	a.Connect("eth0", "192.168.7.1/24", b.Namespace, "eth0", "192.168.7.2/24")
	services := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}
	routes := func() (own, others int) {
		a.Do(func() error {
			all, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
			for _, r := range all {
				if r.Dst == nil || r.Dst.String() != services[0].String() && r.Dst.String() != services[1].String() {
					continue
				}
				if r.Protocol == protocol {
					own++
				} else {
					others++
				}
			}
			return err
		})
		return own, others
	}
	keep := func(when string, own, others int) {
		t.Helper()
		for range 2 { // again changes nothing
			a.Do(func() error { return apply(a.self, a.to(b), services) })
			if o, x := routes(); o != own || x != others {
				t.Errorf("%s: %d own routes and %d of others, want %d and %d", when, o, x, own, others)
			}
		}
	}
	keep("without a default route", 2, 0)
	a.Route("default", "192.168.7.2")
	keep("with one of IPv4", 1, 0)
	a.Do(func() error { return netlink.RouteDel(&netlink.Route{Gw: []byte{192, 168, 7, 2}}) })
	keep("without again", 2, 0)
	a.Route("10.96.0.0/16", "192.168.7.2")
	keep("with another's to Services", 1, 1)
	a.Do(Cleanup)
	if own, others := routes(); own != 0 || others != 1 {
		t.Errorf("after the end: %d own routes and %d of others", own, others)
	}
}
