// SPDX-License-Identifier: Apache-2.0

// Package servicelb gives every Service of type LoadBalancer its address: of a
// pool, or, without pools, the nodes' own. The controller manager runs it, as
// upstream's service-lb-controller with a cloud; conditions, events, finalizer
// and annotations are that one's.
//
// It only decides and writes to the API. On the nodes the service proxy takes
// the packets to the addresses, and package loadbalancer answers for those of
// pools on the link. The Services' status is its only memory.
package servicelb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/client"
	"kaji/internal/controller/balance"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

// Config says what is given out.
type Config struct {
	Client client.Interface
	// Pools are the addresses; none stands for those of the nodes.
	Pools []Pool
	// Reserved are TCP ports of the nodes' addresses that no Service gets.
	Reserved []int32
	// Ingress are TCP ports that Ingresses are served at. A Service may take
	// them over, and is told.
	Ingress []int32
	Logger  *slog.Logger
}

// Controller gives out addresses. Make it with New.
type Controller struct {
	cfg      Config
	services client.Typed[*corev1.Service]
	nodes    client.Typed[*corev1.Node]
	slices   client.Typed[*discoveryv1.EndpointSlice]
	events   *event.Recorder
	queue    *queue.Queue[queue.Key]
	nodeIPs  atomic.Pointer[map[netip.Addr]bool]

	// What follows belongs to the queue's one worker.
	ledger  *ledger
	ports   *sharedPorts
	waiting map[queue.Key]string // why
}

// New returns a controller; nothing is given out before Run.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg, services: client.For[*corev1.Service](cfg.Client), nodes: client.For[*corev1.Node](cfg.Client),
		slices: client.For[*discoveryv1.EndpointSlice](cfg.Client), events: event.New(cfg.Client, "service-controller", cfg.Logger),
		ports: newSharedPorts(cfg.Reserved), waiting: map[queue.Key]string{}}
	c.nodeIPs.Store(&map[netip.Addr]bool{})
	c.ledger = newLedger(cfg.Pools, func(a netip.Addr) bool { return (*c.nodeIPs.Load())[a] })
	c.queue = queue.New("service", cfg.Logger, c.reconcile)
	add := func(s *corev1.Service) {
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer || balance.Kept(s) {
			c.queue.Add(queue.Key{Namespace: s.Namespace, Name: s.Name})
		}
	}
	c.services.AddHandler(client.Handler[*corev1.Service]{Add: add, Delete: add,
		Update: func(old, s *corev1.Service) { add(old); add(s) }})
	c.nodes.AddHandler(client.Handler[*corev1.Node]{Add: func(*corev1.Node) { c.nodesChanged() }, Delete: func(*corev1.Node) { c.nodesChanged() },
		Update: func(old, n *corev1.Node) {
			if balances(old) != balances(n) || !slices.Equal(old.Status.Addresses, n.Status.Addresses) {
				c.nodesChanged()
			}
		}})
	if len(cfg.Pools) == 0 {
		c.watchEndpoints()
	}
	return c
}

// nodesChanged learns the nodes' addresses and looks at all Services again.
func (c *Controller) nodesChanged() {
	ips := map[netip.Addr]bool{}
	for _, n := range c.nodes.CachedList("", nil) {
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				ips[addr] = true
			}
		}
	}
	c.nodeIPs.Store(&ips)
	for _, s := range c.services.CachedList("", nil) {
		if ours(s) {
			c.queue.Add(queue.Key{Namespace: s.Namespace, Name: s.Name})
		}
	}
}

// watchEndpoints looks at Services again that keep traffic on the nodes with
// endpoints.
func (c *Controller) watchEndpoints() {
	c.slices.AddIndex(serviceIndex, func(s *discoveryv1.EndpointSlice) []string { return []string{serviceOf(s).String()} })
	changed := func(s *discoveryv1.EndpointSlice) {
		key := serviceOf(s)
		if svc, err := c.services.Cached(key.Namespace, key.Name); err == nil && ours(svc) && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
			c.queue.Add(key)
		}
	}
	c.slices.AddHandler(client.Handler[*discoveryv1.EndpointSlice]{Add: changed, Delete: changed, Update: func(_, s *discoveryv1.EndpointSlice) { changed(s) }})
}

// Run gives out addresses until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.services.Informer(), c.nodes.Informer()) ||
		len(c.cfg.Pools) == 0 && !client.WaitForSync(ctx, c.slices.Informer()) {
		return nil
	}
	c.nodesChanged()
	// What Services have already must be known before anything is given out.
	all := slices.DeleteFunc(c.services.CachedList("", nil), func(s *corev1.Service) bool { return !ours(s) })
	slices.SortFunc(all, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, s := range all {
		if has := addressesIn(s); len(has) > 0 {
			c.adopt(s, has)
		}
	}
	c.queue.Run(ctx, 1)
	return nil
}

// adopt notes what a Service has. What it cannot have any more comes to light
// when it is reconciled.
func (c *Controller) adopt(s *corev1.Service, has []netip.Addr) {
	w, err := wantOf(s)
	if err != nil {
		return
	}
	if len(c.cfg.Pools) == 0 {
		_ = c.ports.take(w)
		return
	}
	c.ledger.hold(w, has)
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	s, err := c.services.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		c.release(key)
		return nil
	}
	if err != nil {
		return err
	}
	if s.DeletionTimestamp != nil || s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return c.clean(ctx, s)
	}
	if !ours(s) {
		c.release(key)
		return nil
	}
	return c.ensure(ctx, s)
}

// release frees what a Service had; others may have waited for it.
func (c *Controller) release(key queue.Key) {
	delete(c.waiting, key)
	freed := c.ledger.release(key)
	if c.ports.release(key) || freed {
		for other := range c.waiting {
			c.queue.Add(other)
		}
	}
}

// clean takes a Service's address away and lets the Service go.
func (c *Controller) clean(ctx context.Context, s *corev1.Service) error {
	c.release(queue.Key{Namespace: s.Namespace, Name: s.Name})
	if !balance.Kept(s) {
		return nil
	}
	c.record(ctx, s, corev1.EventTypeNormal, "DeletingLoadBalancer", "Deleting load balancer")
	err := c.write(ctx, s, change{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	c.record(ctx, s, corev1.EventTypeNormal, "DeletedLoadBalancer", "Deleted load balancer")
	return nil
}

// ensure gives a Service the address it should have, or says why it cannot.
func (c *Controller) ensure(ctx context.Context, s *corev1.Service) error {
	key := queue.Key{Namespace: s.Namespace, Name: s.Name}
	had := addressesIn(s)
	addrs, err := c.assign(s)
	if err == nil && len(addrs) == 0 {
		addrs = had // all nodes are away: nothing gets better by saying so
	}
	now := change{keep: true, addrs: addrs, err: err}
	if len(addrs) > 0 {
		if p, ok := poolOf(c.cfg.Pools, addrs[0]); ok {
			now.pool = p.text
		}
	}
	fresh := len(had) == 0 && len(addrs) > 0
	if fresh || err != nil && c.waiting[key] != err.Error() {
		c.record(ctx, s, corev1.EventTypeNormal, "EnsuringLoadBalancer", "Ensuring load balancer")
	}
	if err := c.write(ctx, s, now); err != nil {
		return err
	}
	switch {
	case err != nil:
		if c.waiting[key] != err.Error() {
			c.record(ctx, s, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: failed to ensure load balancer: "+err.Error())
		}
		c.waiting[key] = err.Error()
		return nil
	case len(addrs) == 0 && c.waiting[key] != errNoNodes.Error():
		c.record(ctx, s, corev1.EventTypeWarning, "UnAvailableLoadBalancer", errNoNodes.Error())
		c.waiting[key] = errNoNodes.Error()
		return nil
	case len(addrs) == 0:
		return nil
	case fresh:
		c.record(ctx, s, corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
		c.warn(ctx, s)
	case !slices.Equal(had, addrs):
		c.record(ctx, s, corev1.EventTypeNormal, "UpdatedLoadBalancer", "Updated load balancer with new hosts")
	}
	delete(c.waiting, key)
	return nil
}

var errNoNodes = errors.New("There are no available nodes for LoadBalancer") //nolint:staticcheck // upstream's message

// assign decides on the addresses. A change frees what others may wait for.
func (c *Controller) assign(s *corev1.Service) ([]netip.Addr, error) {
	w, err := wantOf(s)
	if err != nil {
		c.release(w.key)
		return nil, err
	}
	if len(c.cfg.Pools) == 0 {
		if err := c.ports.take(w); err != nil {
			return nil, err
		}
		return c.onNodes(w)
	}
	before := slices.Clone(c.ledger.has[w.key])
	addrs, err := c.ledger.assign(w)
	if len(before) > 0 && !slices.Equal(before, addrs) {
		for other := range c.waiting {
			if other != w.key {
				c.queue.Add(other)
			}
		}
	}
	return addrs, err
}

// warn tells of annotations that nothing is done for, and of what is in the way.
func (c *Controller) warn(ctx context.Context, s *corev1.Service) {
	for _, u := range unsupported {
		if s.Annotations[u.annotation] != "" {
			c.record(ctx, s, corev1.EventTypeWarning, "UnsupportedLoadBalancerAnnotation", "The annotation "+u.annotation+" has no effect: "+u.what)
		}
	}
	for _, p := range s.Spec.Ports {
		if len(c.cfg.Pools) == 0 && p.Protocol == corev1.ProtocolTCP && slices.Contains(c.cfg.Ingress, p.Port) {
			c.record(ctx, s, corev1.EventTypeWarning, "IngressPortTaken", fmt.Sprintf("Port %d of the nodes' addresses is this Service's now: Ingresses are not reached at it", p.Port))
		}
	}
}

func (c *Controller) record(ctx context.Context, s *corev1.Service, kind, reason, message string) {
	c.events.Record(ctx, s, corev1.SchemeGroupVersion.WithKind("Service"), kind, reason, "%s", message)
}
