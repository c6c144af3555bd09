// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// gateway is one with what was found about it.
type gateway struct {
	object    *gatewayv1.Gateway
	listeners []*listener
	// unsupported is an address that no node can have.
	unsupported string
}

// listener is one with what was found about it.
type listener struct {
	gateway *gatewayv1.Gateway
	spec    *gatewayv1.Listener
	kinds   []gatewayv1.RouteGroupKind
	// A condition is as it should be while its reason is empty.
	accepted, conflicted, resolved finding
	// closed is why its port is not open: it is tried again as long as the
	// listener is there.
	closed finding
	// broken says that what did not resolve leaves nothing to serve with.
	broken   bool
	attached int32
	out      *Listener
}

// finding is why a condition is not as it should be.
type finding struct{ reason, message string }

func (f *finding) set(reason, format string, args ...any) {
	if f.reason == "" {
		f.reason, f.message = reason, fmt.Sprintf(format, args...)
	}
}

func (l *listener) usable() bool {
	return l.accepted.reason == "" && l.conflicted.reason == "" && !l.broken
}

func (l *listener) secure() bool { return l.spec.Protocol != gatewayv1.HTTPProtocolType }

func (m *maker) gateway(g *gatewayv1.Gateway) *gateway {
	out := &gateway{object: g}
	for _, a := range g.Spec.Addresses {
		if a.Type != nil && *a.Type != gatewayv1.IPAddressType {
			out.unsupported = string(*a.Type)
		}
	}
	for i := range g.Spec.Listeners {
		l := &listener{gateway: g, spec: &g.Spec.Listeners[i]}
		l.out = &Listener{Gateway: nameOf(g), Name: string(l.spec.Name), rules: map[string][]*Rule{}, streams: map[string]*Stream{}}
		if l.spec.Hostname != nil {
			l.out.Host = strings.ToLower(string(*l.spec.Hostname))
		}
		m.protocol(l)
		m.certificates(l)
		m.conflicts(out.listeners, l)
		out.listeners = append(out.listeners, l)
	}
	return out
}

// protocol decides what the listener speaks and which routes it takes.
func (m *maker) protocol(l *listener) {
	var supported []string
	switch l.spec.Protocol {
	case gatewayv1.HTTPProtocolType, gatewayv1.HTTPSProtocolType:
		supported = []string{HTTPRoute, GRPCRoute}
	case gatewayv1.TLSProtocolType:
		supported, l.out.Streams = []string{TLSRoute}, true
	default:
		l.accepted.set(string(gatewayv1.ListenerReasonUnsupportedProtocol), "protocol %q is not supported", l.spec.Protocol)
		return
	}
	group := gatewayv1.Group(gatewayv1.GroupName)
	asked := supported
	if a := l.spec.AllowedRoutes; a != nil && len(a.Kinds) > 0 {
		asked = nil
		for _, k := range a.Kinds {
			if (k.Group == nil || *k.Group == group) && slices.Contains(supported, string(k.Kind)) {
				asked = append(asked, string(k.Kind))
				continue
			}
			l.resolved.set(string(gatewayv1.ListenerReasonInvalidRouteKinds), "routes of kind %q are not supported with protocol %s", k.Kind, l.spec.Protocol)
		}
		l.broken = len(asked) == 0
	}
	l.kinds = []gatewayv1.RouteGroupKind{}
	for _, k := range asked {
		l.kinds = append(l.kinds, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(k)})
	}
	if secure, ok := m.Taken[uint16(l.spec.Port)]; ok && secure != l.secure() {
		l.accepted.set(string(gatewayv1.ListenerReasonPortUnavailable), "port %d serves Ingresses by another protocol", l.spec.Port)
	}
	if err := m.Problem(uint16(l.spec.Port)); err != nil {
		l.closed.set(string(gatewayv1.ListenerReasonPortUnavailable), "%v", err)
	}
}

// certificates finds what the listener shows.
func (m *maker) certificates(l *listener) {
	if !l.secure() || l.accepted.reason != "" {
		return
	}
	t := l.spec.TLS
	if t == nil {
		t = &gatewayv1.ListenerTLSConfig{}
	}
	if t.Mode != nil && *t.Mode == gatewayv1.TLSModePassthrough {
		if l.spec.Protocol == gatewayv1.HTTPSProtocolType {
			l.accepted.set(string(gatewayv1.ListenerReasonUnsupportedValue), "protocol HTTPS cannot pass TLS through")
		}
		l.out.Passthrough = true
		return
	}
	if len(t.CertificateRefs) == 0 {
		l.broken = true
		l.resolved.set(string(gatewayv1.ListenerReasonInvalidCertificateRef), "there is no certificate to terminate TLS with")
		return
	}
	for _, ref := range t.CertificateRefs {
		if name := m.certificate(l, ref); name != nil {
			l.out.Certificates = append(l.out.Certificates, *name)
		}
	}
	l.broken = l.broken || len(l.out.Certificates) == 0
}

func (m *maker) certificate(l *listener, ref gatewayv1.SecretObjectReference) *types.NamespacedName {
	name := types.NamespacedName{Namespace: l.gateway.Namespace, Name: string(ref.Name)}
	if ref.Group != nil && *ref.Group != "" || ref.Kind != nil && *ref.Kind != "Secret" {
		l.resolved.set(string(gatewayv1.ListenerReasonInvalidCertificateRef), "%s is not a Secret", ref.Name)
		return nil
	}
	if ref.Namespace != nil {
		name.Namespace = string(*ref.Namespace)
	}
	if !m.granted("Gateway", l.gateway.Namespace, "", "Secret", name) {
		l.resolved.set(string(gatewayv1.ListenerReasonRefNotPermitted), "no ReferenceGrant lets a Gateway in namespace %s use Secret %s", l.gateway.Namespace, name)
		return nil
	}
	m.out.Secrets[name] = true
	if err := m.Secret(name); err != nil {
		l.resolved.set(string(gatewayv1.ListenerReasonInvalidCertificateRef), "Secret %s: %v", name, err)
		return nil
	}
	return &name
}

// conflicts compares a listener with those before it: in its own Gateway, where
// both lose, and in older ones, which win.
func (m *maker) conflicts(siblings []*listener, l *listener) {
	if l.accepted.reason != "" {
		return
	}
	for _, other := range siblings {
		if other.spec.Port != l.spec.Port || other.accepted.reason != "" {
			continue
		}
		reason := ""
		switch {
		case other.secure() != l.secure(), other.spec.Protocol != l.spec.Protocol && other.out.Host == l.out.Host:
			reason = string(gatewayv1.ListenerReasonProtocolConflict)
		case other.out.Host == l.out.Host:
			reason = string(gatewayv1.ListenerReasonHostnameConflict)
		default:
			continue
		}
		l.conflicted.set(reason, "it is in conflict with listener %s at port %d", other.spec.Name, l.spec.Port)
		other.conflicted.set(reason, "it is in conflict with listener %s at port %d", l.spec.Name, l.spec.Port)
	}
	for _, g := range m.gateways {
		for _, other := range g.listeners {
			if other.spec.Port == l.spec.Port && other.usable() && other.secure() != l.secure() {
				l.accepted.set(string(gatewayv1.ListenerReasonPortUnavailable), "port %d has another protocol in Gateway %s", l.spec.Port, nameOf(g.object))
			}
		}
	}
}

// granted says whether an object may refer to one in another namespace.
func (m *maker) granted(fromKind, fromNamespace, toGroup, toKind string, to types.NamespacedName) bool {
	if fromNamespace == to.Namespace {
		return true
	}
	for _, g := range m.Grants {
		if g.Namespace != to.Namespace {
			continue
		}
		from := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return f.Group == gatewayv1.GroupName && string(f.Kind) == fromKind && string(f.Namespace) == fromNamespace
		})
		if from && slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Group) == toGroup && string(t.Kind) == toKind && (t.Name == nil || *t.Name == "" || string(*t.Name) == to.Name)
		}) {
			return true
		}
	}
	return false
}

// allows says whether the listener takes routes of a kind from a namespace.
func (m *maker) allows(l *listener, kind, namespace string) bool {
	if !slices.ContainsFunc(l.kinds, func(k gatewayv1.RouteGroupKind) bool { return string(k.Kind) == kind }) {
		return false
	}
	from := gatewayv1.NamespacesFromSame
	var selector *metav1.LabelSelector
	if a := l.spec.AllowedRoutes; a != nil && a.Namespaces != nil {
		if a.Namespaces.From != nil {
			from = *a.Namespaces.From
		}
		selector = a.Namespaces.Selector
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		s, err := metav1.LabelSelectorAsSelector(selector)
		return err == nil && s.Matches(labels.Set(m.Labels(namespace)))
	case gatewayv1.NamespacesFromSame:
		return namespace == l.gateway.Namespace
	}
	return false
}
