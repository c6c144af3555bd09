// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"kaji/internal/netfilter/nstest"
	"kaji/internal/podnet"
)

// reference is where Debian keeps the plug-ins that come with the interface.
const reference = "/usr/lib/cni"

// host is a machine whose pods are connected by the reference plug-ins.
type host struct {
	*nstest.Namespace
	t       *testing.T
	world   *nstest.Namespace
	c       Config
	network *Network
	leases  string
}

// newHost makes a machine with a network; in its text, LEASES stands for a directory
// of host-local's.
func newHost(t *testing.T, text string) *host {
	t.Helper()
	if _, err := os.Stat(filepath.Join(reference, "bridge")); err != nil {
		t.Fatal("needs Debian's package containernetworking-plugins, which make test installs")
	}
	dir := t.TempDir()
	h := &host{Namespace: nstest.New(t), t: t, world: nstest.New(t), leases: filepath.Join(dir, "leases"),
		c: Config{ConfDir: dir, BinDirs: []string{reference}, CacheDir: filepath.Join(dir, "cache")}}
	write(t, dir, "10-net.conflist", strings.ReplaceAll(text, "LEASES", h.leases))
	h.Connect("uplink", "192.0.2.10/24", h.world, "node", "192.0.2.1/24")
	h.Route("default", "192.0.2.1")
	h.world.Serve("192.0.2.1:80", "world")
	h.network = New(h.c)
	return h
}

func (h *host) do(f func(ctx context.Context) error) (err error) {
	h.Do(func() error { err = f(context.Background()); return nil })
	return err
}

// pod connects a pod and serves at its port 80.
func (h *host) pod(name string, ports ...podnet.PortMapping) (*nstest.Namespace, podnet.Sandbox, []netip.Addr) {
	h.t.Helper()
	ns := nstest.New(h.t)
	s := podnet.Sandbox{ID: name, Namespace: "default", Name: name, UID: name, Netns: ns.Path, Ports: ports, IngressBandwidth: 80_000_000, EgressBandwidth: 80_000_000}
	var ips []netip.Addr
	if err := h.do(func(ctx context.Context) error {
		got, err := h.network.Setup(ctx, s)
		if err == nil {
			ips = got.IPs
		}
		return err
	}); err != nil {
		h.t.Fatalf("pod %s: %v", name, err)
	}
	ns.Serve(":80", name)
	return ns, s, ips
}

// leased counts host-local's leases.
func (h *host) leased(network string) int {
	entries, err := os.ReadDir(filepath.Join(h.leases, network))
	if err != nil {
		h.t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			n++
		}
	}
	return n
}

func TestBridgeChain(t *testing.T) {
	h := newHost(t, `{"cniVersion":"1.0.0","name":"chain","plugins":[
		{"type":"bridge","bridge":"br0","isGateway":true,"ipMasq":true,"hairpinMode":true,
		 "ipam":{"type":"host-local","dataDir":"LEASES","ranges":[[{"subnet":"10.7.0.0/24"}],[{"subnet":"fd00:7::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
		{"type":"portmap","capabilities":{"portMappings":true}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`)
	a, sandbox, ips := h.pod("a", podnet.PortMapping{Protocol: "TCP", HostPort: 8080, ContainerPort: 80})
	b, other, _ := h.pod("b")
	if len(ips) != 2 || ips[0] != netip.MustParseAddr("10.7.0.2") || ips[1] != netip.MustParseAddr("fd00:7::2") {
		t.Errorf("addresses %v", ips)
	}
	a.MustReach("tcp", "127.0.0.1:80", "a 127.0.0.1")
	b.MustReach("tcp", "10.7.0.2:80", "a 10.7.0.3")
	b.MustReach("tcp", "192.0.2.1:80", "world 192.0.2.10")
	h.world.MustReach("tcp", "192.0.2.10:8080", "a 192.0.2.1")
	// Of pod b: portmap 1.1.1 misjudges its own rules for ports in both families.
	if err := h.do(func(ctx context.Context) error { _, err := h.network.Check(ctx, other); return err }); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	b.Do(func() error {
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrDel(eth, &netlink.Addr{IPNet: netlinkPrefix("10.7.0.3/24")})
	})
	if err := h.do(func(ctx context.Context) error { _, err := h.network.Check(ctx, other); return err }); err == nil {
		t.Error("CHECK of a pod without its address succeeds")
	}
	for range 2 {
		if err := h.do(func(ctx context.Context) error { return h.network.Teardown(ctx, sandbox) }); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	h.world.MustNotReach("tcp", "192.0.2.10:8080")
	if n := h.leased("chain"); n != 2 {
		t.Errorf("%d leases, want the two of pod b", n)
	}
	// The runtime lost its records: what it does not know leaves.
	if err := h.do(func(ctx context.Context) error { return New(h.c).Collect(ctx, []podnet.Sandbox{other}) }); err != nil || h.leased("chain") != 2 {
		t.Errorf("a pod that is known was collected: %v", err)
	}
	if err := h.do(func(ctx context.Context) error { return New(h.c).Collect(ctx, nil) }); err != nil || h.leased("chain") != 0 {
		t.Errorf("a pod that nobody knows is connected: %v", err)
	}
}

func netlinkPrefix(text string) *net.IPNet {
	ip, n, err := net.ParseCIDR(text)
	if err != nil {
		panic(err)
	}
	n.IP = ip
	return n
}

func TestPointToPoint(t *testing.T) {
	h := newHost(t, `{"cniVersion":"0.4.0","name":"ptp","plugins":[{"type":"ptp","ipMasq":true,
		"ipam":{"type":"host-local","dataDir":"LEASES","subnet":"10.8.0.0/29","routes":[{"dst":"0.0.0.0/0"}]}}]}`)
	a, _, ips := h.pod("a")
	h.Reach(a, ips)
	for _, name := range []string{"b", "c", "d", "e"} {
		h.pod(name)
	}
	pod := nstest.New(t)
	s := podnet.Sandbox{ID: "toomuch", Netns: pod.Path}
	err := h.do(func(ctx context.Context) error { _, err := h.network.Setup(ctx, s); return err })
	if err == nil || !strings.Contains(err.Error(), "no IP addresses available") {
		t.Errorf("a pod too many: %v", err)
	}
	if err := h.do(func(ctx context.Context) error { return h.network.Teardown(ctx, s) }); err != nil {
		t.Errorf("and then it leaves: %v", err)
	}
	if n := h.leased("ptp"); n != 5 {
		t.Errorf("%d leases, want 5", n)
	}
}

// Reach asks the pod from the machine, and the world from the pod.
func (h *host) Reach(pod *nstest.Namespace, ips []netip.Addr) {
	h.t.Helper()
	name, _, err := h.Ask("tcp", netip.AddrPortFrom(ips[0], 80).String())
	if err != nil || name != "a" {
		h.t.Errorf("the machine asked %s: %q, %v", ips[0], name, err)
	}
	pod.MustReach("tcp", "192.0.2.1:80", "world 192.0.2.10")
}

// A pod with a place of its own on the machine's link.
func TestMacvlan(t *testing.T) {
	h := newHost(t, `{"cniVersion":"1.0.0","name":"lan","plugins":[{"type":"macvlan","master":"uplink","mode":"bridge",
		"ipam":{"type":"host-local","dataDir":"LEASES","ranges":[[{"subnet":"192.0.2.0/24","rangeStart":"192.0.2.100","rangeEnd":"192.0.2.110"}]]}}]}`)
	a, s, _ := h.pod("a")
	b, _, _ := h.pod("b")
	a.MustReach("tcp", "192.0.2.1:80", "world 192.0.2.100")
	h.world.MustReach("tcp", "192.0.2.100:80", "a 192.0.2.1")
	b.MustReach("tcp", "192.0.2.100:80", "a 192.0.2.101")
	if err := h.do(func(ctx context.Context) error { return h.network.Teardown(ctx, s) }); err != nil {
		t.Fatal(err)
	}
	h.world.MustNotReach("tcp", "192.0.2.100:80")
}

// A bridge that is another network's already, with another address, is said so.
func TestBridgeOfAnother(t *testing.T) {
	h := newHost(t, `{"cniVersion":"1.0.0","name":"chain","plugins":[{"type":"bridge","bridge":"br0","isGateway":true,
		"ipam":{"type":"host-local","dataDir":"LEASES","subnet":"10.7.0.0/24"}}]}`)
	h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(br, &netlink.Addr{IPNet: netlinkPrefix("10.7.0.254/24")})
	})
	pod := nstest.New(t)
	err := h.do(func(ctx context.Context) error {
		_, err := h.network.Setup(ctx, podnet.Sandbox{ID: "a", Netns: pod.Path})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "already has an IP address different from 10.7.0.1/24") {
		t.Errorf("a bridge of another: %v", err)
	}
}

// A plug-in that is not installed is named with where it was looked for.
func TestMissingPlugin(t *testing.T) {
	h := newHost(t, `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"nosuch"}]}`)
	pod := nstest.New(t)
	err := h.do(func(ctx context.Context) error {
		_, err := h.network.Setup(ctx, podnet.Sandbox{ID: "a", Netns: pod.Path})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), `failed to find plugin "nosuch" in path [/usr/lib/cni]`) {
		t.Errorf("got %v", err)
	}
}
