// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/client"
)

// With a pool of load balancers' addresses each Gateway gets one of its own: by a
// Service of type LoadBalancer without a selector, whose endpoints are the nodes
// that serve Gateways. Each node keeps the connections it gets to itself, and the
// kernel tells which address a client asked for.

const (
	// poolAnnotation is on Services whose address is of a pool.
	poolAnnotation = "kaji.dev/load-balancer-pool"
	// gatewayLabel names the Gateway, as implementations of the Gateway API do.
	gatewayLabel = "gateway.networking.k8s.io/gateway-name"
	managedBy    = "gateway.kaji.dev"
	// claimAgain is when what failed is tried again.
	claimAgain = 5 * time.Second
)

// Node is one that serves Gateways.
type Node struct {
	Name      string
	Addresses []netip.Addr
}

// serviceName is the name of a Gateway's Service.
func serviceName(gateway string) string {
	const prefix, longest = "gateway-", 63
	if len(prefix)+len(gateway) <= longest {
		return prefix + gateway
	}
	sum := sha256.Sum256([]byte(gateway))
	return prefix + gateway[:longest-len(prefix)-9] + "-" + hex.EncodeToString(sum[:4])
}

// owns says whether a Service is a Gateway's.
func owns(one *gatewayv1.Gateway, s *corev1.Service) bool {
	return s != nil && metav1.IsControlledBy(s, one)
}

// addressesOf leads from Gateways' own addresses to them.
func (g *Controller) addressesOf(all []*gatewayv1.Gateway) map[netip.Addr]types.NamespacedName {
	out := map[netip.Addr]types.NamespacedName{}
	for _, one := range all {
		for _, a := range g.ownAddresses(one) {
			if addr, err := netip.ParseAddr(a); err == nil {
				out[addr] = types.NamespacedName{Namespace: one.Namespace, Name: one.Name}
			}
		}
	}
	return out
}

// ownAddresses are those that the Gateway's Service has of a pool.
func (g *Controller) ownAddresses(one *gatewayv1.Gateway) []string {
	s := g.c.Backends.Service(one.Namespace, serviceName(one.Name))
	if !owns(one, s) || s.Annotations[poolAnnotation] == "" {
		return nil
	}
	var out []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		if i.IP != "" {
			out = append(out, i.IP)
		}
	}
	return out
}

// claim makes the Services of Gateways, and takes them away where there is no pool.
func (g *Controller) claim(ctx context.Context, all []*gatewayv1.Gateway) {
	for _, one := range all {
		if err := g.claimOne(ctx, one); err != nil && ctx.Err() == nil {
			g.c.Logger.Warn("a Gateway's own address could not be asked for", "gateway", one.Namespace+"/"+one.Name, "err", err)
			time.AfterFunc(claimAgain, g.Touch)
		}
	}
}

func (g *Controller) claimOne(ctx context.Context, one *gatewayv1.Gateway) error {
	api, name := client.For[*corev1.Service](g.c.Client), serviceName(one.Name)
	have := g.c.Backends.Service(one.Namespace, name)
	if !g.c.OwnAddresses {
		if !owns(one, have) {
			return nil
		}
		err := api.Delete(ctx, one.Namespace, name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	want := g.service(one, name)
	switch {
	case len(want.Spec.Ports) == 0:
		return nil
	case have == nil:
		made, err := api.Create(ctx, want)
		if err != nil {
			if apierrors.IsAlreadyExists(err) {
				return nil // it will be seen
			}
			return err
		}
		have = made
	case !owns(one, have):
		return nil // somebody else's by that name: the Gateway waits for its address
	case !samePorts(have.Spec.Ports, want.Spec.Ports) || have.Spec.LoadBalancerIP != want.Spec.LoadBalancerIP:
		patch := map[string]any{"spec": map[string]any{"ports": want.Spec.Ports, "loadBalancerIP": want.Spec.LoadBalancerIP}}
		if _, err := api.MergePatch(ctx, one.Namespace, name, patch, ""); err != nil {
			return err
		}
	}
	return g.point(ctx, one, have, want.Spec.Ports)
}

// service is what a Gateway's Service should be.
func (g *Controller) service(one *gatewayv1.Gateway, name string) *corev1.Service {
	local, none := corev1.ServiceInternalTrafficPolicyLocal, false
	s := &corev1.Service{ObjectMeta: g.meta(one, name), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, AllocateLoadBalancerNodePorts: &none,
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, InternalTrafficPolicy: &local}}
	var ports []int32
	for _, l := range one.Spec.Listeners {
		ports = append(ports, int32(l.Port))
	}
	slices.Sort(ports)
	for _, p := range slices.Compact(ports) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: portName(p), Port: p, Protocol: corev1.ProtocolTCP})
	}
	for _, a := range one.Spec.Addresses {
		if a.Type == nil || *a.Type == gatewayv1.IPAddressType {
			s.Spec.LoadBalancerIP = cmp.Or(s.Spec.LoadBalancerIP, a.Value)
		}
	}
	return s
}

func (g *Controller) meta(one *gatewayv1.Gateway, name string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: one.Namespace, Name: name, Labels: map[string]string{},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(one, gatewayv1.SchemeGroupVersion.WithKind("Gateway"))}}
	m.OwnerReferences[0].BlockOwnerDeletion = nil
	if len(one.Name) <= 63 {
		m.Labels[gatewayLabel] = one.Name
	}
	return m
}

func portName(port int32) string { return "port-" + strconv.Itoa(int(port)) }

func samePorts(a, b []corev1.ServicePort) bool {
	return slices.EqualFunc(a, b, func(x, y corev1.ServicePort) bool { return x.Port == y.Port && x.Name == y.Name })
}

// point makes the nodes the endpoints of a Gateway's Service.
func (g *Controller) point(ctx context.Context, one *gatewayv1.Gateway, s *corev1.Service, ports []corev1.ServicePort) error {
	api := client.For[*discoveryv1.EndpointSlice](g.c.Client)
	families := s.Spec.IPFamilies
	if len(families) == 0 { // a server that gives no Service its address
		families = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	for _, family := range families {
		want := g.slice(one, s, family, ports)
		have, err := api.Get(ctx, one.Namespace, want.Name)
		if apierrors.IsNotFound(err) {
			if _, err := api.Create(ctx, want); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if metav1.IsControlledBy(have, one) && (!same(have.Endpoints, want.Endpoints) || !same(have.Ports, want.Ports)) {
			next := have.DeepCopy()
			next.Endpoints, next.Ports = want.Endpoints, want.Ports
			if _, err := api.Update(ctx, next); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Controller) slice(one *gatewayv1.Gateway, s *corev1.Service, family corev1.IPFamily, ports []corev1.ServicePort) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{ObjectMeta: g.meta(one, s.Name+"-"+map[corev1.IPFamily]string{corev1.IPv4Protocol: "v4", corev1.IPv6Protocol: "v6"}[family]),
		AddressType: discoveryv1.AddressType(family)}
	out.Labels[discoveryv1.LabelServiceName], out.Labels[discoveryv1.LabelManagedBy] = s.Name, managedBy
	ready := true
	for _, n := range g.c.Nodes() {
		i := slices.IndexFunc(n.Addresses, func(a netip.Addr) bool { return a.Is6() == (family == corev1.IPv6Protocol) })
		if i < 0 {
			continue
		}
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: []string{n.Addresses[i].String()}, NodeName: &n.Name,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready},
			// Pods and nodes, which may go to any endpoint, go to that of their own
			// node: only there the kernel knows which address they asked for.
			Hints: &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: n.Name}}}})
	}
	for _, p := range ports {
		out.Ports = append(out.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol})
	}
	return out
}
