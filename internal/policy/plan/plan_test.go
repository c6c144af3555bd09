// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

type (
	spec      = networkingv1.NetworkPolicySpec
	from      = networkingv1.NetworkPolicyIngressRule
	to        = networkingv1.NetworkPolicyEgressRule
	peerSpec  = networkingv1.NetworkPolicyPeer
	portSpec  = networkingv1.NetworkPolicyPort
	direction = networkingv1.PolicyType
)

const (
	tcp = corev1.ProtocolTCP
	udp = corev1.ProtocolUDP
)

func selects(key string, values ...string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpIn, Values: values}}}
}

func pods(values ...string) metav1.LabelSelector { return *selects("pod", values...) }

func all() *metav1.LabelSelector { return &metav1.LabelSelector{} }

func peers(all ...peerSpec) []peerSpec { return all }

func block(cidr string, except ...string) peerSpec {
	return peerSpec{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
}

// at are ports: a number or a name, with a protocol or none.
func at(port any, more ...any) portSpec {
	var p portSpec
	switch port := port.(type) {
	case int:
		p.Port = ptr.To(intstr.FromInt32(int32(port)))
	case string:
		p.Port = ptr.To(intstr.FromString(port))
	}
	for _, m := range more {
		switch m := m.(type) {
		case corev1.Protocol:
			p.Protocol = &m
		case int:
			p.EndPort = ptr.To(int32(m))
		}
	}
	return p
}

func ports(all ...portSpec) []portSpec { return all }

func in(ns, pod string) bool { return strings.HasPrefix(pod, ns+"/") }

func policyTypes(all ...direction) []direction { return all }

// cases are policies of namespace x and what they leave.
var cases = []struct {
	name     string
	policies []spec
	allowed  func(from, to string, protocol corev1.Protocol, port uint16) bool
}{
	{"default deny ingress", []spec{{}},
		func(_, to string, _ corev1.Protocol, _ uint16) bool { return !in("x", to) }},
	{"default deny egress", []spec{{PolicyTypes: policyTypes("Egress")}},
		func(from, _ string, _ corev1.Protocol, _ uint16) bool { return !in("x", from) }},
	{"default deny both", []spec{{PolicyTypes: policyTypes("Ingress", "Egress")}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool { return !in("x", from) && !in("x", to) }},
	{"types follow the rules: egress rules isolate both", []spec{{PodSelector: pods("a"), Egress: []to{{}}}},
		func(_, to string, _ corev1.Protocol, _ uint16) bool { return to != "x/a" }},
	{"ingress type alone ignores egress rules", []spec{{PodSelector: pods("a"), PolicyTypes: policyTypes("Ingress"), Ingress: []from{{}}, Egress: []to{{To: peers(peerSpec{PodSelector: selects("pod", "b")})}}}},
		func(_, _ string, _ corev1.Protocol, _ uint16) bool { return true }},
	{"allow all", []spec{{Ingress: []from{{}}}, {}},
		func(_, _ string, _ corev1.Protocol, _ uint16) bool { return true }},
	{"a pod selector means the policy's namespace", []spec{{PodSelector: pods("a"), Ingress: []from{{From: peers(peerSpec{PodSelector: selects("pod", "b")})}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool { return to != "x/a" || from == "x/b" }},
	{"an empty pod selector means its whole namespace", []spec{{PodSelector: pods("a"), Ingress: []from{{From: peers(peerSpec{PodSelector: all()})}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool { return to != "x/a" || in("x", from) }},
	{"a namespace selector means all its pods", []spec{{PodSelector: pods("a"), Ingress: []from{{From: peers(peerSpec{NamespaceSelector: selects("ns", "y", "z")})}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool {
			return to != "x/a" || in("y", from) || in("z", from)
		}},
	{"an empty namespace selector means every pod, not the world", []spec{{PodSelector: pods("a"), Ingress: []from{{From: peers(peerSpec{NamespaceSelector: all()})}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool { return to != "x/a" || from != "world" }},
	{"namespace and pod in one peer are an and", []spec{{PodSelector: pods("a"), Ingress: []from{{From: peers(peerSpec{NamespaceSelector: selects("ns", "y", "z"), PodSelector: selects("pod", "b")})}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool {
			return to != "x/a" || from == "y/b" || from == "z/b"
		}},
	{"namespace and pod in two peers are an or", []spec{{PodSelector: pods("a"), Ingress: []from{{From: peers(peerSpec{NamespaceSelector: selects("ns", "y")}, peerSpec{PodSelector: selects("pod", "b")})}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool {
			return to != "x/a" || in("y", from) || from == "x/b"
		}},
	{"a port", []spec{{PodSelector: pods("a"), Ingress: []from{{Ports: ports(at(81))}}}},
		func(_, to string, protocol corev1.Protocol, port uint16) bool {
			return to != "x/a" || protocol == tcp && port == 81
		}},
	{"a protocol", []spec{{PodSelector: pods("a"), Ingress: []from{{Ports: ports(at(nil, udp))}}}},
		func(_, to string, protocol corev1.Protocol, _ uint16) bool { return to != "x/a" || protocol == udp }},
	{"a range of ports", []spec{{PodSelector: pods("a"), Egress: []to{{Ports: ports(at(79, 80), at(80, corev1.ProtocolSCTP, 90))}}, PolicyTypes: policyTypes("Egress")}},
		func(from, _ string, protocol corev1.Protocol, port uint16) bool {
			return from != "x/a" || port == 80 && protocol != udp
		}},
	{"peers and ports of a rule are an and, rules an or", []spec{{PodSelector: pods("a"), Ingress: []from{
		{From: peers(peerSpec{NamespaceSelector: selects("ns", "y")}), Ports: ports(at(80))}, {From: peers(peerSpec{PodSelector: selects("pod", "b")}), Ports: ports(at(81))}}}},
		func(from, to string, protocol corev1.Protocol, port uint16) bool {
			return to != "x/a" || protocol == tcp && (in("y", from) && port == 80 || from == "x/b" && port == 81)
		}},
	{"a named port is each receiver's own", []spec{{Ingress: []from{{Ports: ports(at("web"))}}}},
		func(_, to string, protocol corev1.Protocol, port uint16) bool {
			return !in("x", to) || protocol == tcp && (to == "x/c") == (port == 81)
		}},
	{"a named port has a protocol", []spec{{Ingress: []from{{Ports: ports(at("dns"), at("dns", udp), at("none"))}}}},
		func(_, to string, protocol corev1.Protocol, _ uint16) bool { return !in("x", to) || protocol == udp }},
	{"a named port of egress is each peer's own", []spec{{PodSelector: pods("a"), Egress: []to{{To: peers(peerSpec{NamespaceSelector: selects("ns", "y")}), Ports: ports(at("web"))}}, PolicyTypes: policyTypes("Egress")}},
		func(from, to string, protocol corev1.Protocol, port uint16) bool {
			return from != "x/a" || in("y", to) && protocol == tcp && (to == "y/c") == (port == 81)
		}},
	{"a named port of egress to everybody", []spec{{PodSelector: pods("a"), Egress: []to{{Ports: ports(at("web"))}}, PolicyTypes: policyTypes("Egress")}},
		func(from, to string, protocol corev1.Protocol, port uint16) bool {
			return from != "x/a" || to != "world" && protocol == tcp && strings.HasSuffix(to, "/c") == (port == 81)
		}},
	{"a named port of egress to a block", []spec{{PodSelector: pods("a"), Egress: []to{{To: peers(block("10.244.1.0/24", "10.244.1.1/32")), Ports: ports(at("web"))}}, PolicyTypes: policyTypes("Egress")}},
		func(from, to string, protocol corev1.Protocol, port uint16) bool {
			return from != "x/a" || protocol == tcp && (to == "y/b" && port == 80 || to == "y/c" && port == 81)
		}},
	{"a block with an exception", []spec{{PodSelector: pods("a"), Ingress: []from{{From: peers(block("0.0.0.0/0", "10.244.1.0/24"))}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool { return to != "x/a" || !in("y", from) }},
	{"an exception of one peer is no exception of another", []spec{{PodSelector: pods("a"), Ingress: []from{{From: peers(block("0.0.0.0/0", "10.244.1.0/24"), block("10.244.1.2/32"))}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool {
			return to != "x/a" || !in("y", from) || from == "y/b"
		}},
	{"a block of one address", []spec{{PodSelector: pods("a"), Egress: []to{{To: peers(block("10.244.1.2/32"))}}, PolicyTypes: policyTypes("Egress")}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool { return from != "x/a" || to == "y/b" }},
	{"a block of the other family", []spec{{PodSelector: pods("a"), Egress: []to{{To: peers(block("::/0"))}}, PolicyTypes: policyTypes("Egress")}},
		func(from, _ string, _ corev1.Protocol, _ uint16) bool { return from != "x/a" }},
	{"policies add up", []spec{{PolicyTypes: policyTypes("Ingress", "Egress")}, {PodSelector: pods("a"), Ingress: []from{{From: peers(peerSpec{PodSelector: selects("pod", "b")})}}},
		{PodSelector: pods("a", "c"), Ingress: []from{{From: peers(peerSpec{NamespaceSelector: selects("ns", "y")}), Ports: ports(at(80))}}}},
		func(from, to string, protocol corev1.Protocol, port uint16) bool {
			open := (to == "x/a" || to == "x/c") && in("y", from) && protocol == tcp && port == 80
			return !in("x", from) && (!in("x", to) || open)
		}},
	{"both sides must allow", []spec{{PodSelector: pods("a"), Egress: []to{{To: peers(peerSpec{PodSelector: selects("pod", "b")})}}, PolicyTypes: policyTypes("Egress")},
		{PodSelector: pods("b"), Ingress: []from{{Ports: ports(at(80))}}}},
		func(from, to string, protocol corev1.Protocol, port uint16) bool {
			return (from != "x/a" || to == "x/b") && (to != "x/b" || protocol == tcp && port == 80)
		}},
	{"a selector by expressions", []spec{{PodSelector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "pod", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"b", "c"}}}},
		Ingress: []from{{From: peers(peerSpec{NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "ns", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}}}}})}}}},
		func(from, to string, _ corev1.Protocol, _ uint16) bool {
			return to != "x/a" || in("y", from) || in("z", from)
		}},
	{"ports nobody can mean", []spec{{PodSelector: pods("a"), Ingress: []from{{Ports: ports(at(90, 80), at(70000), at(0))}}}},
		func(_, to string, _ corev1.Protocol, _ uint16) bool { return to != "x/a" }},
}

func TestPolicies(t *testing.T) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t)
			for i, s := range tc.policies {
				c.policy("x", fmt.Sprint(i), s)
			}
			c.expect(tc.allowed)
			for i := range tc.policies {
				c.plan.DeletePolicy(Key{"x", fmt.Sprint(i)})
				c.take()
			}
			c.expect(func(_, _ string, _ corev1.Protocol, _ uint16) bool { return true })
			if len(c.model.sets) != 1 || len(c.model.chains) != 0 {
				t.Errorf("left: %v %v", c.model.sets, c.model.chains)
			}
		})
	}
}

// TestOnlyTheNodesPods: what runs elsewhere is enforced there.
func TestOnlyTheNodesPods(t *testing.T) {
	c := newCluster(t)
	c.policy("z", "deny", spec{Ingress: []from{{From: peers(peerSpec{PodSelector: all()})}}})
	c.expect(func(_, _ string, _ corev1.Protocol, _ uint16) bool { return true })
	if len(c.model.sets) != 1 {
		t.Errorf("a policy of other nodes' pods made sets: %v", c.model.sets)
	}
}

func TestPodsComeAndGo(t *testing.T) {
	c := newCluster(t)
	c.policy("x", "p", spec{PodSelector: pods("a"), Ingress: []from{{From: peers(peerSpec{NamespaceSelector: selects("ns", "y"), PodSelector: selects("pod", "b")})}}})
	only := func(peers ...string) {
		t.Helper()
		c.expect(func(from, to string, _ corev1.Protocol, _ uint16) bool {
			return to != "x/a" || slices.Contains(peers, from)
		})
	}
	only("y/b")

	// A peer's label: one element, nothing else.
	c.plan.SetPod(c.pod("y", "c", func(p *corev1.Pod) { p.Labels["pod"] = "b" }))
	d := c.plan.Take()
	if len(d.Add) != 1 || len(d.NewSets)+len(d.NewChains)+len(d.Remove)+len(d.Verdicts[0])+len(d.OldSets) != 0 {
		t.Errorf("a peer more is %+v, want one element", d)
	}
	c.model.apply(d)
	only("y/b", "y/c")

	// The namespace loses its label, and gets it back.
	c.plan.SetNamespace(namespace("y", nil))
	c.take()
	only()
	c.plan.SetNamespace(namespace("y", map[string]string{"ns": "y"}))
	c.take()
	only("y/b", "y/c")

	// A status nobody looks at changes nothing.
	c.plan.SetPod(c.pod("y", "b", func(p *corev1.Pod) { p.Status.Message = "busy" }))
	if d := c.plan.Take(); !d.Empty() {
		t.Errorf("a message in the status is %+v", d)
	}

	// Ended and host network pods are no peers.
	c.plan.SetPod(c.pod("y", "b", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }))
	c.plan.SetPod(c.pod("y", "c", func(p *corev1.Pod) { p.Labels["pod"] = "b"; p.Spec.HostNetwork = true }))
	c.take()
	only()

	// The pod leaves what selects it, comes back, and takes the network of the host.
	c.plan.SetPod(c.pod("x", "a", func(p *corev1.Pod) { p.Labels = nil }))
	c.take()
	c.expect(func(_, _ string, _ corev1.Protocol, _ uint16) bool { return true })
	c.plan.SetPod(c.pod("x", "a", nil))
	c.take()
	only()
	c.plan.SetPod(c.pod("x", "a", func(p *corev1.Pod) { p.Spec.HostNetwork = true }))
	c.take()
	c.expect(func(_, _ string, _ corev1.Protocol, _ uint16) bool { return true })
}

// TestAddressPassedOn: a pod ends while a new one has its address already.
func TestAddressPassedOn(t *testing.T) {
	c := newCluster(t)
	c.policy("x", "p", spec{PodSelector: pods("new"), Ingress: []from{{From: peers(peerSpec{PodSelector: selects("pod", "b")})}}})
	heir := c.pod("x", "a", func(p *corev1.Pod) { p.Name, p.Labels = "new", map[string]string{"pod": "new"} })
	c.plan.SetPod(heir)
	c.take()
	only := func(from, to string, _ corev1.Protocol, _ uint16) bool { return to != "x/a" || from == "x/b" }
	c.expect(only)
	c.plan.DeletePod(Key{"x", "a"})
	c.take()
	c.expect(only)
}

// TestHold: a pod that will be isolated and has no address yet.
func TestHold(t *testing.T) {
	c := newCluster(t)
	bare := c.pod("x", "a", func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} })
	c.plan.SetPod(bare)
	c.take()
	if c.model.hold != [2]bool{} {
		t.Error("nothing isolates the pod, and yet unknown addresses are held")
	}
	c.policy("x", "p", spec{PodSelector: pods("a"), PolicyTypes: policyTypes("Egress")})
	if c.model.hold != [2]bool{Egress: true} {
		t.Errorf("held: %v, want egress", c.model.hold)
	}
	c.plan.SetPod(c.pod("x", "a", nil))
	c.take()
	if c.model.hold != [2]bool{} {
		t.Error("held although every pod has an address")
	}
}

func TestSharing(t *testing.T) {
	c := newCluster(t)
	rule := from{From: peers(peerSpec{NamespaceSelector: selects("ns", "z")})}
	c.policy("x", "p", spec{Ingress: []from{rule}})
	c.policy("y", "p", spec{Ingress: []from{rule, rule}})
	if len(c.model.chains) != 1 || len(c.model.sets) != 2 {
		t.Errorf("six pods of equal rules have %d chains and %d sets, want one and one beside the node's pods", len(c.model.chains), len(c.model.sets))
	}
}

func TestBlockRanges(t *testing.T) {
	for _, tc := range []struct{ block, want string }{
		{"10.0.0.0/8", "10.0.0.0-10.255.255.255"},
		{"10.0.0.0/8 10.0.0.0/9", "10.128.0.0-10.255.255.255"},
		{"10.0.0.0/8 10.128.0.0/9", "10.0.0.0-10.127.255.255"},
		{"10.0.0.0/24 10.0.0.4/30 10.0.0.6/32 10.0.0.8/32", "10.0.0.0-10.0.0.3 10.0.0.9-10.0.0.255"},
		{"10.0.0.7/24 10.0.0.0/24", ""},
		{"0.0.0.0/0 255.255.255.255/32", "0.0.0.0-255.255.255.254"},
		{"0.0.0.0/0 0.0.0.0/1 128.0.0.0/1", ""},
		{"::/0 8000::/1", "::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"10.0.0.0/8 fd00::/8", "10.0.0.0-10.255.255.255"},
		{"nonsense", ""},
	} {
		fields := strings.Fields(tc.block)
		var got []string
		for _, r := range blockRanges(&networkingv1.IPBlock{CIDR: fields[0], Except: fields[1:]}) {
			got = append(got, fmt.Sprintf("%s-%s", r.First, r.Last))
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s is %v, want %s", tc.block, got, tc.want)
		}
	}
	one, two := Range{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.0.3")}, Range{netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("10.0.0.9")}
	if got := merge([]Range{two, one, one}); len(got) != 1 || got[0] != (Range{one.First, two.Last}) {
		t.Errorf("merged: %v", got)
	}
}

// TestEarlyAddress: the address is told before the status has it, for this pod
// and no later one of its name.
func TestEarlyAddress(t *testing.T) {
	c := newCluster(t)
	c.policy("x", "p", spec{PodSelector: pods("a"), PolicyTypes: policyTypes("Ingress")})
	denied := func(_, to string, _ corev1.Protocol, _ uint16) bool { return to != "x/a" }
	bare := func(uid types.UID) *corev1.Pod {
		return c.pod("x", "a", func(p *corev1.Pod) { p.UID, p.Status = uid, corev1.PodStatus{Phase: corev1.PodPending} })
	}
	key, addresses := Key{"x", "a"}, []netip.Addr{c.addrs["x/a"]}
	for _, told := range []bool{false, true} { // before the pod is known, and after
		c.plan.DeletePod(key)
		if told {
			c.plan.SetPod(bare("1"))
		}
		c.plan.SetAddresses(key, "1", addresses)
		c.plan.SetPod(bare("1"))
		c.take()
		c.expect(denied)
		if !c.plan.Knows(key, "1") || c.plan.Knows(key, "2") || !c.plan.Isolates(key) || c.model.hold != [2]bool{} {
			t.Error("the pod is not known as it is")
		}
	}
	c.plan.SetPod(bare("2"))
	c.take()
	if c.model.hold != [2]bool{Ingress: true} {
		t.Errorf("the next pod of the name has the address of the last: held %v", c.model.hold)
	}
}
