// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// policy is a NetworkPolicy made ready for questions.
type policy struct {
	pods     labels.Selector
	isolates [2]bool
	rules    [2][]rule
}

// rule allows what comes from (or goes to) any of its peers at any of its ports.
type rule struct {
	// peers is nil for everybody, and empty for nobody.
	peers []peer
	// ports is nil for every protocol and port.
	ports []port
}

// peer is a block of addresses or a selection of pods.
type peer struct {
	block *networkingv1.IPBlock
	// namespace is the policy's own; it counts when namespaces is nil.
	namespace  string
	namespaces labels.Selector
	pods       labels.Selector
}

// port is a range of a protocol, or a name that each pod gives its own number.
type port struct {
	protocol    corev1.Protocol
	first, last uint16
	name        string
}

func compile(o *networkingv1.NetworkPolicy) *policy {
	out := &policy{pods: selector(&o.Spec.PodSelector)}
	out.isolates[Ingress] = len(o.Spec.PolicyTypes) == 0 || slices.Contains(o.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	out.isolates[Egress] = len(o.Spec.PolicyTypes) == 0 && len(o.Spec.Egress) > 0 || slices.Contains(o.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	for _, r := range o.Spec.Ingress {
		out.rules[Ingress] = append(out.rules[Ingress], rule{peersOf(o.Namespace, r.From), portsOf(r.Ports)})
	}
	for _, r := range o.Spec.Egress {
		out.rules[Egress] = append(out.rules[Egress], rule{peersOf(o.Namespace, r.To), portsOf(r.Ports)})
	}
	return out
}

// selector returns nil for nil. What cannot be read, and no server stores,
// selects nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return nil
	}
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return out
}

func peersOf(namespace string, all []networkingv1.NetworkPolicyPeer) []peer {
	if len(all) == 0 {
		return nil
	}
	out := []peer{}
	for _, p := range all {
		switch {
		case p.IPBlock != nil:
			out = append(out, peer{block: p.IPBlock})
		case p.NamespaceSelector != nil || p.PodSelector != nil:
			out = append(out, peer{namespace: namespace, namespaces: selector(p.NamespaceSelector), pods: selector(p.PodSelector)})
		}
	}
	return out
}

func portsOf(all []networkingv1.NetworkPolicyPort) []port {
	if len(all) == 0 {
		return nil
	}
	out := []port{}
	for _, p := range all {
		to := port{protocol: corev1.ProtocolTCP, last: 65535}
		if p.Protocol != nil {
			to.protocol = protocolOf(*p.Protocol)
		}
		switch {
		case p.Port == nil:
		case p.Port.Type == intstr.String:
			to.name = p.Port.StrVal
		default:
			end := p.Port.IntVal
			if p.EndPort != nil {
				end = *p.EndPort
			}
			if p.Port.IntVal < 1 || end > 65535 || end < p.Port.IntVal {
				continue
			}
			to.first, to.last = uint16(p.Port.IntVal), uint16(end)
		}
		out = append(out, to)
	}
	return out
}

// selects says whether a peer that is no block means a pod.
func (p *peer) selects(namespaces map[string]labels.Set, o *pod) bool {
	if p.namespaces == nil && p.namespace != o.key.Namespace {
		return false
	}
	if p.namespaces != nil {
		ns, known := namespaces[o.key.Namespace]
		if !known || !p.namespaces.Matches(ns) {
			return false
		}
	}
	return p.pods == nil || p.pods.Matches(o.labels)
}

// identity is equal for peers that mean the same.
func (p *peer) identity() string {
	if p.block != nil {
		return fmt.Sprintf("block %q %q", p.block.CIDR, p.block.Except)
	}
	where, which := fmt.Sprintf("in %q", p.namespace), ""
	if p.namespaces != nil {
		where = fmt.Sprintf("where %q", p.namespaces.String())
	}
	if p.pods != nil {
		which = p.pods.String()
	}
	return fmt.Sprintf("%s pods %q", where, which)
}

func identityOf(peers []peer) string {
	if peers == nil {
		return "everybody"
	}
	var parts []string
	for _, p := range peers {
		parts = append(parts, p.identity())
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}
