// SPDX-License-Identifier: Apache-2.0

// Package gateway serves the Gateway API: Gateways of the classes that name this
// controller, with HTTPRoutes, GRPCRoutes and TLSRoutes. Package plan reads the
// objects; package ingress, its parent, holds the ports and asks here first.
//
// The kinds are custom resources: nothing happens before they are defined, and
// but two of them are watched before there is a Gateway to serve.
package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"kaji/internal/client"
	"kaji/internal/ingress/backend"
	"kaji/internal/ingress/forward"
	"kaji/internal/ingress/gateway/plan"
	"kaji/internal/ingress/secret"
	"kaji/internal/ingress/upstream"
)

// ControllerName is what a GatewayClass names to be served here.
const ControllerName gatewayv1.GatewayController = "kaji.dev/gateway"

// Config is what the controller stands on.
type Config struct {
	Client client.Interface
	// Backends is the controller's own.
	Backends *backend.Watcher
	Proxy    *forward.Proxy
	// Lead has the controller write status.
	Lead bool
	// Begin is called before the first Gateway is served, to watch what Addresses
	// needs; false says that ctx ended.
	Begin func(ctx context.Context) bool
	// Addresses are where Gateways are reached; Problem says why a port cannot
	// be opened.
	Addresses func() []string
	Problem   func(port uint16) error
	// OwnAddresses gives each Gateway an address for itself, of the load balancers'
	// pool. Nodes are those that serve.
	OwnAddresses bool
	Nodes        func() []Node
	// Asked and Destination return the address that a client connected to, of a
	// request by its context and of a connection.
	Asked       func(context.Context) netip.Addr
	Destination func(net.Conn) netip.Addr
	// Taken are ports of Ingresses: whether they speak TLS.
	Taken map[uint16]bool
	// Changed is called when the wanted ports may be others.
	Changed func(ctx context.Context)
	Logger  *slog.Logger
}

// Controller serves Gateways. Create it with New.
type Controller struct {
	c       Config
	kinds   kinds
	spaces  client.Typed[*corev1.Namespace]
	secrets *secret.Watcher
	current atomic.Pointer[snapshot]
	wake    chan struct{}

	// mirrors are the copies of requests under way; base is their context, which
	// ends with Run.
	mirrors chan struct{}
	base    context.Context
	end     context.CancelFunc
	running sync.WaitGroup
}

// snapshot is what requests are answered by; it does not change.
type snapshot struct {
	plan  *plan.Plan
	pools map[backend.Ref]*upstream.Pool
	// own are the Gateways that have an address for themselves.
	own map[netip.Addr]types.NamespacedName
}

// mirrorsAtOnce bounds the copies of requests that are under way.
const mirrorsAtOnce = 64

// New returns a controller; it serves once Run runs.
func New(c Config) *Controller {
	g := &Controller{c: c, spaces: client.For[*corev1.Namespace](c.Client), mirrors: make(chan struct{}, mirrorsAtOnce), wake: make(chan struct{}, 1)}
	g.base, g.end = context.WithCancel(context.Background())
	g.secrets = secret.New(c.Client, g.Touch)
	g.kinds = newKinds(c.Client, g.Touch)
	g.current.Store(&snapshot{plan: &plan.Plan{}})
	return g
}

// Touch has everything looked at again.
func (g *Controller) Touch() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Ports are those to listen at: whether they speak TLS.
func (g *Controller) Ports() map[uint16]bool {
	out := map[uint16]bool{}
	for number, p := range g.current.Load().plan.Ports {
		out[number] = p.Secure
	}
	return out
}

// Secrets are those that Gateways refer to.
func (g *Controller) Secrets() map[types.NamespacedName]bool {
	out := map[types.NamespacedName]bool{}
	maps.Copy(out, g.current.Load().plan.Secrets)
	return out
}

// Run serves until ctx ends.
func (g *Controller) Run(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer g.running.Wait()
	defer g.secrets.Wait()
	defer g.end()
	defer stop()
	if !g.kinds.classes.await(ctx) || !g.kinds.gateways.await(ctx) {
		return
	}
	for {
		if len(g.owned(ctx)) > 0 {
			break
		}
		if !g.rest(ctx) {
			return
		}
	}
	if !g.begin(ctx) {
		return
	}
	for {
		g.rebuild(ctx)
		if !g.rest(ctx) {
			return
		}
	}
}

// rest waits for a change; false says that ctx ended.
func (g *Controller) rest(ctx context.Context) bool {
	select {
	case <-g.wake:
		return true
	case <-ctx.Done():
		return false
	}
}

// begin watches what Gateways need. Kinds of routes that are not defined yet
// join later.
func (g *Controller) begin(ctx context.Context) bool {
	changed := func(*corev1.Namespace) { g.Touch() }
	g.spaces.AddHandler(client.Handler[*corev1.Namespace]{Add: changed, Delete: changed, Update: func(old, now *corev1.Namespace) {
		if !sameLabels(old, now) {
			g.Touch()
		}
	}})
	if !g.c.Begin(ctx) || !g.c.Backends.Start(ctx) || !client.WaitForSync(ctx, g.spaces.Informer()) || !g.kinds.http.await(ctx) {
		return false
	}
	for _, await := range []func(context.Context) bool{g.kinds.grpc.await, g.kinds.tls.await, g.kinds.grants.await} {
		g.running.Go(func() { await(ctx) })
	}
	return true
}

// rebuild makes a new plan, serves by it, and says so.
func (g *Controller) rebuild(ctx context.Context) {
	ours := g.owned(ctx)
	w := g.world(ours)
	p := plan.Make(w)
	g.secrets.Watch(ctx, p.Secrets)
	next := &snapshot{plan: p, own: g.addressesOf(ours), pools: map[backend.Ref]*upstream.Pool{}}
	for ref := range p.Backends {
		next.pools[ref] = g.c.Backends.Pool(ref)
	}
	g.current.Store(next)
	g.c.Backends.Keep(p.Backends)
	g.c.Changed(ctx)
	if g.c.Lead {
		g.claim(ctx, ours)
		g.publish(ctx, w, p)
	}
}

func (g *Controller) world(ours []*gatewayv1.Gateway) *plan.World {
	return &plan.World{
		Controller: ControllerName, Gateways: ours, HTTP: g.kinds.http.list(), GRPC: g.kinds.grpc.list(), TLS: g.kinds.tls.list(), Grants: g.kinds.grants.list(),
		Labels: func(namespace string) map[string]string {
			if n, err := g.spaces.Cached("", namespace); err == nil {
				return n.Labels
			}
			return nil
		},
		Service: g.c.Backends.Service, Secret: g.secret, Addresses: g.c.Addresses(), Own: g.own(), Problem: g.c.Problem, Taken: g.c.Taken,
	}
}

// own says where a Gateway is reached that has an address for itself; nil where all
// share the nodes'.
func (g *Controller) own() func(*gatewayv1.Gateway) []string {
	if !g.c.OwnAddresses {
		return nil
	}
	return g.ownAddresses
}

// owned returns the Gateways to serve. The leader accepts the classes on the way.
func (g *Controller) owned(ctx context.Context) []*gatewayv1.Gateway {
	var out []*gatewayv1.Gateway
	classes := map[gatewayv1.ObjectName]bool{}
	for _, class := range g.kinds.classes.list() {
		if class.Spec.ControllerName == ControllerName {
			classes[gatewayv1.ObjectName(class.Name)] = true
			if g.c.Lead {
				g.accept(ctx, class)
			}
		}
	}
	for _, one := range g.kinds.gateways.list() {
		if classes[one.Spec.GatewayClassName] && one.DeletionTimestamp == nil {
			out = append(out, one)
		}
	}
	return out
}

// pending says that a Secret is not known yet.
type pending struct{}

func (pending) Error() string { return "it is not known yet" }

// missing says that there is no such Secret.
type missing struct{}

func (missing) Error() string { return "it does not exist" }

func (g *Controller) secret(name types.NamespacedName) error {
	switch e := g.secrets.Get(name); {
	case e == nil:
		return pending{}
	case !e.Exists:
		return missing{}
	default:
		return e.Err
	}
}

// Certificate returns what a listener shows for a name, or nil where none is
// for it.
func (g *Controller) Certificate(port uint16, hello *tls.ClientHelloInfo, name string) *tls.Certificate {
	now := g.current.Load()
	p := now.plan.Ports[port]
	if p == nil {
		return nil
	}
	only := now.only(func() netip.Addr { return g.c.Destination(hello.Conn) })
	var first *tls.Certificate
	for _, l := range p.MatchOf(name, only) {
		for _, secret := range l.Certificates {
			e := g.secrets.Get(secret)
			if e == nil || e.Certificate == nil {
				continue
			}
			if hello.SupportsCertificate(e.Certificate) == nil {
				return e.Certificate
			}
			if first == nil {
				first = e.Certificate
			}
		}
	}
	return first
}

// mirrorTimeout is how long the copy of a request may take.
const mirrorTimeout = 30 * time.Second
