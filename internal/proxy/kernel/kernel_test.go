// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/netfilter/nstest"
	"kaji/internal/proxy/plan"
)

// lab is a node with three pods, each behind a link of its own, and the world
// outside.
type lab struct {
	*testing.T
	node, world *nstest.Namespace
	pods        []*nstest.Namespace
	kernel      *Kernel
}

const (
	nodeIP  = "192.0.2.10"
	worldIP = "192.0.2.1"
)

func podIP(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("10.244.%d.2", i)) }

func newLab(t *testing.T) *lab {
	l := &lab{T: t, node: nstest.New(t), world: nstest.New(t)}
	l.node.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	l.node.Connect("uplink", nodeIP+"/24", l.world, "node", worldIP+"/24")
	l.node.Route("default", worldIP)
	l.world.Route("10.0.0.0/8", nodeIP)
	for i := range 3 {
		pod := nstest.New(t)
		l.node.Connect(fmt.Sprintf("pod%d", i), fmt.Sprintf("10.244.%d.1/24", i), pod, "eth0", podIP(i).String()+"/24")
		pod.Route("default", fmt.Sprintf("10.244.%d.1", i))
		pod.Serve(":80", fmt.Sprintf("pod%d", i))
		pod.ServeUDP(podIP(i).String()+":53", fmt.Sprintf("pod%d", i))
		l.pods = append(l.pods, pod)
	}
	k, err := New(Config{NetNS: l.node.FD(), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
	if err != nil {
		t.Fatal(err)
	}
	l.kernel = k
	l.reset(nil)
	return l
}

type targets = map[plan.Frontend]plan.Target

func (l *lab) reset(all targets) {
	l.Helper()
	if err := l.kernel.Reset(all); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) apply(set targets, removed ...plan.Frontend) {
	l.Helper()
	if err := l.kernel.Apply(set, removed); err != nil {
		l.Fatal(err)
	}
}

// seen asks an address so often that every backend is drawn, and returns who
// answered with the client each saw.
func (l *lab) seen(from *nstest.Namespace, network, address string) string {
	l.Helper()
	got := map[string]bool{}
	for range 40 {
		name, client, err := from.Ask(network, address)
		if err != nil {
			l.Fatalf("%s to %s: %v", network, address, err)
		}
		got[name+"<-"+client] = true
	}
	var out []string
	for i := range l.pods {
		for answer := range got {
			if strings.HasPrefix(answer, fmt.Sprintf("pod%d<-", i)) {
				out = append(out, answer)
			}
		}
	}
	return strings.Join(out, " ")
}

func (l *lab) expect(from *nstest.Namespace, network, address, want string) {
	l.Helper()
	if got := l.seen(from, network, address); got != want {
		l.Errorf("%s to %s was answered by %s, want %s", network, address, got, want)
	}
}

// refused demands an answer of "port unreachable", not silence.
func (l *lab) refused(from *nstest.Namespace, network, address string) {
	l.Helper()
	if _, _, err := from.Ask(network, address); err == nil || !strings.Contains(err.Error(), "refused") {
		l.Errorf("%s to %s: got %v, want a refusal", network, address, err)
	}
}

func backends(port uint16, pods ...int) []plan.Backend {
	var out []plan.Backend
	for _, i := range pods {
		out = append(out, plan.Backend{Addr: podIP(i), Port: port})
	}
	return out
}

func tcp(addr string, port uint16) plan.Frontend {
	return plan.Frontend{Addr: netip.MustParseAddr(addr), Protocol: corev1.ProtocolTCP, Port: port}
}

// Whose packets to a ClusterIP get the node's address, by what tells pods apart.
func TestWhoIsMasqueraded(t *testing.T) {
	l := newLab(t)
	const kept, changed = true, false
	for _, one := range []struct {
		name                 string
		c                    Config
		pod, otherPod, world bool
	}{
		{"by ranges", Config{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}}, kept, changed, changed},
		{"by ranges of the other family", Config{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00::/48")}}, kept, kept, kept},
		{"by a link", Config{PodLinks: "pod0", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, kept, changed, changed},
		{"by how links begin", Config{PodLinks: "po*"}, kept, kept, changed},
		{"by nothing", Config{}, kept, kept, kept},
		{"everybody's", Config{MasqueradeAll: true, PodLinks: "pod*"}, changed, changed, changed},
	} {
		one.c.NetNS = l.node.FD()
		k, err := New(one.c)
		if err != nil {
			t.Fatal(err)
		}
		l.kernel = k
		l.reset(targets{tcp("10.96.0.1", 80): {Backends: backends(80, 1)}})
		for _, from := range []struct {
			ns   *nstest.Namespace
			addr string
			kept bool
		}{{l.pods[0], podIP(0).String(), one.pod}, {l.pods[2], podIP(2).String(), one.otherPod}, {l.world, worldIP, one.world}} {
			want := "10.244.1.1"
			if from.kept {
				want = from.addr
			}
			if name, client, err := from.ns.Ask("tcp", "10.96.0.1:80"); err != nil || name != "pod1" || client != want {
				t.Errorf("%s: from %s it is %s that sees %s (%v), want %s", one.name, from.addr, name, client, err, want)
			}
		}
	}
}

func TestClusterIP(t *testing.T) {
	l := newLab(t)
	vip := tcp("10.96.0.10", 8000)
	l.apply(targets{vip: {Backends: backends(80, 0, 1)}})
	l.expect(l.pods[2], "tcp", "10.96.0.10:8000", "pod0<-10.244.2.2 pod1<-10.244.2.2")
	l.expect(l.node, "tcp", "10.96.0.10:8000", "pod0<-10.244.0.1 pod1<-10.244.1.1")
	l.expect(l.world, "tcp", "10.96.0.10:8000", "pod0<-10.244.0.1 pod1<-10.244.1.1")
	l.expect(l.pods[0], "tcp", "10.96.0.10:8000", "pod0<-10.244.0.1 pod1<-10.244.0.2") // hairpin
	l.refused(l.pods[2], "tcp", "10.96.0.10:8001")                                     // a port without a Service
	l.refused(l.node, "tcp", "10.96.0.10:8001")

	l.apply(targets{vip: {Backends: backends(80, 1)}})
	l.expect(l.pods[2], "tcp", "10.96.0.10:8000", "pod1<-10.244.2.2")
	for i := range 6 { // a chain that is used again does not grow
		l.apply(targets{vip: {Backends: backends(80, i%3)}})
		l.expect(l.pods[1], "tcp", "10.96.0.10:8000", map[bool]string{false: fmt.Sprintf("pod%d<-10.244.1.2", i%3), true: "pod1<-10.244.1.1"}[i%3 == 1])
	}
	for name := range l.kernel.chains {
		rules, err := l.kernel.conn.GetRules(l.kernel.table, &nftables.Chain{Table: l.kernel.table, Name: name})
		if want := map[string]int{chainRefuse: 1, chainDrop: 1, "cluster-1": 3}[name]; err == nil && len(rules) != want {
			t.Errorf("chain %s has %d rules, want %d", name, len(rules), want)
		}
	}
	l.apply(targets{vip: {}})
	l.refused(l.pods[2], "tcp", "10.96.0.10:8000")
	l.refused(l.node, "tcp", "10.96.0.10:8000")
	l.apply(targets{vip: {Backends: backends(80, 0, 1, 2)}})
	l.expect(l.world, "tcp", "10.96.0.10:8000", "pod0<-10.244.0.1 pod1<-10.244.1.1 pod2<-10.244.2.1")
	l.apply(nil, vip)
	l.pods[2].MustNotReach("tcp", "10.96.0.10:8000")
	l.empty()
}

// What goes to an address of the ClusterIPs' range that no Service has stays on
// the node.
func TestUnassignedClusterIP(t *testing.T) {
	l := newLab(t)
	vip := tcp("10.96.0.10", 8000)
	l.world.Address("lo", "10.96.0.77/32")
	l.world.Address("lo", "10.97.0.77/32")
	l.world.Serve(":80", "world")
	all := targets{vip: {Backends: backends(80, 0)}}
	l.reset(all)
	for _, from := range []*nstest.Namespace{l.pods[1], l.node} {
		if name, _, err := from.Ask("tcp", "10.96.0.77:80"); err != nil || name != "world" {
			t.Errorf("without ranges: %s, %v", name, err)
		}
	}
	l.kernel.SetServices([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")})
	l.reset(all)
	for _, from := range []*nstest.Namespace{l.pods[1], l.node} {
		from.MustNotReach("tcp", "10.96.0.77:80")
		if name, _, err := from.Ask("tcp", "10.97.0.77:80"); err != nil || name != "world" {
			t.Errorf("beside the ranges: %s, %v", name, err)
		}
		if name, _, err := from.Ask("tcp", "10.96.0.10:8000"); err != nil || name != "pod0" {
			t.Errorf("the Service: %s, %v", name, err)
		}
	}
	l.refused(l.pods[1], "tcp", "10.96.0.10:8001")
}

// TestAConnectionOutlivesItsEndpoints: a download goes on when its Service has no
// endpoint any more; new connections are refused.
func TestAConnectionOutlivesItsEndpoints(t *testing.T) {
	l := newLab(t)
	vip := tcp("10.96.0.10", 8000)
	var server net.Listener
	l.pods[0].Do(func() (err error) {
		server, err = net.Listen("tcp", ":81")
		return err
	})
	defer server.Close()
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}()
	l.apply(targets{vip: {Backends: backends(81, 0)}})
	var conns []net.Conn
	for _, from := range []*nstest.Namespace{l.node, l.pods[2], l.world} {
		from.Do(func() error {
			conn, err := net.DialTimeout("tcp", "10.96.0.10:8000", 10*time.Second)
			conns = append(conns, conn)
			return err
		})
	}
	echo := func(text string) {
		t.Helper()
		for i, conn := range conns {
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			got := make([]byte, len(text))
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
				t.Fatalf("connection %d: %q, %v", i, got, err)
			}
		}
	}
	echo("before")
	l.apply(targets{vip: {}})
	echo("without endpoints")
	l.refused(l.node, "tcp", "10.96.0.10:8000")
	l.apply(nil, vip)
	echo("without the Service")
	if err := l.kernel.Reset(targets{tcp("10.96.0.11", 80): {}}); err != nil {
		t.Fatal(err)
	}
	echo("with a new table")
	for _, conn := range conns {
		conn.Close()
	}
}

// empty checks that no element and no chain of a Service is left.
func (l *lab) empty() {
	l.Helper()
	l.apply(nil) // what left with the last change goes with the next
	k := l.kernel
	for name, refs := range k.chains {
		if name != chainRefuse && name != chainDrop {
			l.Errorf("chain %s still has %d references", name, refs)
		}
	}
	s := k.sets
	for _, set := range []struct{ name string }{{s.services.Name}, {s.nodePorts.Name}, {s.refused.Name}, {s.backends.Name}, {s.local.Name}, {s.hairpin.Name}, {s.firewall.Name}, {s.clusterIPs.Name}} {
		found, err := k.conn.GetSetByName(k.table, set.name)
		if err != nil {
			l.Fatal(err)
		}
		elements, err := k.conn.GetSetElements(found)
		if err != nil || len(elements) > 0 {
			l.Errorf("%s still holds %d elements (%v)", set.name, len(elements), err)
		}
	}
}

func TestNodePortAndExternalPolicy(t *testing.T) {
	l := newLab(t)
	port := tcp("0.0.0.0", 30080)
	l.apply(targets{port: {Masquerade: plan.MasqueradeAll, Backends: backends(80, 0, 1)}})
	l.expect(l.world, "tcp", nodeIP+":30080", "pod0<-10.244.0.1 pod1<-10.244.1.1")
	l.expect(l.node, "tcp", nodeIP+":30080", "pod0<-10.244.0.1 pod1<-10.244.1.1")

	local := plan.Target{Masquerade: plan.MasqueradeNone, Backends: backends(80, 0, 1), PreferLocal: true, Local: backends(80, 1)}
	l.apply(targets{port: local})
	l.expect(l.world, "tcp", nodeIP+":30080", "pod1<-"+worldIP)
	l.expect(l.pods[2], "tcp", nodeIP+":30080", "pod0<-10.244.2.2 pod1<-10.244.2.2")
	l.expect(l.node, "tcp", nodeIP+":30080", "pod0<-"+nodeIP+" pod1<-"+nodeIP)
	local.Local = nil
	l.apply(targets{port: local})
	l.world.MustNotReach("tcp", nodeIP+":30080")
	l.apply(nil, port)
	l.empty()
}

// TestNodePortAddresses: node ports answer where they shall, also at localhost,
// and nobody outside reaches that.
func TestNodePortAddresses(t *testing.T) {
	l := newLab(t)
	l.node.Address("uplink", "192.0.2.11/24")
	l.node.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0o644) })
	l.world.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0o644) })
	port := tcp("0.0.0.0", 30080)
	all := targets{port: {Masquerade: plan.MasqueradeAll, Backends: backends(80, 0)}}
	l.apply(all)
	l.node.MustNotReach("tcp", "127.0.0.1:30080")
	l.expect(l.world, "tcp", "192.0.2.11:30080", "pod0<-10.244.0.1")

	l.kernel.c.Localhost = true
	l.reset(all)
	l.expect(l.node, "tcp", "127.0.0.1:30080", "pod0<-10.244.0.1")
	l.node.Serve("127.0.0.1:8000", "secret")
	l.node.MustReach("tcp", "127.0.0.1:8000", "secret 127.0.0.1")
	l.world.Do(func() error {
		link, err := netlink.LinkByName("node")
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetDown(lo), netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(nodeIP),
			Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 0), Mask: net.CIDRMask(8, 32)}}))
	})
	l.world.MustNotReach("tcp", "127.0.0.1:8000")
	local := targets{port: {Masquerade: plan.MasqueradeNone, Backends: backends(80, 0, 1), PreferLocal: true, Local: backends(80, 1)}}
	l.apply(local)
	l.expect(l.node, "tcp", "127.0.0.1:30080", "pod0<-10.244.0.1 pod1<-10.244.1.1")

	l.kernel.c.NodePorts = []netip.Prefix{netip.MustParsePrefix("192.0.2.11/32")}
	l.reset(all)
	l.expect(l.world, "tcp", "192.0.2.11:30080", "pod0<-10.244.0.1")
	l.world.MustNotReach("tcp", nodeIP+":30080")
	l.node.MustNotReach("tcp", "127.0.0.1:30080")
}

func TestUDPAndManyServices(t *testing.T) {
	l := newLab(t)
	all := targets{}
	for i := range 2000 {
		all[tcp(fmt.Sprintf("10.97.%d.%d", i/250, i%250+1), 80)] = plan.Target{Backends: backends(80, i%3)}
	}
	dns := plan.Frontend{Addr: netip.MustParseAddr("10.96.0.2"), Protocol: corev1.ProtocolUDP, Port: 53}
	all[dns] = plan.Target{Backends: backends(53, 2)}
	l.reset(all)
	l.expect(l.pods[0], "udp", "10.96.0.2:53", "pod2<-10.244.0.2")
	l.expect(l.pods[0], "tcp", "10.97.7.2:80", "pod2<-10.244.0.2")
	l.reset(targets{dns: all[dns]})
	l.pods[0].MustNotReach("tcp", "10.97.7.2:80")
	l.apply(nil, dns)
	l.empty()
}

func TestAffinityKeepsABackend(t *testing.T) {
	l := newLab(t)
	vip := tcp("10.96.0.11", 80)
	l.apply(targets{vip: {Backends: backends(80, 0, 1, 2), Affinity: time.Hour}})
	first := l.seen(l.world, "tcp", "10.96.0.11:80")
	if strings.Contains(first, " ") {
		t.Fatalf("one client was sent to several backends: %s", first)
	}
	var rest []int
	for i := range l.pods {
		if !strings.HasPrefix(first, fmt.Sprintf("pod%d<-", i)) {
			rest = append(rest, i)
		}
	}
	l.apply(targets{vip: {Backends: backends(80, rest...), Affinity: time.Hour}})
	if second := l.seen(l.world, "tcp", "10.96.0.11:80"); second == first || strings.Contains(second, " ") {
		t.Errorf("after its backend went, the client was sent to %s", second)
	}
}

func TestSourceRanges(t *testing.T) {
	l := newLab(t)
	ip := tcp("203.0.113.5", 80)
	l.world.Route("203.0.113.5/32", nodeIP)
	allow := func(ranges ...string) targets {
		target := plan.Target{Masquerade: plan.MasqueradeAll, Backends: backends(80, 0), Sources: []netip.Prefix{}}
		for _, r := range ranges {
			target.Sources = append(target.Sources, netip.MustParsePrefix(r))
		}
		return targets{ip: target}
	}
	l.apply(allow("198.51.100.0/24", "192.0.2.0/24"))
	l.expect(l.world, "tcp", "203.0.113.5:80", "pod0<-10.244.0.1")
	l.apply(allow("198.51.100.0/24"))
	l.world.MustNotReach("tcp", "203.0.113.5:80")
	l.apply(allow("192.0.2.1/32"))
	l.expect(l.world, "tcp", "203.0.113.5:80", "pod0<-10.244.0.1")
	l.apply(nil, ip)
	l.empty()
}

func TestForeignRulesAreLeftAlone(t *testing.T) {
	l := newLab(t)
	other, err := New(Config{NetNS: l.node.FD()})
	if err != nil {
		t.Fatal(err)
	}
	other.table.Name = "somebody"
	if err := other.Reset(targets{tcp("10.96.9.9", 80): {Backends: backends(80, 0)}}); err != nil {
		t.Fatal(err)
	}
	l.reset(nil)
	if err := l.kernel.Remove(); err != nil {
		t.Fatal(err)
	}
	l.expect(l.pods[2], "tcp", "10.96.9.9:80", "pod0<-10.244.2.2")
}
