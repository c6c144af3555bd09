// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// route is one of any kind.
type route struct {
	name       RouteName
	created    time.Time
	generation int64
	parents    []gatewayv1.ParentReference
	hosts      []string
	// compile makes the rules, once; its findings hold for all parents.
	compile func(*compiler)
}

func newRoute(kind string, o metav1.Object, spec gatewayv1.CommonRouteSpec, hosts []gatewayv1.Hostname) *route {
	r := &route{name: RouteName{kind, nameOf(o)}, created: o.GetCreationTimestamp().Time, generation: o.GetGeneration(), parents: spec.ParentRefs}
	for _, h := range hosts {
		r.hosts = append(r.hosts, strings.ToLower(string(h)))
	}
	if len(r.hosts) == 0 {
		r.hosts = []string{""}
	}
	return r
}

// attach gives a route's rules to the listeners that take it.
func (m *maker) attach(r *route) {
	c := &compiler{maker: m, route: r}
	r.compile(c)
	var parents []gatewayv1.RouteParentStatus
	for _, ref := range r.parents {
		g := m.parent(r, ref)
		if g == nil {
			continue
		}
		accepted := c.accepted
		if listeners := m.listeners(g, ref); len(listeners) == 0 {
			accepted.set(string(gatewayv1.RouteReasonNoMatchingParent), "the Gateway has no such listener")
		} else {
			m.join(c, listeners, &accepted)
		}
		parents = append(parents, gatewayv1.RouteParentStatus{ParentRef: ref, ControllerName: m.Controller, Conditions: []metav1.Condition{
			accepted.of(string(gatewayv1.RouteConditionAccepted), string(gatewayv1.RouteReasonAccepted), r.generation),
			c.resolved.of(string(gatewayv1.RouteConditionResolvedRefs), string(gatewayv1.RouteReasonResolvedRefs), r.generation),
		}})
	}
	if len(parents) > 0 {
		m.out.Parents[r.name] = parents
	}
}

// parent returns the Gateway that a reference means, or nil.
func (m *maker) parent(r *route, ref gatewayv1.ParentReference) *gateway {
	if ref.Group != nil && *ref.Group != gatewayv1.GroupName || ref.Kind != nil && *ref.Kind != "Gateway" {
		return nil
	}
	name := types.NamespacedName{Namespace: r.name.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		name.Namespace = string(*ref.Namespace)
	}
	for _, g := range m.gateways {
		if nameOf(g.object) == name {
			return g
		}
	}
	return nil
}

// listeners are those of a Gateway that a reference means.
func (m *maker) listeners(g *gateway, ref gatewayv1.ParentReference) []*listener {
	var out []*listener
	for _, l := range g.listeners {
		if (ref.SectionName == nil || *ref.SectionName == "" || *ref.SectionName == l.spec.Name) && (ref.Port == nil || *ref.Port == l.spec.Port) {
			out = append(out, l)
		}
	}
	return out
}

// join attaches the route to those listeners that let it.
func (m *maker) join(c *compiler, listeners []*listener, accepted *finding) {
	allowed, joined := false, false
	for _, l := range listeners {
		if !m.allows(l, c.route.name.Kind, c.route.name.Namespace) {
			continue
		}
		allowed = true
		var hosts []string
		for _, h := range c.route.hosts {
			if both, ok := intersect(l.out.Host, h); ok {
				hosts = append(hosts, both)
			}
		}
		if len(hosts) == 0 {
			continue
		}
		joined = true
		if accepted.reason != "" {
			continue
		}
		l.attached++
		for _, h := range hosts {
			c.give(l.out, h)
		}
	}
	switch {
	case !allowed:
		accepted.set(string(gatewayv1.RouteReasonNotAllowedByListeners), "no listener takes a %s from namespace %s", c.route.name.Kind, c.route.name.Namespace)
	case !joined:
		accepted.set(string(gatewayv1.RouteReasonNoMatchingListenerHostname), "no listener has a hostname in common with the route")
	}
}

// give adds the route's rules to a listener, for one hostname.
func (c *compiler) give(l *Listener, host string) {
	if c.stream != nil {
		if l.streams[host] == nil { // the oldest has it
			l.streams[host] = c.stream
		}
		return
	}
	l.rules[host] = append(l.rules[host], c.rules...)
}
