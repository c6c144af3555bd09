// SPDX-License-Identifier: Apache-2.0

package servicelb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/controller/balance"
	"kaji/internal/controller/queue"
)

// sharedPorts knows which Service has which port where all Services answer at
// the nodes' own addresses. It is used by one goroutine.
type sharedPorts struct {
	reserved []port
	owner    map[port]queue.Key
}

func newSharedPorts(reserved []int32) *sharedPorts {
	s := &sharedPorts{owner: map[port]queue.Key{}}
	for _, n := range reserved {
		s.reserved = append(s.reserved, port{corev1.ProtocolTCP, n})
	}
	return s
}

// take gives a Service its ports, all or none.
func (s *sharedPorts) take(w want) error {
	s.release(w.key)
	for _, p := range w.ports {
		if slices.Contains(s.reserved, p) {
			return fmt.Errorf("port %s of the nodes' addresses is the nodes' own; give load balancers addresses by --load-balancer-pool", p)
		}
		if o, taken := s.owner[p]; taken {
			return fmt.Errorf("port %s of the nodes' addresses is Service %s's; give load balancers addresses by --load-balancer-pool", p, o)
		}
	}
	for _, p := range w.ports {
		s.owner[p] = w.key
	}
	return nil
}

// release gives ports back; true says that there were some.
func (s *sharedPorts) release(key queue.Key) bool {
	had := false
	for p, o := range s.owner {
		if o == key {
			delete(s.owner, p)
			had = true
		}
	}
	return had
}

// balances says whether load balancers send to a node, as upstream's decide it.
func balances(n *corev1.Node) bool {
	return balance.Targets(n) && n.DeletionTimestamp == nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// addressesOf returns a node's addresses of a family: the external ones, or the
// internal ones where it has none or those are asked for.
func addressesOf(n *corev1.Node, v6, internal bool) []netip.Addr {
	found := map[corev1.NodeAddressType][]netip.Addr{}
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Is6() == v6 {
			found[a.Type] = append(found[a.Type], addr)
		}
	}
	if external := found[corev1.NodeExternalIP]; len(external) > 0 && !internal {
		return external
	}
	return found[corev1.NodeInternalIP]
}

// onNodes returns the nodes' addresses for a Service: of those that have
// endpoints when it keeps traffic local and any has.
func (c *Controller) onNodes(w want) ([]netip.Addr, error) {
	nodes := slices.DeleteFunc(c.nodes.CachedList("", nil), func(n *corev1.Node) bool { return !balances(n) })
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	if w.local {
		if near := c.withEndpoints(w.key); len(near) > 0 {
			nodes = slices.DeleteFunc(nodes, func(n *corev1.Node) bool { return !near[n.Name] })
		}
	}
	var out []netip.Addr
	for _, v6 := range w.v6 {
		asked, asks := w.requested(v6)
		for _, n := range nodes {
			for _, a := range addressesOf(n, v6, w.reach == inside) {
				if !asks || a == asked {
					out = append(out, a)
				}
			}
		}
		if asks && !slices.Contains(out, asked) {
			return nil, fmt.Errorf("the requested address %s is no address of a node, and there is no pool", asked)
		}
	}
	return out, nil
}

// withEndpoints returns the nodes that have ready endpoints of a Service.
func (c *Controller) withEndpoints(key queue.Key) map[string]bool {
	out := map[string]bool{}
	for _, slice := range c.slices.ByIndex(serviceIndex, key.String()) {
		for _, e := range slice.Endpoints {
			if ptr.Deref(e.Conditions.Ready, true) && e.NodeName != nil {
				out[*e.NodeName] = true
			}
		}
	}
	return out
}

const serviceIndex = "servicelb"

func serviceOf(s *discoveryv1.EndpointSlice) queue.Key {
	return queue.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}
