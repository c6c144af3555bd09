// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func condition(kind string, status bool, reason, message string, generation int64) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: generation}
	if status {
		c.Status = metav1.ConditionTrue
	}
	return c
}

// of makes a condition of a finding: true with the reason good, or false.
func (f finding) of(kind, good string, generation int64) metav1.Condition {
	if f.reason == "" {
		return condition(kind, true, good, "", generation)
	}
	return condition(kind, false, f.reason, f.message, generation)
}

func (m *maker) gatewayStatus(g *gateway) gatewayv1.GatewayStatus {
	var out gatewayv1.GatewayStatus
	generation := g.object.Generation
	usable := 0
	for _, l := range g.listeners {
		if l.usable() && l.closed.reason == "" {
			usable++
		}
		out.Listeners = append(out.Listeners, l.status(generation))
	}
	addresses, missing := m.addresses(g.object)
	kind := gatewayv1.IPAddressType
	for _, a := range addresses {
		out.Addresses = append(out.Addresses, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a})
	}
	accepted := condition(string(gatewayv1.GatewayConditionAccepted), true, string(gatewayv1.GatewayReasonAccepted), "", generation)
	programmed := condition(string(gatewayv1.GatewayConditionProgrammed), true, string(gatewayv1.GatewayReasonProgrammed), "", generation)
	fail := func(c *metav1.Condition, reason gatewayv1.GatewayConditionReason, message string) {
		*c = condition(c.Type, false, string(reason), message, generation)
	}
	switch {
	case g.unsupported != "":
		fail(&accepted, gatewayv1.GatewayReasonUnsupportedAddress, "addresses of type "+g.unsupported+" are not supported")
		fail(&programmed, gatewayv1.GatewayReasonInvalid, "the Gateway is not accepted")
	case usable == 0:
		fail(&accepted, gatewayv1.GatewayReasonListenersNotValid, "no listener can be served")
		fail(&programmed, gatewayv1.GatewayReasonInvalid, "no listener can be served")
	case usable < len(g.listeners):
		accepted.Reason, accepted.Message = string(gatewayv1.GatewayReasonListenersNotValid), "some listeners cannot be served"
	}
	if programmed.Status == metav1.ConditionTrue {
		switch {
		case missing != "":
			fail(&programmed, gatewayv1.GatewayReasonAddressNotUsable, m.notThere(missing))
		case len(addresses) == 0:
			fail(&programmed, gatewayv1.GatewayReasonAddressNotAssigned, m.notYet())
		}
	}
	out.Conditions = []metav1.Condition{accepted, programmed}
	return out
}

// addresses are where the Gateway is reached: of those it asks for, missing is
// one that no node has.
func (m *maker) addresses(g *gatewayv1.Gateway) (out []string, missing string) {
	all := m.Addresses
	if m.Own != nil {
		all = m.Own(g)
	}
	for _, a := range g.Spec.Addresses {
		switch {
		case a.Value == "":
		case slices.Contains(all, a.Value):
			out = append(out, a.Value)
		default:
			missing = a.Value
		}
	}
	if out == nil && missing == "" {
		out = all
	}
	return out, missing
}

func (m *maker) notThere(address string) string {
	if m.Own != nil {
		return "the load balancer has not given it the address " + address
	}
	return "no node that serves Gateways has the address " + address
}

func (m *maker) notYet() string {
	if m.Own != nil {
		return "the load balancer has given it no address yet"
	}
	return "no node serves Gateways yet"
}

func (l *listener) status(generation int64) gatewayv1.ListenerStatus {
	programmed := finding{}
	switch {
	case l.accepted.reason != "":
		programmed.set(string(gatewayv1.ListenerReasonInvalid), "%s", l.accepted.message)
	case l.conflicted.reason != "":
		programmed.set(string(gatewayv1.ListenerReasonInvalid), "%s", l.conflicted.message)
	case l.broken:
		programmed.set(string(gatewayv1.ListenerReasonInvalid), "%s", l.resolved.message)
	}
	accepted := l.accepted
	if l.closed.reason != "" {
		programmed.set(string(gatewayv1.ListenerReasonInvalid), "%s", l.closed.message)
		accepted.set(l.closed.reason, "%s", l.closed.message)
	}
	if l.conflicted.reason != "" {
		accepted.set(l.conflicted.reason, "%s", l.conflicted.message)
	}
	conflicted := condition(string(gatewayv1.ListenerConditionConflicted), false, string(gatewayv1.ListenerReasonNoConflicts), "", generation)
	if l.conflicted.reason != "" {
		conflicted = condition(conflicted.Type, true, l.conflicted.reason, l.conflicted.message, generation)
	}
	kinds := l.kinds
	if kinds == nil {
		kinds = []gatewayv1.RouteGroupKind{}
	}
	return gatewayv1.ListenerStatus{Name: l.spec.Name, SupportedKinds: kinds, AttachedRoutes: l.attached, Conditions: []metav1.Condition{
		accepted.of(string(gatewayv1.ListenerConditionAccepted), string(gatewayv1.ListenerReasonAccepted), generation),
		programmed.of(string(gatewayv1.ListenerConditionProgrammed), string(gatewayv1.ListenerReasonProgrammed), generation),
		l.resolved.of(string(gatewayv1.ListenerConditionResolvedRefs), string(gatewayv1.ListenerReasonResolvedRefs), generation),
		conflicted,
	}}
}
