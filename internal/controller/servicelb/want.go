// SPDX-License-Identifier: Apache-2.0

package servicelb

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/controller/balance"
	"kaji/internal/controller/queue"
)

// Class is the loadBalancerClass of this implementation; Services without one
// are its own too.
const Class = "kaji.dev/local"

// PoolAnnotation tells from which pool the addresses of a Service are; package
// loadbalancer announces those.
const PoolAnnotation = "kaji.dev/load-balancer-pool"

// Annotations that are understood, ours first. Others' names mean the same
// there, so that manifests keep working.
var (
	addressAnnotations = []string{"kaji.dev/load-balancer-ips", "metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs",
		"service.beta.kubernetes.io/aws-load-balancer-private-ipv4-addresses", "service.beta.kubernetes.io/azure-load-balancer-ipv4"}
	sharingAnnotations = []string{"kaji.dev/load-balancer-sharing-key", "metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip", "lbipam.cilium.io/sharing-key"}
)

// unsupported are annotations whose meaning a balancer of packets cannot give.
var unsupported = []struct{ annotation, what string }{
	{"service.beta.kubernetes.io/aws-load-balancer-proxy-protocol", "the PROXY protocol is not spoken: the address of the client is kept with externalTrafficPolicy Local"},
	{"service.beta.kubernetes.io/aws-load-balancer-ssl-cert", "TLS is not ended at the load balancer: the pods, or an Ingress, must do so"},
	{"service.beta.kubernetes.io/aws-load-balancer-backend-protocol", "connections are balanced, not their contents"},
}

// reach says who a load balancer is for.
type reach int

const (
	anybody reach = iota
	outside
	inside
)

// port is one that a Service answers at.
type port struct {
	protocol corev1.Protocol
	number   int32
}

// String is "80/TCP".
func (p port) String() string { return fmt.Sprintf("%d/%s", p.number, p.protocol) }

// want is what a Service asks of its load balancer.
type want struct {
	key queue.Key
	// v6 are the families, the first one first.
	v6        []bool
	required  bool // all of them
	addresses []netip.Addr
	sharing   string
	ports     []port
	reach     reach
	local     bool
	selector  string
}

// ours says whether a Service is for this load balancer.
func ours(s *corev1.Service) bool {
	return balance.Of(s, "", Class)
}

// wantOf reads a Service. The error is for its author.
func wantOf(s *corev1.Service) (want, error) {
	w := want{key: queue.Key{Namespace: s.Namespace, Name: s.Name}, sharing: annotation(s, sharingAnnotations), reach: reachOf(s),
		required: s.Spec.IPFamilyPolicy != nil && *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack,
		local:    s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		selector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: s.Spec.Selector})}
	for _, f := range s.Spec.IPFamilies {
		w.v6 = append(w.v6, f == corev1.IPv6Protocol)
	}
	if len(w.v6) == 0 {
		w.v6 = []bool{strings.Contains(s.Spec.ClusterIP, ":")}
	}
	for _, p := range s.Spec.Ports {
		w.ports = append(w.ports, port{cmp.Or(p.Protocol, corev1.ProtocolTCP), p.Port})
	}
	for text := range strings.SplitSeq(cmp.Or(s.Spec.LoadBalancerIP, annotation(s, addressAnnotations)), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return w, fmt.Errorf("the requested address %q is none", text)
		}
		if !slices.Contains(w.v6, addr.Is6()) {
			return w, fmt.Errorf("the requested address %s is of no family of the Service", addr)
		}
		if slices.ContainsFunc(w.addresses, func(o netip.Addr) bool { return o.Is6() == addr.Is6() }) {
			return w, fmt.Errorf("more than one address of a family is requested")
		}
		w.addresses = append(w.addresses, addr)
	}
	return w, nil
}

func annotation(s *corev1.Service, of []string) string {
	for _, name := range of {
		if v := s.Annotations[name]; v != "" {
			return v
		}
	}
	return ""
}

// reachOf reads the annotations of clouds that ask for an address inside their
// network or outside.
func reachOf(s *corev1.Service) reach {
	const aws = "service.beta.kubernetes.io/aws-load-balancer-"
	switch {
	case s.Annotations[aws+"scheme"] == "internal", s.Annotations[aws+"internal"] == "true", s.Annotations[aws+"internal"] == "0.0.0.0/0",
		s.Annotations["service.beta.kubernetes.io/azure-load-balancer-internal"] == "true",
		strings.EqualFold(s.Annotations["networking.gke.io/load-balancer-type"], "internal"):
		return inside
	case s.Annotations[aws+"scheme"] == "internet-facing":
		return outside
	}
	return anybody
}

// requested returns the address asked for in a family.
func (w *want) requested(v6 bool) (netip.Addr, bool) {
	for _, a := range w.addresses {
		if a.Is6() == v6 {
			return a, true
		}
	}
	return netip.Addr{}, false
}
