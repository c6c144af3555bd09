// SPDX-License-Identifier: Apache-2.0

// Package plan reads Gateways and their routes as the Gateway API's
// specification has it: what listens where, which route answers which request,
// and what is said about it in the objects' status. It is pure: it asks nobody
// and changes nothing. Package gateway makes a plan whenever an object changes,
// and serves by it.
package plan

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/ingress/backend"
)

// The kinds of routes.
const (
	HTTPRoute = "HTTPRoute"
	GRPCRoute = "GRPCRoute"
	TLSRoute  = "TLSRoute"
)

// World is what there is. Nothing in it is changed.
type World struct {
	// Controller is the name of who plans, for status.
	Controller gatewayv1.GatewayController
	// Gateways are those to serve.
	Gateways []*gatewayv1.Gateway
	HTTP     []*gatewayv1.HTTPRoute
	GRPC     []*gatewayv1.GRPCRoute
	TLS      []*gatewayv1.TLSRoute
	Grants   []*gatewayv1.ReferenceGrant
	// Labels returns a namespace's labels.
	Labels func(namespace string) map[string]string
	// Service returns a Service, or nil.
	Service func(namespace, name string) *corev1.Service
	// Secret says whether a Secret has a certificate; nil is yes.
	Secret func(name types.NamespacedName) error
	// Addresses are where Gateways are reached.
	Addresses []string
	// Own, unless nil, returns the addresses that a Gateway has for itself; it is
	// not reached elsewhere then, as far as its status says.
	Own func(*gatewayv1.Gateway) []string
	// Problem says why a port cannot be opened; nil is that it can.
	Problem func(port uint16) error
	// Taken are ports with another use: whether they speak TLS.
	Taken map[uint16]bool
}

// RouteName names a route of a kind.
type RouteName struct {
	Kind string
	types.NamespacedName
}

// Plan is the result. It must not be changed.
type Plan struct {
	Ports map[uint16]*Port
	// Gateways and Parents are the status of Gateways and routes; times of
	// transitions are not set.
	Gateways map[types.NamespacedName]gatewayv1.GatewayStatus
	Parents  map[RouteName][]gatewayv1.RouteParentStatus
	// Secrets and Backends are all that is referred to.
	Secrets  map[types.NamespacedName]bool
	Backends map[backend.Ref]bool
}

// Port is what listens at one port.
type Port struct {
	Secure bool
	// hosts lead from hostnames, "*.…" and "" among them, to listeners.
	hosts map[string][]*Listener
}

// Listener answers for a hostname at a port.
type Listener struct {
	Gateway types.NamespacedName
	Name    string
	// Host is in lower case; empty is all.
	Host string
	// Streams says that connections are carried, not requests; Passthrough leaves
	// TLS to the backends.
	Streams, Passthrough bool
	Certificates         []types.NamespacedName
	rules                map[string][]*Rule
	streams              map[string]*Stream
}

// Stream is where connections of a hostname go.
type Stream struct{ Backends []Backend }

// Make plans.
func Make(w *World) *Plan {
	m := &maker{World: w, out: &Plan{Ports: map[uint16]*Port{}, Gateways: map[types.NamespacedName]gatewayv1.GatewayStatus{},
		Parents: map[RouteName][]gatewayv1.RouteParentStatus{}, Secrets: map[types.NamespacedName]bool{}, Backends: map[backend.Ref]bool{}}}
	gateways := slices.Clone(w.Gateways)
	slices.SortFunc(gateways, func(a, b *gatewayv1.Gateway) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, g := range gateways {
		m.gateways = append(m.gateways, m.gateway(g))
	}
	for _, r := range w.HTTP {
		m.attach(httpRoute(r))
	}
	for _, r := range w.GRPC {
		m.attach(grpcRoute(r))
	}
	streams := slices.Clone(w.TLS)
	slices.SortFunc(streams, func(a, b *gatewayv1.TLSRoute) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, r := range streams {
		m.attach(tlsRoute(r))
	}
	for _, g := range m.gateways {
		m.out.Gateways[nameOf(g.object)] = m.gatewayStatus(g)
		for _, l := range g.listeners {
			m.publish(l)
		}
	}
	return m.out
}

type maker struct {
	*World
	out      *Plan
	gateways []*gateway
}

// publish gives a usable listener its port.
func (m *maker) publish(l *listener) {
	if !l.usable() {
		return
	}
	number := uint16(l.spec.Port)
	p := m.out.Ports[number]
	if p == nil {
		p = &Port{Secure: l.secure(), hosts: map[string][]*Listener{}}
		m.out.Ports[number] = p
	}
	for _, rules := range l.out.rules {
		slices.SortStableFunc(rules, compareRules)
	}
	p.hosts[l.out.Host] = append(p.hosts[l.out.Host], l.out)
}

// Match returns the listeners with the most specific hostname that covers host.
func (p *Port) Match(host string) []*Listener {
	for pattern := range patterns(host) {
		if found := p.hosts[pattern]; len(found) > 0 {
			return found
		}
	}
	return nil
}

// MatchOf is Match among the listeners of one Gateway; of all where it is nil.
func (p *Port) MatchOf(host string, gateway *types.NamespacedName) []*Listener {
	if gateway == nil {
		return p.Match(host)
	}
	for pattern := range patterns(host) {
		var found []*Listener
		for _, l := range p.hosts[pattern] {
			if l.Gateway == *gateway {
				found = append(found, l)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// Stream returns where connections for a name go, or nil.
func (l *Listener) Stream(name string) *Stream {
	for pattern := range patterns(name) {
		if s := l.streams[pattern]; s != nil {
			return s
		}
	}
	return nil
}

func nameOf(o interface {
	GetNamespace() string
	GetName() string
}) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
