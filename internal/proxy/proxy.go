// SPDX-License-Identifier: Apache-2.0

// Package proxy makes the addresses of Services work on a node: it watches
// Services and EndpointSlices, lets package plan decide what each address does,
// and package kernel programs it. It takes the place of kube-proxy in nftables
// mode; packages app and cmd run it.
//
// It writes nothing to the API. A change costs as much as the Service it
// concerns, whatever the number of others.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/client"
	"kaji/internal/netfilter"
	"kaji/internal/proxy/kernel"
	"kaji/internal/proxy/plan"
)

// Config says which node is programmed, and how.
type Config struct {
	Client   client.Interface
	NodeName string
	// PodCIDRs are the cluster's pod ranges; packets to a ClusterIP from
	// elsewhere are masqueraded. PodLinks tells pods by their links instead, as
	// kernel.Config has it; MasqueradeAll masquerades theirs, too.
	PodCIDRs      []netip.Prefix
	PodLinks      string
	MasqueradeAll bool
	// IPv4 and IPv6 say which families are programmed; both false means IPv4.
	IPv4, IPv6 bool
	// NodePortAddresses are the ranges of the node's addresses that node ports
	// answer at; none is all addresses.
	NodePortAddresses []netip.Prefix
	// LocalhostNodePorts lets node ports answer at 127.0.0.1 too.
	LocalhostNodePorts bool
	// Tracking is how long the kernel remembers connections.
	Tracking Tracking
	// NetNS is a file descriptor of the network namespace; zero is the own one.
	NetNS int
	// HealthzBindAddress serves /healthz and /livez; empty serves nothing.
	HealthzBindAddress string
	// BindHardFail ends the proxy when HealthzBindAddress cannot be had; it is
	// tried again otherwise.
	BindHardFail bool
	// Metrics receives the metrics; nil drops them.
	Metrics prometheus.Registerer
	Logger  *slog.Logger
}

// serviceIndex finds the EndpointSlices of a Service.
const serviceIndex = "proxy.service"

// retryPeriod is how long a failed sync waits before everything is written anew.
const retryPeriod = 5 * time.Second

// Proxy programs one node. Create it with New.
type Proxy struct {
	c        Config
	services client.Typed[*corev1.Service]
	slices   client.Typed[*discoveryv1.EndpointSlice]
	nodes    client.Typed[*corev1.Node]
	ranges   client.Typed[*networkingv1.ServiceCIDR]
	families []*family
	changes  *changes
	health   *healthServer
	metrics  *metrics
	halfOpen *halfOpen

	// What follows belongs to the goroutine of Run.
	node          plan.Node
	serviceRanges []netip.Prefix
	owners        *owners
	lacks         map[key]lacking
}

// family is one address family's kernel.
type family struct {
	v6     bool
	kernel *kernel.Kernel
}

// New returns a proxy; nothing is programmed before Run.
func New(c Config) (*Proxy, error) {
	if c.NodeName == "" {
		return nil, errors.New("proxy: the node's name is missing")
	}
	if !c.IPv4 && !c.IPv6 {
		c.IPv4 = true
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{c: c, changes: newChanges(), metrics: newMetrics(c.Metrics, c.IPv4, c.IPv6), owners: newOwners(), lacks: map[key]lacking{}, halfOpen: newHalfOpen()}
	p.health = newHealthServer(c.NetNS, c.Logger, p.metrics)
	p.services = client.For[*corev1.Service](c.Client)
	p.slices = client.For[*discoveryv1.EndpointSlice](c.Client)
	p.nodes = client.For[*corev1.Node](c.Client).With(client.InformerOptions{FieldSelector: "metadata.name=" + c.NodeName})
	p.ranges = client.For[*networkingv1.ServiceCIDR](c.Client)
	p.node = plan.Node{Name: c.NodeName, IPv4: c.IPv4, IPv6: c.IPv6}
	for _, v6 := range []bool{false, true} {
		if v6 && !c.IPv6 || !v6 && !c.IPv4 {
			continue
		}
		k, err := kernel.New(kernel.Config{IPv6: v6, PodCIDRs: c.PodCIDRs, PodLinks: c.PodLinks, MasqueradeAll: c.MasqueradeAll, NetNS: c.NetNS, NodePorts: c.NodePortAddresses, Localhost: c.LocalhostNodePorts})
		if err != nil {
			return nil, err
		}
		p.families = append(p.families, &family{v6: v6, kernel: k})
	}
	p.subscribe()
	return p, nil
}

func (p *Proxy) subscribe() {
	p.slices.AddIndex(serviceIndex, func(s *discoveryv1.EndpointSlice) []string {
		if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
			return []string{s.Namespace + "/" + name}
		}
		return nil
	})
	service := func(s *corev1.Service) {
		p.metrics.serviceChanged()
		p.changes.add(key{s.Namespace, s.Name}, time.Time{})
	}
	p.services.AddHandler(client.Handler[*corev1.Service]{
		Add: service, Delete: service, Update: func(_, s *corev1.Service) { service(s) },
	})
	slice := func(s *discoveryv1.EndpointSlice) {
		p.metrics.endpointsChanged()
		p.changes.add(key{s.Namespace, s.Labels[discoveryv1.LabelServiceName]}, triggered(s))
	}
	p.slices.AddHandler(client.Handler[*discoveryv1.EndpointSlice]{
		Add: slice, Delete: slice, Update: func(_, s *discoveryv1.EndpointSlice) { slice(s) },
	})
	p.nodes.AddHandler(client.Handler[*corev1.Node]{
		Add:    func(*corev1.Node) { p.changes.nodeChanged() },
		Update: func(_, _ *corev1.Node) { p.changes.nodeChanged() },
	})
	ranges := func(*networkingv1.ServiceCIDR) { p.changes.nodeChanged() }
	p.ranges.AddHandler(client.Handler[*networkingv1.ServiceCIDR]{Add: ranges, Delete: ranges, Update: func(_, r *networkingv1.ServiceCIDR) { ranges(r) }})
}

// triggered is when the change of the endpoints happened, if they tell.
func triggered(s *discoveryv1.EndpointSlice) time.Time {
	at, err := time.Parse(time.RFC3339Nano, s.Annotations[corev1.EndpointsLastChangeTriggerTime])
	if err != nil {
		return time.Time{}
	}
	return at
}

// Run programs the node until ctx ends. The rules stay in the kernel then, so
// that a restart interrupts nobody; Cleanup removes them.
func (p *Proxy) Run(ctx context.Context) error {
	p.c.Client.Start(ctx)
	stopped, err := p.health.serve(ctx, p.c.HealthzBindAddress, p.c.BindHardFail)
	if err != nil {
		return err
	}
	defer stopped()
	if err := p.routeLocalhost(); err != nil {
		return err
	}
	if !client.WaitForSync(ctx, p.services.Informer(), p.slices.Informer(), p.nodes.Informer()) {
		return nil
	}
	var forgetting sync.WaitGroup
	defer forgetting.Wait()
	inner, stop := context.WithCancel(ctx)
	defer stop()
	forgetting.Go(func() { p.forgetHalfOpen(inner) })
	fresh := false
	for {
		batch := p.changes.take()
		p.metrics.taken()
		p.observeNode(&batch)
		started, whole := time.Now(), !fresh || batch.all
		if whole {
			err = p.syncAll()
		} else {
			err = p.sync(batch.services)
		}
		fresh = err == nil
		var wait <-chan time.Time
		if err != nil {
			p.c.Logger.Error("programming the services failed, everything will be written anew", "err", err)
			p.metrics.failed()
			p.health.failed()
			wait = time.After(retryPeriod)
		} else {
			p.metrics.synced(whole, started, batch.triggers)
			p.countLacking()
			p.health.synced()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
		case <-p.changes.wake:
		}
	}
}

// observeNode takes over the node's zone and whether it is about to go.
func (p *Proxy) observeNode(b *batch) {
	if !b.node {
		return
	}
	p.observeRanges(b)
	node, err := p.nodes.Cached("", p.c.NodeName)
	if err != nil {
		return
	}
	p.health.nodeLeaving(leaving(node))
	if zone := node.Labels[corev1.LabelTopologyZone]; zone != p.node.Zone {
		p.node.Zone, b.all = zone, true
	}
}

// observeRanges takes over the ranges of ClusterIPs. An API server that does not
// serve them is no reason to wait.
func (p *Proxy) observeRanges(b *batch) {
	var found, all []netip.Prefix
	for _, r := range p.ranges.CachedList("", nil) {
		for _, text := range r.Spec.CIDRs {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				found = append(found, prefix.Masked())
			}
		}
	}
	slices.SortFunc(found, func(a, b netip.Prefix) int { return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Compare(b)) })
	for _, prefix := range found { // of ranges within one another the widest
		if !slices.ContainsFunc(all, prefix.Overlaps) {
			all = append(all, prefix)
		}
	}
	if slices.Equal(all, p.serviceRanges) {
		return
	}
	p.serviceRanges, b.all = all, true
	for _, fam := range p.families {
		fam.kernel.SetServices(all)
	}
}

// leaving says whether load balancers should stop sending to the node (KEP-3836).
func leaving(node *corev1.Node) bool {
	if node.DeletionTimestamp != nil {
		return true
	}
	for _, t := range node.Spec.Taints {
		if t.Key == "ToBeDeletedByClusterAutoscaler" {
			return true
		}
	}
	return false
}

// syncAll writes the whole table anew.
func (p *Proxy) syncAll() error {
	p.owners = newOwners()
	clear(p.lacks)
	set := map[plan.Frontend]plan.Target{}
	for _, svc := range p.services.CachedList("", nil) {
		k := key{svc.Namespace, svc.Name}
		add, _ := p.owners.claim(k, p.plan(k))
		for f, t := range add {
			set[f] = t
		}
	}
	for _, fam := range p.families {
		if err := fam.kernel.Reset(ofFamily(set, fam.v6)); err != nil {
			return err
		}
	}
	// What changed while nobody looked is not known: all flows are looked at.
	all := flows{now: map[plan.Frontend]plan.Target{}}
	for f, t := range set {
		if f.Protocol == corev1.ProtocolUDP {
			all.now[f] = t
		}
	}
	p.forgetStale(all)
	if err := p.track(); err != nil {
		p.c.Logger.Warn("how long connections are remembered could not be set", "err", err)
	}
	return nil
}

func (p *Proxy) forgetStale(f flows) {
	if err := p.forget(f); err != nil {
		// The flows time out by themselves; new ones are right already.
		p.c.Logger.Warn("stale UDP flows could not be removed", "err", err)
	}
}

// sync writes what changed of some Services.
func (p *Proxy) sync(keys []key) error {
	set, removed := map[plan.Frontend]plan.Target{}, map[plan.Frontend]struct{}{}
	var stale flows
	var changed []func() // what is done once the rules are in force
	for len(keys) > 0 {
		k := keys[0]
		keys = keys[1:]
		before := p.owners.targets(k)
		add, gone := p.owners.claim(k, p.plan(k))
		for f, t := range add {
			set[f] = t
			delete(removed, f)
			stale.add(f, before[f], t)
			changed = append(changed, func() { p.halfOpen.add(f, before[f], t) })
		}
		for _, f := range gone {
			delete(set, f)
			removed[f] = struct{}{}
			stale.add(f, before[f], plan.Target{})
			changed = append(changed, func() { p.halfOpen.add(f, before[f], plan.Target{}) })
			// Another Service may have waited for the address.
			keys = append(keys, p.owners.waiting(f)...)
		}
	}
	if len(set)+len(removed) == 0 {
		return nil
	}
	for _, fam := range p.families {
		var gone []plan.Frontend
		for f := range removed {
			if f.Addr.Is6() == fam.v6 {
				gone = append(gone, f)
			}
		}
		if err := fam.kernel.Apply(ofFamily(set, fam.v6), gone); err != nil {
			return err
		}
	}
	p.forgetStale(stale)
	for _, done := range changed {
		done()
	}
	return nil
}

// plan decides about one Service, gone or not, and serves its health check.
func (p *Proxy) plan(k key) map[plan.Frontend]plan.Target {
	svc, err := p.services.Cached(k.namespace, k.name)
	if err != nil {
		p.health.remove(k)
		delete(p.lacks, k)
		return nil
	}
	endpoints := p.slices.ByIndex(serviceIndex, k.String())
	if port := svc.Spec.HealthCheckNodePort; port > 0 && svc.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && plan.Handles(svc) {
		p.health.set(k, port, plan.LocalReady(p.node, endpoints))
	} else {
		p.health.remove(k)
	}
	targets := plan.Service(p.node, svc, endpoints)
	p.lacks[k] = lackingOf(targets)
	if p.lacks[k] == (lacking{}) {
		delete(p.lacks, k)
	}
	return targets
}

// lacking says, by IPv6, which of a Service's traffic policies Local find no
// endpoint on the node although others have some.
type lacking struct{ internal, external [2]bool }

func lackingOf(targets map[plan.Frontend]plan.Target) (l lacking) {
	for f, t := range targets {
		i := 0
		if f.Addr.Is6() {
			i = 1
		}
		l.internal[i] = l.internal[i] || t.Drop
		l.external[i] = l.external[i] || t.PreferLocal && len(t.Local) == 0 && len(t.Backends) > 0
	}
	return l
}

// countLacking publishes how many Services lack endpoints here.
func (p *Proxy) countLacking() {
	for _, fam := range p.families {
		i, internal, external := 0, 0, 0
		if fam.v6 {
			i = 1
		}
		for _, l := range p.lacks {
			if l.internal[i] {
				internal++
			}
			if l.external[i] {
				external++
			}
		}
		p.metrics.noLocal.WithLabelValues("internal", familyName(fam.v6)).Set(float64(internal))
		p.metrics.noLocal.WithLabelValues("external", familyName(fam.v6)).Set(float64(external))
	}
}

// routeLocalhost has the kernel route packets from 127.0.0.1 to pods, for node
// ports asked for there. The rules keep the network out.
func (p *Proxy) routeLocalhost() error {
	if !p.c.LocalhostNodePorts || !p.c.IPv4 {
		return nil
	}
	return netfilter.Within(p.c.NetNS, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0o644); err != nil {
			return fmt.Errorf("proxy: node ports at localhost: %w", err)
		}
		return nil
	})
}

func ofFamily(set map[plan.Frontend]plan.Target, v6 bool) map[plan.Frontend]plan.Target {
	out := map[plan.Frontend]plan.Target{}
	for f, t := range set {
		if f.Addr.Is6() == v6 {
			out[f] = t
		}
	}
	return out
}

// Cleanup removes the tables from the kernel.
func Cleanup() error {
	var errs []error
	for _, v6 := range []bool{false, true} {
		k, err := kernel.New(kernel.Config{IPv6: v6})
		if err == nil {
			err = k.Remove()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("removing the proxy's rules: %w", err))
		}
	}
	return errors.Join(errs...)
}
