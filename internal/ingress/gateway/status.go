// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"encoding/json"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/client"
	"kaji/internal/ingress/gateway/plan"
)

// features are what is served of that which the specification leaves open.
var features = []gatewayv1.FeatureName{"GRPCRoute", "GRPCRouteNamedRouteRule", "Gateway", "GatewayAddressEmpty",
	"GatewayHTTPListenerIsolation", "GatewayHTTPSListenerDetectMisdirectedRequests", "GatewayPort8080", "HTTPRoute", "HTTPRoute303RedirectStatusCode",
	"HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode", "HTTPRouteBackendProtocolH2C", "HTTPRouteBackendProtocolWebSocket",
	"HTTPRouteBackendRequestHeaderModification", "HTTPRouteBackendTimeout", "HTTPRouteCORS", "HTTPRouteHostRewrite", "HTTPRouteMethodMatching", "HTTPRouteNamedRouteRule", "HTTPRouteParentRefPort",
	"HTTPRoutePathRedirect", "HTTPRoutePathRewrite", "HTTPRoutePortRedirect", "HTTPRouteQueryParamMatching", "HTTPRouteRequestMirror", "HTTPRouteRequestMultipleMirrors",
	"HTTPRouteRequestPercentageMirror", "HTTPRouteRequestTimeout", "HTTPRouteResponseHeaderModification", "HTTPRouteSchemeRedirect", "ReferenceGrant", "TLSRoute",
	"TLSRouteModeMixed", "TLSRouteModeTerminate"}

// accept writes a class's status.
func (g *Controller) accept(ctx context.Context, class *gatewayv1.GatewayClass) {
	status := class.Status.DeepCopy()
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{Type: string(gatewayv1.GatewayClassConditionStatusAccepted), Status: metav1.ConditionTrue,
		Reason: string(gatewayv1.GatewayClassReasonAccepted), Message: "it is served by kaji", ObservedGeneration: class.Generation})
	status.SupportedFeatures = nil
	for _, f := range features {
		status.SupportedFeatures = append(status.SupportedFeatures, gatewayv1.SupportedFeature{Name: f})
	}
	if !reflect.DeepEqual(status, &class.Status) {
		patch(ctx, g, g.kinds.classes, class, status)
	}
}

// settle gives new conditions the times of transition of the old ones.
func settle(old, conditions []metav1.Condition) []metav1.Condition {
	out := make([]metav1.Condition, len(conditions))
	for i, c := range conditions {
		c.LastTransitionTime = metav1.Now()
		if before := meta.FindStatusCondition(old, c.Type); before != nil && before.Status == c.Status {
			c.LastTransitionTime = before.LastTransitionTime
		}
		out[i] = c
	}
	return out
}

// publish writes the status of all Gateways and routes.
func (g *Controller) publish(ctx context.Context, w *plan.World, p *plan.Plan) {
	for _, one := range w.Gateways {
		status := p.Gateways[types.NamespacedName{Namespace: one.Namespace, Name: one.Name}]
		status.Conditions = settle(one.Status.Conditions, status.Conditions)
		for i := range status.Listeners {
			var old []metav1.Condition
			for _, l := range one.Status.Listeners {
				if l.Name == status.Listeners[i].Name {
					old = l.Conditions
				}
			}
			status.Listeners[i].Conditions = settle(old, status.Listeners[i].Conditions)
		}
		status.AttachedListenerSets = one.Status.AttachedListenerSets
		if !same(status, one.Status) {
			patch(ctx, g, g.kinds.gateways, one, status)
		}
	}
	for _, r := range w.HTTP {
		publishRoute(ctx, g, g.kinds.http, plan.HTTPRoute, r, r.Status.RouteStatus, p)
	}
	for _, r := range w.GRPC {
		publishRoute(ctx, g, g.kinds.grpc, plan.GRPCRoute, r, r.Status.RouteStatus, p)
	}
	for _, r := range w.TLS {
		publishRoute(ctx, g, g.kinds.tls, plan.TLSRoute, r, r.Status.RouteStatus, p)
	}
}

// publishRoute writes what is said here about a route, and leaves what other
// controllers say.
func publishRoute[T metav1.Object](ctx context.Context, g *Controller, k *kind[T], kind string, r T, status gatewayv1.RouteStatus, p *plan.Plan) {
	next := gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{}}
	var ours []gatewayv1.RouteParentStatus
	for _, one := range status.Parents {
		if one.ControllerName == ControllerName {
			ours = append(ours, one)
		} else {
			next.Parents = append(next.Parents, one)
		}
	}
	for _, one := range p.Parents[plan.RouteName{Kind: kind, NamespacedName: types.NamespacedName{Namespace: r.GetNamespace(), Name: r.GetName()}}] {
		var old []metav1.Condition
		for _, before := range ours {
			if reflect.DeepEqual(before.ParentRef, one.ParentRef) {
				old = before.Conditions
			}
		}
		one.Conditions = settle(old, one.Conditions)
		next.Parents = append(next.Parents, one)
	}
	if len(next.Parents)+len(status.Parents) > 0 && !same(next, status) {
		patch(ctx, g, k, r, next)
	}
}

// same compares what is written, not how it is held.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// patch writes a status, unless the object is another by now: then it is looked
// at again anyway.
func patch[T metav1.Object](ctx context.Context, g *Controller, k *kind[T], o T, status any) {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": o.GetResourceVersion()}, "status": status})
	if err == nil {
		_, err = k.api.Patch(ctx, client.Resource{GroupVersionResource: k.gvr, Namespace: o.GetNamespace(), Subresource: "status"}, o.GetName(),
			types.MergePatchType, data, metav1.PatchOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		g.c.Logger.Warn("a status could not be written", "resource", k.gvr.Resource, "namespace", o.GetNamespace(), "name", o.GetName(), "err", err)
	}
}
