// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/ingress/backend"
	"kaji/internal/ingress/route"
	"kaji/internal/ingress/upstream"
)

// The annotations that choose a class, before the spec had a field, and that
// make a class the cluster's default.
const (
	classAnnotation   = "kubernetes.io/ingress.class"
	defaultAnnotation = "ingressclass.kubernetes.io/is-default-class"
)

func sameMap(a, b map[string]string) bool { return maps.Equal(a, b) }

func (c *Controller) watchNodes() {
	node := func(*corev1.Node) { c.moved() }
	c.nodes.AddHandler(client.Handler[*corev1.Node]{Add: node, Delete: node, Update: func(old, n *corev1.Node) {
		if !slices.Equal(old.Status.Addresses, n.Status.Addresses) || old.Annotations[servedAnnotation] != n.Annotations[servedAnnotation] {
			node(n)
		}
	}})
}

// rebuild makes a new table. Pools stay, and with them who is next in turn.
func (c *Controller) rebuild(ctx context.Context) {
	ours := c.owned()
	sources := make([]*route.Source, 0, len(ours))
	secrets := map[types.NamespacedName]bool{}
	seen := map[types.UID]bool{}
	for _, ing := range ours {
		seen[ing.UID] = true
		source := c.compile(ing)
		sources = append(sources, source)
		for _, name := range source.Secrets() {
			secrets[name] = true
		}
	}
	for uid := range c.compiled {
		if !seen[uid] {
			delete(c.compiled, uid)
			delete(c.told, uid)
		}
	}
	c.secrets.Watch(ctx, secrets)
	c.mu.Lock()
	c.wanted = secrets
	c.mu.Unlock()
	next := &snapshot{table: route.Merge(sources), pools: map[backend.Ref]*upstream.Pool{}}
	wanted := map[backend.Ref]bool{}
	for _, r := range next.table.Rules() {
		for _, ref := range c.backendsOf(r) {
			wanted[ref] = true
			next.pools[ref] = c.backends.Pool(ref)
		}
	}
	c.current.Store(next)
	c.backends.Keep(wanted)
	c.open(ctx)
	if c.cfg.Lead {
		for i, ing := range ours {
			c.report(ctx, ing, sources[i])
		}
		c.publish(ctx, ours)
	}
}

// open opens the wanted ports, and says which are open.
func (c *Controller) open(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := c.gateway.Ports()
	if c.serving.Load() {
		maps.Copy(wanted, c.own())
	}
	c.ports.Want(ctx, wanted)
	c.announce(ctx, wanted)
	if nodes := c.nodes.CachedList("", nil); c.cfg.Lead && len(nodes) > 1 {
		secrets := c.gateway.Secrets()
		maps.Copy(secrets, c.wanted)
		if err := c.grants.set(ctx, secrets); err != nil && ctx.Err() == nil {
			c.log.Warn("other nodes could not be let read the Secrets of Ingresses", "err", err)
		}
	}
}

// own are the ports of Ingresses: whether they speak TLS.
func (c *Controller) own() map[uint16]bool {
	out := map[uint16]bool{}
	if c.cfg.HTTPPort != 0 {
		out[c.cfg.HTTPPort] = false
	}
	if c.cfg.HTTPSPort != 0 {
		out[c.cfg.HTTPSPort] = true
	}
	return out
}

// backendsOf returns all that requests of a rule may reach.
func (c *Controller) backendsOf(r *route.Rule) []backend.Ref {
	var out []backend.Ref
	if r.Backend != nil {
		out = append(out, *r.Backend)
	}
	if ref := c.substitute(r); ref != nil {
		out = append(out, *ref)
	}
	if e := r.Settings.External; e != nil {
		if ref := asked(e); ref != nil {
			out = append(out, *ref)
		}
	}
	return out
}

// substitute is the backend that the annotation default-backend names: the
// Service's first port.
func (c *Controller) substitute(r *route.Rule) *backend.Ref {
	if r.Settings.Substitute == "" {
		return nil
	}
	s := c.backends.Service(r.Ingress.Namespace, r.Settings.Substitute)
	if s == nil || len(s.Spec.Ports) == 0 {
		return nil
	}
	return &backend.Ref{Namespace: s.Namespace, Service: s.Name, Port: networkingv1.ServiceBackendPort{Number: s.Spec.Ports[0].Port}}
}

func (c *Controller) compile(ing *networkingv1.Ingress) *route.Source {
	before := c.compiled[ing.UID]
	if before == nil || before.revision != ing.ResourceVersion {
		before = &compiled{ing.ResourceVersion, route.Compile(ing)}
		c.compiled[ing.UID] = before
	}
	return before.source
}

// owned returns the Ingresses to serve.
func (c *Controller) owned() []*networkingv1.Ingress {
	classes := map[string]bool{}
	byDefault := false
	for _, class := range c.classes.CachedList("", nil) {
		if class.Spec.Controller == ControllerName {
			classes[class.Name] = true
			byDefault = byDefault || class.Annotations[defaultAnnotation] == "true"
		}
	}
	return slices.DeleteFunc(c.ingresses.CachedList("", nil), func(ing *networkingv1.Ingress) bool {
		if ing.DeletionTimestamp != nil {
			return true
		}
		if name := ing.Spec.IngressClassName; name != nil {
			return !classes[*name]
		}
		if name, ok := ing.Annotations[classAnnotation]; ok {
			return !classes[name]
		}
		return !byDefault
	})
}
