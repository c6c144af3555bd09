// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// TestRandom changes pods, namespaces and policies at random and compares what
// the kernel would let through with the API's words read one by one.
func TestRandom(t *testing.T) {
	for seed := range uint64(80) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &random{cluster: newCluster(t), Rand: rand.New(rand.NewPCG(seed, 0)), objects: map[string]*corev1.Pod{},
				namespaces: map[string]map[string]string{}, policies: map[string]*networkingv1.NetworkPolicy{}}
			for _, ns := range []string{"x", "y", "z"} {
				w.namespaces[ns] = map[string]string{"ns": ns}
				for _, name := range []string{"a", "b", "c"} {
					w.objects[ns+"/"+name] = w.pod(ns, name, nil)
				}
			}
			for range 10 {
				for range w.IntN(4) {
					w.step()
				}
				w.take()
				w.expect(w.naive)
				if t.Failed() {
					for name, p := range w.policies {
						t.Logf("%s: %+v", name, p.Spec)
					}
					return
				}
			}
		})
	}
}

// random is a cluster with the objects it was last given.
type random struct {
	*cluster
	*rand.Rand
	objects    map[string]*corev1.Pod
	namespaces map[string]map[string]string
	policies   map[string]*networkingv1.NetworkPolicy
}

func pick[T any](w *random, from ...T) T { return from[w.IntN(len(from))] }

func (w *random) step() {
	ns, name := pick(w, "x", "y", "z"), pick(w, "a", "b", "c")
	switch w.IntN(6) {
	case 0:
		w.namespaces[ns] = pick(w, map[string]string{"ns": ns}, map[string]string{"ns": "x"}, nil)
		w.plan.SetNamespace(namespace(ns, w.namespaces[ns]))
	case 1:
		p := w.pod(ns, name, func(p *corev1.Pod) {
			p.Labels = pick(w, map[string]string{"pod": name}, map[string]string{"pod": "a"}, nil)
			p.Spec.HostNetwork = w.IntN(8) == 0
			p.Status.Phase = pick(w, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodSucceeded)
		})
		w.objects[ns+"/"+name] = p
		w.plan.SetPod(p)
	case 2:
		delete(w.policies, ns+"/"+name)
		w.plan.DeletePolicy(Key{ns, name})
	default:
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: w.spec()}
		w.policies[ns+"/"+name] = p
		w.plan.SetPolicy(p)
	}
}

func (w *random) spec() spec {
	s := spec{PodSelector: *w.selector("pod", "a", "b", "c")}
	for range w.IntN(3) {
		s.Ingress = append(s.Ingress, from{From: some(w, w.peer), Ports: some(w, w.port)})
	}
	for range w.IntN(3) {
		s.Egress = append(s.Egress, to{To: some(w, w.peer), Ports: some(w, w.port)})
	}
	s.PolicyTypes = pick(w, nil, policyTypes("Ingress"), policyTypes("Egress"), policyTypes("Ingress", "Egress"))
	return s
}

func some[T any](w *random, one func() T) []T {
	var out []T
	for range w.IntN(3) {
		out = append(out, one())
	}
	return out
}

func (w *random) selector(key string, values ...string) *metav1.LabelSelector {
	if w.IntN(4) == 0 {
		return all()
	}
	op := pick(w, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)
	if op == metav1.LabelSelectorOpExists || op == metav1.LabelSelectorOpDoesNotExist {
		values = nil
	} else {
		values = values[w.IntN(len(values)):]
	}
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: op, Values: values}}}
}

func (w *random) peer() peerSpec {
	pods, namespaces := w.selector("pod", "a", "b", "c"), w.selector("ns", "x", "y", "z")
	return pick(w, peerSpec{PodSelector: pods}, peerSpec{NamespaceSelector: namespaces}, peerSpec{PodSelector: pods, NamespaceSelector: namespaces},
		block("0.0.0.0/0"), block("10.244.0.0/16", "10.244.1.0/24", "10.244.1.2/31"), block("10.244.1.0/30", "10.244.1.0/31"), block("192.0.2.1/32"), block("::/0"))
}

func (w *random) port() portSpec {
	return pick(w, portSpec{}, at(80), at(81), at(80, udp), at(80, 81), at(70, 80, udp), at("web"), at("dns", udp), at("dns"), at("none"),
		portSpec{Protocol: pick(w, new(tcp), new(udp), new(corev1.ProtocolSCTP))})
}

// naive reads the policies as the API describes them, for one packet.
func (w *random) naive(from, to string, protocol corev1.Protocol, port uint16) bool {
	return w.side(to, from, networkingv1.PolicyTypeEgress, to, protocol, port) &&
		w.side(to, to, networkingv1.PolicyTypeIngress, from, protocol, port)
}

// side judges one end of a connection, whose peer is the other.
func (w *random) side(to, end string, side direction, peer string, protocol corev1.Protocol, port uint16) bool {
	pod := w.objects[end]
	if pod == nil || pod.Spec.NodeName != "here" || !subject(pod) {
		return true
	}
	isolated := false
	for _, p := range w.policies {
		if p.Namespace != pod.Namespace || !matches(&p.Spec.PodSelector, pod.Labels) || !applies(p, side) {
			continue
		}
		isolated = true
		if side == networkingv1.PolicyTypeIngress {
			for _, r := range p.Spec.Ingress {
				if w.peers(p, r.From, peer) && w.ports(r.Ports, to, protocol, port) {
					return true
				}
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			if w.peers(p, r.To, peer) && w.ports(r.Ports, to, protocol, port) {
				return true
			}
		}
	}
	return !isolated
}

func subject(p *corev1.Pod) bool {
	return !p.Spec.HostNetwork && p.Status.Phase == corev1.PodRunning
}

func matches(s *metav1.LabelSelector, of map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(of))
}

func applies(p *networkingv1.NetworkPolicy, side direction) bool {
	if len(p.Spec.PolicyTypes) > 0 {
		return slices.Contains(p.Spec.PolicyTypes, side)
	}
	return side == networkingv1.PolicyTypeIngress || len(p.Spec.Egress) > 0
}

func (w *random) peers(p *networkingv1.NetworkPolicy, all []peerSpec, name string) bool {
	return len(all) == 0 || slices.ContainsFunc(all, func(q peerSpec) bool {
		if q.IPBlock != nil {
			inside := func(cidr string) bool { return netip.MustParsePrefix(cidr).Contains(w.addrs[name]) }
			return inside(q.IPBlock.CIDR) && !slices.ContainsFunc(q.IPBlock.Except, inside)
		}
		pod := w.objects[name]
		switch {
		case pod == nil || !subject(pod):
			return false
		case q.NamespaceSelector == nil && pod.Namespace != p.Namespace,
			q.NamespaceSelector != nil && !matches(q.NamespaceSelector, w.namespaces[pod.Namespace]),
			q.PodSelector != nil && !matches(q.PodSelector, pod.Labels):
			return false
		}
		return true
	})
}

// ports says whether a packet to a pod is at one of the ports; names are the
// receiver's.
func (w *random) ports(all []portSpec, to string, protocol corev1.Protocol, port uint16) bool {
	return len(all) == 0 || slices.ContainsFunc(all, func(p portSpec) bool {
		want := tcp
		if p.Protocol != nil {
			want = *p.Protocol
		}
		switch {
		case want != protocol:
			return false
		case p.Port == nil:
			return true
		case p.Port.StrVal != "":
			pod := w.objects[to]
			return pod != nil && subject(pod) && slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(c corev1.ContainerPort) bool {
				return c.Name == p.Port.StrVal && c.Protocol == protocol && c.ContainerPort == int32(port)
			})
		}
		last := p.Port.IntVal
		if p.EndPort != nil {
			last = *p.EndPort
		}
		return p.Port.IntVal <= int32(port) && int32(port) <= last
	})
}
