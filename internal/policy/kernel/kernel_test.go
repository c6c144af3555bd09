// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"kaji/internal/netfilter/nstest"
	"kaji/internal/policy/plan"
)

// lab is a node with pods a, b and c of namespaces x and y, each behind a link
// of its own, and the world outside.
type lab struct {
	*testing.T
	node, world *nstest.Namespace
	names       []string // "x/a", …, "world"
	spaces      map[string]*nstest.Namespace
	addrs       map[string][2]netip.Addr
	plan        *plan.Plan
	kernels     []*Kernel
}

var (
	ports    = []uint16{80, 81}
	podCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10::/32")}
)

const (
	worldIP  = "192.0.2.1"
	worldIP6 = "2001:db8::1"
)

func newLab(t *testing.T) *lab {
	l := &lab{T: t, node: nstest.New(t), world: nstest.New(t), plan: plan.New("here"),
		spaces: map[string]*nstest.Namespace{}, addrs: map[string][2]netip.Addr{}}
	l.node.Do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644))
	})
	l.connect(l.node, "uplink", "192.0.2.10/24", "2001:db8::10/64", l.world, worldIP+"/24", worldIP6+"/64")
	l.world.Route("10.0.0.0/8", "192.0.2.10")
	l.world.Route("fd00::/8", "2001:db8::10")
	l.node.Route("default", worldIP)
	l.add("world", l.world, worldIP, worldIP6)
	for i, name := range []string{"x/a", "x/b", "x/c", "y/a", "y/b"} {
		pod := nstest.New(t)
		v4, v6 := fmt.Sprintf("10.244.%d.", i), fmt.Sprintf("fd00:10:%d::", i)
		l.connect(l.node, fmt.Sprintf("pod%d", i), v4+"1/24", v6+"1/64", pod, v4+"2/24", v6+"2/64")
		pod.Route("default", v4+"1")
		pod.Route("::/0", v6+"1")
		l.add(name, pod, v4+"2", v6+"2")
		l.plan.SetPod(l.pod(name, true))
	}
	for _, ns := range []string{"x", "y"} {
		l.plan.SetNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"ns": ns}}})
	}
	all := l.plan.All()
	for _, v6 := range []bool{false, true} {
		k, err := New(Config{IPv6: v6, NetNS: l.node.FD()})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Reset(podCIDRs, all); err != nil {
			t.Fatal(err)
		}
		l.kernels = append(l.kernels, k)
	}
	return l
}

// connect joins two namespaces over both families; addresses are usable at once.
func (l *lab) connect(a *nstest.Namespace, name, v4, v6 string, b *nstest.Namespace, peer4, peer6 string) {
	for _, ns := range []*nstest.Namespace{a, b} {
		ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644) })
	}
	a.Connect(name, v4, b, "eth0", peer4)
	a.Address(name, v6)
	b.Address("eth0", peer6)
}

func (l *lab) add(name string, ns *nstest.Namespace, v4, v6 string) {
	l.names = append(l.names, name)
	l.spaces[name] = ns
	l.addrs[name] = [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
	for _, port := range ports {
		ns.Serve(fmt.Sprintf(":%d", port), name)
	}
	ns.ServeUDP(fmt.Sprintf("%s:53", v4), name)
}

// pod is the object of a pod, with its address or without.
func (l *lab) pod(name string, addressed bool) *corev1.Pod {
	namespace, pod, _ := strings.Cut(name, "/")
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod, Labels: map[string]string{"pod": pod}},
		Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 81}}}}}}
	if addressed {
		for _, addr := range l.addrs[name] {
			o.Status.PodIPs = append(o.Status.PodIPs, corev1.PodIP{IP: addr.String()})
		}
	}
	return o
}

// apply brings the kernels in line with the plan.
func (l *lab) apply() {
	l.Helper()
	delta := l.plan.Take()
	for _, k := range l.kernels {
		if err := k.Apply(delta); err != nil {
			l.Fatal(err)
		}
	}
}

func (l *lab) policy(name string, spec networkingv1.NetworkPolicySpec) {
	l.Helper()
	l.plan.SetPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}, Spec: spec})
	l.apply()
}

// try says whether a TCP connection can be made; a dropped one shows by silence.
func (l *lab) try(from string, addr netip.Addr, port uint16) bool {
	ok := false
	l.spaces[from].Do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(addr, port).String(), 2*time.Second)
		if ok = err == nil; ok {
			return conn.Close()
		}
		return nil
	})
	return ok
}

// matrix asks everybody for everybody over both families at all ports.
func (l *lab) matrix(allowed func(from, to string, port uint16) bool) {
	l.Helper()
	type question struct {
		from, to string
		family   int
		port     uint16
	}
	answers := map[question]chan bool{}
	for _, from := range l.names {
		for _, to := range l.names {
			for family := range 2 {
				for _, port := range ports {
					q, answer := question{from, to, family, port}, make(chan bool, 1)
					answers[q] = answer
					go func() { answer <- l.try(q.from, l.addrs[q.to][q.family], q.port) }()
				}
			}
		}
	}
	for q, answer := range answers {
		if got, want := <-answer, q.from == q.to || allowed(q.from, q.to, q.port); got != want {
			l.Errorf("%s to %s:%d (%s): reached %v, want %v", q.from, q.to, q.port, l.addrs[q.to][q.family], got, want)
		}
	}
}

func labelled(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func inX(name string) bool { return strings.HasPrefix(name, "x/") }

func TestMatrix(t *testing.T) {
	l := newLab(t)
	l.matrix(func(string, string, uint16) bool { return true })

	// Default deny, both directions.
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	l.policy("deny", networkingv1.NetworkPolicySpec{PolicyTypes: both})
	l.matrix(func(from, to string, _ uint16) bool { return !inX(from) && !inX(to) })
	// The node reaches its pods, and they reach it.
	l.node.MustReach("tcp", "10.244.0.2:80", "x/a 10.244.0.1")
	l.node.Serve(":8000", "node")
	l.spaces["x/a"].MustReach("tcp", "192.0.2.10:8000", "node 10.244.0.2")
	l.spaces["x/b"].MustNotReach("udp", "10.244.0.2:53")

	// Selectors combined, a named port, a block with an exception.
	l.policy("allow", networkingv1.NetworkPolicySpec{
		PodSelector: *labelled("pod", "a"),
		Ingress: []networkingv1.NetworkPolicyIngressRule{
			{From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: labelled("ns", "y"), PodSelector: labelled("pod", "b")}}},
			{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24", Except: []string{"192.0.2.128/25"}}},
				{IPBlock: &networkingv1.IPBlock{CIDR: "2001:db8::/64"}}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromString("web"))}}},
		},
		Egress: []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: labelled("ns", "y")}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromString("web"))}}},
			{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.0.0.0/8"}}}, {IPBlock: &networkingv1.IPBlock{CIDR: "::/0", Except: []string{"fd00::/8"}}}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromInt32(70)), EndPort: ptr.To(int32(80))}}},
		},
		PolicyTypes: both,
	})
	opened := func(from, to string, port uint16) bool {
		switch {
		case to == "x/a":
			return from == "y/b" || from == "world" && port == 81
		case from == "x/a":
			return strings.HasPrefix(to, "y/") && port == 81 || to == "world" && port == 80
		}
		return !inX(from) && !inX(to)
	}
	l.matrix(opened)

	// A restart writes the same; the policy goes, and all its sets with it.
	all := l.plan.All()
	for _, k := range l.kernels {
		if err := k.Reset(podCIDRs, all); err != nil {
			t.Fatal(err)
		}
	}
	l.matrix(opened)
	for _, name := range []string{"allow", "deny"} {
		l.plan.DeletePolicy(plan.Key{Namespace: "x", Name: name})
		l.apply()
	}
	l.matrix(func(string, string, uint16) bool { return true })
	l.empty()
}

// empty demands that nothing but the frame of the table is left.
func (l *lab) empty() {
	l.Helper()
	for _, k := range l.kernels {
		sets, err := k.conn.GetSets(k.table)
		if err != nil {
			l.Fatal(err)
		}
		for _, s := range sets {
			switch s.Name {
			case "ingress", "egress", "self", "node-pods", plan.Local:
			default:
				l.Errorf("set %s is left", s.Name)
			}
		}
		chains, err := k.conn.ListChainsOfTableFamily(k.table.Family)
		if err != nil {
			l.Fatal(err)
		}
		for _, c := range chains {
			if c.Table.Name == TableName && c.Name != "forward" && c.Name != "unknown" {
				l.Errorf("chain %s is left", c.Name)
			}
		}
		if err := k.Remove(); err != nil {
			l.Fatal(err)
		}
	}
}

func TestRepliesAndProtocols(t *testing.T) {
	l := newLab(t)
	udp, sctp := corev1.ProtocolUDP, corev1.ProtocolSCTP
	// x/a may ask x/b over UDP; x/b may say nothing but answers.
	l.policy("b", networkingv1.NetworkPolicySpec{PodSelector: *labelled("pod", "b"),
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: ptr.To(intstr.FromInt32(53))}, {Protocol: &sctp}}}},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}})
	l.spaces["x/a"].MustReach("udp", "10.244.1.2:53", "x/b 10.244.0.2")
	l.spaces["x/a"].MustNotReach("tcp", "10.244.1.2:80")
	l.spaces["x/b"].MustNotReach("udp", "10.244.0.2:53")
	if !l.sctp("x/a", "x/b") {
		t.Error("x/a cannot send SCTP to x/b")
	}
	if l.sctp("x/b", "x/a") {
		t.Error("x/b can send SCTP to x/a")
	}
}

// sctp sends a packet of SCTP's number, a whole header with an INIT chunk, and
// says whether it arrived.
func (l *lab) sctp(from, to string) bool {
	receiver, sender := -1, -1
	open := func(fd *int) func() error {
		return func() (err error) {
			*fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
			return err
		}
	}
	l.spaces[to].Do(open(&receiver))
	l.spaces[from].Do(open(&sender))
	defer unix.Close(receiver)
	defer unix.Close(sender)
	packet := append([]byte{0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20}, make([]byte, 16)...)
	packet[19], packet[27] = 1, 1 // initiate tag, streams
	packet[25] = 1
	if err := unix.Sendto(sender, packet, 0, &unix.SockaddrInet4{Addr: l.addrs[to][0].As4()}); err != nil {
		l.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(receiver, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		l.Fatal(err)
	}
	_, _, err := unix.Recvfrom(receiver, make([]byte, 256), 0)
	return err == nil
}

// TestFirstPacket has a pod whose address the plan does not know yet.
func TestFirstPacket(t *testing.T) {
	l := newLab(t)
	key := plan.Key{Namespace: "x", Name: "a"}
	l.plan.DeletePod(key)
	l.policy("deny", networkingv1.NetworkPolicySpec{PodSelector: *labelled("pod", "a")})
	l.spaces["y/a"].MustReach("tcp", "10.244.0.2:80", "x/a 10.244.3.2")
	l.plan.SetPod(l.pod("x/a", false))
	l.apply()
	l.spaces["y/a"].MustNotReach("tcp", "10.244.0.2:80")
	l.spaces["x/a"].MustReach("tcp", "10.244.3.2:80", "y/a 10.244.0.2") // not isolated in egress
	l.spaces["y/a"].MustReach("tcp", "10.244.4.2:80", "y/b 10.244.3.2")
	l.plan.SetPod(l.pod("x/a", true))
	l.apply()
	l.spaces["y/a"].MustNotReach("tcp", "10.244.0.2:80")
	l.plan.DeletePolicy(plan.Key{Namespace: "x", Name: "deny"})
	l.apply()
	l.spaces["y/a"].MustReach("tcp", "10.244.0.2:80", "x/a 10.244.3.2")
}
