// SPDX-License-Identifier: Apache-2.0

// Package ingress serves the Ingresses of the class kaji and, by its child
// gateway, the Gateways of that class. It watches them, keeps a routing table
// (package route) and forwards requests to pods directly (packages forward and
// upstream). A change swaps the table; no connection notices.
//
// Package app runs it on every node. It listens, and watches Services, only once
// there is something to serve. One of the nodes leads: it alone writes status
// and Events. Of Secrets it reads only those that are referred to.
package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/ingress/backend"
	"kaji/internal/ingress/forward"
	"kaji/internal/ingress/gate"
	"kaji/internal/ingress/gateway"
	"kaji/internal/ingress/listen"
	"kaji/internal/ingress/route"
	"kaji/internal/ingress/secret"
	"kaji/internal/ingress/upstream"
	"kaji/internal/lifecycle"
)

// ControllerName is what an IngressClass names to be served here.
const ControllerName = "kaji.dev/ingress"

// Config says where the controller listens and what it stands on.
type Config struct {
	// Client must have been started; Run waits for no informer of others.
	Client client.Interface
	// Node is the client that notes on the node what is served there; Client
	// when nil.
	Node client.Interface
	// NodeName is the node that the controller runs on.
	NodeName string
	// Lead is true on one node of the cluster.
	Lead bool
	// HTTPPort and HTTPSPort are where Ingresses are served; zero is nowhere.
	HTTPPort, HTTPSPort uint16
	// OwnAddresses gives each Gateway an address for itself, of the load balancers'
	// pool.
	OwnAddresses bool
	// Listen opens ports, at all addresses when nil.
	Listen func(ctx context.Context, port uint16) (net.Listener, error)
	// Leftover, unless nil, gets what is still being answered when Run returns.
	Leftover *lifecycle.Leftover
	// Dial connects to backends, upstream.Guarded when nil.
	Dial    upstream.Dial
	Metrics prometheus.Registerer
	Logger  *slog.Logger
}

// Controller serves Ingresses. Create it with New.
type Controller struct {
	cfg       Config
	log       *slog.Logger
	ingresses client.Typed[*networkingv1.Ingress]
	classes   client.Typed[*networkingv1.IngressClass]
	nodes     client.Typed[*corev1.Node]
	current   atomic.Pointer[snapshot]
	backends  *backend.Watcher
	proxy     *forward.Proxy
	ports     *listen.Set
	limiter   gate.Limiter
	flights   gate.Flights
	secrets   *secret.Watcher
	standard  func() (*tls.Certificate, error)
	asker     *http.Client
	metrics   *metrics
	gateway   *gateway.Controller

	// compiled and told belong to the worker.
	compiled map[types.UID]*compiled
	told     map[types.UID]map[string]bool
	wake     chan struct{}
	// serving says that there has been an Ingress.
	serving atomic.Bool
	started sync.Once

	mu sync.Mutex // held while ports are opened and announced, and guards what follows
	// wanted are the Secrets that Ingresses refer to.
	wanted map[types.NamespacedName]bool
	grants *grants
}

// snapshot is what requests are answered by; it does not change.
type snapshot struct {
	table *route.Table
	pools map[backend.Ref]*upstream.Pool
}

// compiled is an Ingress's source with the revision it was made from.
type compiled struct {
	revision string
	source   *route.Source
}

// New returns a controller; it serves once Run runs.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.NodeName == "" {
		return nil, errors.New("ingress: a client and a node's name are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == nil {
		cfg.Listen = listen.At("")
	}
	if cfg.Node == nil {
		cfg.Node = cfg.Client
	}
	c := &Controller{
		cfg: cfg, log: cfg.Logger, proxy: forward.New(cfg.Dial, cfg.Logger), standard: sync.OnceValues(selfMade), metrics: newMetrics(cfg.Metrics),
		ingresses: client.For[*networkingv1.Ingress](cfg.Client), classes: client.For[*networkingv1.IngressClass](cfg.Client), nodes: client.For[*corev1.Node](cfg.Client),
		compiled: map[types.UID]*compiled{}, told: map[types.UID]map[string]bool{}, wake: make(chan struct{}, 1),
	}
	if !cfg.Lead {
		c.nodes = c.nodes.With(client.InformerOptions{FieldSelector: "metadata.name=" + cfg.NodeName})
	}
	c.backends, c.grants = backend.New(cfg.Client, c.touch), newGrants(cfg.Client)
	c.secrets = secret.New(cfg.Client, c.touch)
	c.asker = c.newAsker()
	c.current.Store(&snapshot{table: route.Merge(nil)})
	c.ports = listen.New(listen.Config{Listen: cfg.Listen, Handler: c.handler, Certificate: c.certificateFor, Divert: c.divert, Changed: c.moved, Leftover: cfg.Leftover, Logger: cfg.Logger})
	c.gateway = gateway.New(gateway.Config{Client: cfg.Client, Backends: backend.New(cfg.Client, func() { c.gateway.Touch() }), Proxy: c.proxy, Lead: cfg.Lead,
		OwnAddresses: cfg.OwnAddresses, Nodes: c.servers, Asked: listen.Asked, Destination: listen.Destination,
		Begin: c.begin, Addresses: c.addresses, Problem: c.ports.Problem, Taken: c.own(), Changed: c.open, Logger: cfg.Logger})
	return c, nil
}

// Run serves until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer c.proxy.Close()
	defer c.asker.CloseIdleConnections()
	defer c.secrets.Wait()
	defer c.ports.Wait()
	var gateways sync.WaitGroup
	defer gateways.Wait()
	defer stop()
	gateways.Go(func() { c.gateway.Run(ctx) })
	c.ingresses.AddHandler(client.Handler[*networkingv1.Ingress]{
		Add: func(*networkingv1.Ingress) { c.touch() }, Delete: func(*networkingv1.Ingress) { c.touch() },
		Update: func(old, now *networkingv1.Ingress) {
			if old.Generation != now.Generation || len(old.Status.LoadBalancer.Ingress) != len(now.Status.LoadBalancer.Ingress) || !sameMap(old.Annotations, now.Annotations) {
				c.touch()
			}
		}})
	c.classes.AddHandler(client.Handler[*networkingv1.IngressClass]{
		Add: func(*networkingv1.IngressClass) { c.touch() }, Delete: func(*networkingv1.IngressClass) { c.touch() },
		Update: func(_, _ *networkingv1.IngressClass) { c.touch() }})
	if !client.WaitForSync(ctx, c.ingresses.Informer(), c.classes.Informer()) || !c.idle(ctx) {
		return nil
	}
	if !c.begin(ctx) || !c.backends.Start(ctx) {
		return nil
	}
	c.serving.Store(true)
	c.touch()
	for {
		select {
		case <-c.wake:
			c.rebuild(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// idle waits for the first Ingress to serve; false says that ctx ended.
func (c *Controller) idle(ctx context.Context) bool {
	for len(c.owned()) == 0 {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// begin watches the nodes; false says that ctx ended before they were there.
func (c *Controller) begin(ctx context.Context) bool {
	c.started.Do(c.watchNodes)
	return client.WaitForSync(ctx, c.nodes.Informer())
}

// moved takes up that the nodes or the ports are others.
func (c *Controller) moved() {
	c.touch()
	c.gateway.Touch()
}

// touch has everything looked at again.
func (c *Controller) touch() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
