// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/ingress/route"
	"kaji/internal/ingress/upstream"
)

// The annotations that choose a class, before the spec had a field, and that
// make a class the cluster's default.
const (
	classAnnotation   = "kubernetes.io/ingress.class"
	defaultAnnotation = "ingressclass.kubernetes.io/is-default-class"
)

// touch has everything looked at again.
func (c *Controller) touch() {
	c.mu.Lock()
	c.mu.all = true
	c.mu.Unlock()
	c.rouse()
}

// touchService has the endpoints of one Service looked at again.
func (c *Controller) touchService(namespace, name string) {
	c.mu.Lock()
	c.mu.changed[types.NamespacedName{Namespace: namespace, Name: name}] = true
	c.mu.Unlock()
	c.rouse()
}

func (c *Controller) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

const byService = "ingress.service"

// watchBackends begins to watch what the first Ingress needs.
func (c *Controller) watchBackends() {
	c.slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string {
		return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
	})
	service := func(s *corev1.Service) { c.touchService(s.Namespace, s.Name) }
	c.services.AddHandler(client.Handler[*corev1.Service]{Add: service, Delete: service, Update: func(_, s *corev1.Service) { service(s) }})
	slice := func(s *discoveryv1.EndpointSlice) {
		c.touchService(s.Namespace, s.Labels[discoveryv1.LabelServiceName])
	}
	c.slices.AddHandler(client.Handler[*discoveryv1.EndpointSlice]{Add: slice, Delete: slice, Update: func(old, s *discoveryv1.EndpointSlice) { slice(old); slice(s) }})
	node := func(*corev1.Node) { c.touch() }
	c.nodes.AddHandler(client.Handler[*corev1.Node]{Add: node, Delete: node, Update: func(old, n *corev1.Node) {
		if !slices.Equal(old.Status.Addresses, n.Status.Addresses) {
			node(n)
		}
	}})
}

// sync takes up what has changed.
func (c *Controller) sync(ctx context.Context) {
	c.mu.Lock()
	all, changed := c.mu.all, c.mu.changed
	c.mu.all, c.mu.changed = false, map[types.NamespacedName]bool{}
	c.mu.Unlock()
	now := c.current.Load()
	for backend, pool := range now.pools {
		if changed[types.NamespacedName{Namespace: backend.Namespace, Name: backend.Service}] {
			pool.Set(c.resolve(backend))
		}
	}
	if all {
		c.rebuild(ctx, now)
	}
}

// rebuild makes a new table. Pools stay, and with them who is next in turn.
func (c *Controller) rebuild(ctx context.Context, before *snapshot) {
	ours := c.owned()
	sources := make([]*route.Source, 0, len(ours))
	wanted := map[types.NamespacedName]bool{}
	seen := map[types.UID]bool{}
	for _, ing := range ours {
		seen[ing.UID] = true
		source := c.compile(ing)
		sources = append(sources, source)
		for _, name := range source.Secrets() {
			wanted[name] = true
		}
	}
	for uid := range c.compiled {
		if !seen[uid] {
			delete(c.compiled, uid)
			delete(c.told, uid)
		}
	}
	c.secrets.watch(ctx, wanted)
	next := &snapshot{table: route.Merge(sources), pools: map[route.Backend]*upstream.Pool{}}
	for _, r := range next.table.Rules() {
		if r.Backend == nil || next.pools[*r.Backend] != nil {
			continue
		}
		pool := before.pools[*r.Backend]
		if pool == nil {
			pool = &upstream.Pool{}
			pool.Set(c.resolve(*r.Backend))
		}
		next.pools[*r.Backend] = pool
	}
	c.current.Store(next)
	for i, ing := range ours {
		c.report(ctx, ing, sources[i])
	}
	c.publish(ctx, ours)
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

// resolve returns the addresses of a backend's ready endpoints.
func (c *Controller) resolve(b route.Backend) []string {
	service, err := c.services.Cached(b.Namespace, b.Service)
	if err != nil {
		return nil
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		if b.Port.Number == 0 {
			return nil
		}
		return []string{net.JoinHostPort(service.Spec.ExternalName, strconv.Itoa(int(b.Port.Number)))}
	}
	at := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
		return (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) && (b.Port.Name != "" && p.Name == b.Port.Name || b.Port.Name == "" && p.Port == b.Port.Number)
	})
	if at < 0 {
		return nil
	}
	return addresses(c.slices.ByIndex(byService, b.Namespace+"/"+b.Service), service.Spec.Ports[at].Name)
}

// addresses are those of the ready endpoints of a named port, or, where none is
// ready, of those that end but still serve, as Services have it.
func addresses(all []*discoveryv1.EndpointSlice, port string) []string {
	var ready, ending []string
	for _, s := range all {
		if s.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		number := portNumber(s, port)
		if number == "" {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			to := net.JoinHostPort(e.Addresses[0], number)
			switch is := e.Conditions; {
			case is.Ready == nil || *is.Ready:
				ready = append(ready, to)
			case is.Serving != nil && *is.Serving && is.Terminating != nil && *is.Terminating:
				ending = append(ending, to)
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.Sort(ready)
	return slices.Compact(ready)
}

func portNumber(s *discoveryv1.EndpointSlice, name string) string {
	for _, p := range s.Ports {
		if p.Port != nil && (p.Name == nil && name == "" || p.Name != nil && *p.Name == name) && (p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP) {
			return strconv.Itoa(int(*p.Port))
		}
	}
	return ""
}
