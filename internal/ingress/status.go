// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/ingress/gateway"
	"kaji/internal/ingress/route"
)

// component is the name Events are written under.
const component = "kaji-ingress-controller"

// Annotations of a node: the ports Ingresses are served at, and what is wrong.
const (
	servedAnnotation  = "kaji.dev/ingress-ports"
	problemAnnotation = "kaji.dev/ingress-problem"
)

// announce notes on the node which ports are open: the leader publishes the
// addresses of such nodes, and `kaji status` shows it.
func (c *Controller) announce(ctx context.Context, wanted map[uint16]bool) {
	node, err := c.nodes.Cached("", c.cfg.NodeName)
	if err != nil {
		return // the kubelet has not registered it yet
	}
	var open, problems []string
	for _, port := range slices.Sorted(maps.Keys(wanted)) {
		if c.ports.Bound(port) != nil {
			open = append(open, strconv.Itoa(int(port)))
		}
		if err := c.ports.Problem(port); err != nil {
			problems = append(problems, err.Error())
		}
	}
	want := map[string]string{servedAnnotation: strings.Join(open, ","), problemAnnotation: strings.Join(problems, "; ")}
	patch := map[string]any{}
	for name, value := range want {
		switch {
		case node.Annotations[name] == value:
		case value == "":
			patch[name] = nil
		default:
			patch[name] = value
		}
	}
	if len(patch) == 0 {
		return
	}
	_, err = client.For[*corev1.Node](c.cfg.Node).MergePatch(ctx, "", c.cfg.NodeName, map[string]any{"metadata": map[string]any{"annotations": patch}}, "")
	if err != nil && ctx.Err() == nil {
		c.log.Warn("what is served here could not be noted on the node", "err", err)
	}
}

// publish writes the addresses of the nodes that serve them into the status of
// the Ingresses.
func (c *Controller) publish(ctx context.Context, ours []*networkingv1.Ingress) {
	var want []networkingv1.IngressLoadBalancerIngress
	for _, a := range c.addresses() {
		want = append(want, networkingv1.IngressLoadBalancerIngress{IP: a})
	}
	if len(want) == 0 {
		return
	}
	for _, ing := range ours {
		if reflect.DeepEqual(ing.Status.LoadBalancer.Ingress, want) {
			continue
		}
		patch := map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": want}}}
		if _, err := c.ingresses.MergePatch(ctx, ing.Namespace, ing.Name, patch, "status"); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			c.log.Warn("the status of an Ingress could not be written", "ingress", ing.Namespace+"/"+ing.Name, "err", err)
		}
	}
}

// addresses are those of the nodes that serve anything.
func (c *Controller) addresses() []string {
	var out []string
	nodes := c.nodes.CachedList("", nil)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, node := range nodes {
		if node.Annotations[servedAnnotation] == "" {
			continue
		}
		for _, a := range node.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				out = append(out, a.Address)
			}
		}
	}
	return out
}

// servers are the nodes that serve anything.
func (c *Controller) servers() []gateway.Node {
	var out []gateway.Node
	nodes := c.nodes.CachedList("", nil)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, node := range nodes {
		if node.Annotations[servedAnnotation] == "" {
			continue
		}
		n := gateway.Node{Name: node.Name}
		for _, a := range node.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
				n.Addresses = append(n.Addresses, addr)
			}
		}
		out = append(out, n)
	}
	return out
}

// report tells an Ingress's owner, once, what is wrong in it.
func (c *Controller) report(ctx context.Context, ing *networkingv1.Ingress, source *route.Source) {
	problems := source.Problems
	for _, name := range source.Secrets() {
		switch e := c.secrets.Get(name); {
		case e == nil:
		case !e.Exists:
			problems = append(problems[:len(problems):len(problems)], fmt.Sprintf("Secret %s does not exist", name))
		case e.Err != nil && usesCertificate(source, name):
			problems = append(problems[:len(problems):len(problems)], fmt.Sprintf("Secret %s: %v; the default certificate is shown", name, e.Err))
		}
	}
	now := map[string]bool{}
	for _, text := range problems {
		now[text] = true
		if !c.told[ing.UID][text] {
			c.warn(ctx, ing, text)
		}
	}
	c.told[ing.UID] = now
}

func usesCertificate(source *route.Source, name types.NamespacedName) bool {
	for _, one := range source.Certificates {
		if one.Secret == name.Name {
			return true
		}
	}
	return false
}

// warn writes an Event; one that cannot be written is lost.
func (c *Controller) warn(ctx context.Context, ing *networkingv1.Ingress, text string) {
	now := metav1.Now()
	_, err := client.For[*corev1.Event](c.cfg.Client).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: ing.Namespace, Name: fmt.Sprintf("%s.%x", ing.Name, now.UnixNano())},
		InvolvedObject: corev1.ObjectReference{Kind: "Ingress", APIVersion: "networking.k8s.io/v1", Namespace: ing.Namespace,
			Name: ing.Name, UID: ing.UID, ResourceVersion: ing.ResourceVersion},
		Type: corev1.EventTypeWarning, Reason: "Rejected", Message: text, Source: corev1.EventSource{Component: component}, ReportingController: component,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	})
	if err != nil && ctx.Err() == nil {
		c.log.Warn("an Event could not be written", "ingress", ing.Namespace+"/"+ing.Name, "err", err)
	}
}
