// SPDX-License-Identifier: Apache-2.0

// Package ingress serves the Ingresses of the class kaji: it watches them, keeps
// a routing table (package route) and forwards requests to pods directly
// (package upstream). A change swaps the table; no connection notices.
//
// Package app runs it on a node. It listens, and watches Services, only once
// there is an Ingress for it. It writes nothing but the Ingresses' status and
// Events, and reads only those Secrets that Ingresses refer to.
package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/ingress/gate"
	"kaji/internal/ingress/route"
	"kaji/internal/ingress/upstream"
)

// ControllerName is what an IngressClass names to be served here.
const ControllerName = "kaji.dev/ingress"

// Config says where the controller listens and what it stands on.
type Config struct {
	// Client must have been started; Run waits for no informer of others.
	Client client.Interface
	// NodeName is the node whose InternalIPs become the Ingresses' addresses.
	NodeName string
	// HTTP and HTTPS are the addresses to listen at; empty is nowhere.
	HTTP, HTTPS string
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
	services  client.Typed[*corev1.Service]
	slices    client.Typed[*discoveryv1.EndpointSlice]
	nodes     client.Typed[*corev1.Node]

	current   atomic.Pointer[snapshot]
	transport *upstream.Transport
	proxy     *httputil.ReverseProxy
	limiter   gate.Limiter
	secrets   *secrets
	standard  func() (*tls.Certificate, error)
	metrics   *metrics
	servers   [2]*server

	// compiled and told belong to the worker.
	compiled map[types.UID]*compiled
	told     map[types.UID]map[string]bool

	mu struct {
		sync.Mutex
		all     bool
		changed map[types.NamespacedName]bool
	}
	wake chan struct{}
}

// snapshot is what requests are answered by; it does not change.
type snapshot struct {
	table *route.Table
	pools map[route.Backend]*upstream.Pool
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
	c := &Controller{
		cfg: cfg, log: cfg.Logger, transport: upstream.New(cfg.Dial), standard: sync.OnceValues(selfMade), metrics: newMetrics(cfg.Metrics),
		ingresses: client.For[*networkingv1.Ingress](cfg.Client), classes: client.For[*networkingv1.IngressClass](cfg.Client),
		services: client.For[*corev1.Service](cfg.Client), slices: client.For[*discoveryv1.EndpointSlice](cfg.Client),
		nodes:    client.For[*corev1.Node](cfg.Client).With(client.InformerOptions{FieldSelector: "metadata.name=" + cfg.NodeName}),
		compiled: map[types.UID]*compiled{}, told: map[types.UID]map[string]bool{}, wake: make(chan struct{}, 1),
	}
	c.mu.changed = map[types.NamespacedName]bool{}
	c.secrets = newSecrets(cfg.Client, c.touch)
	c.current.Store(&snapshot{table: route.Merge(nil)})
	c.proxy = c.reverseProxy()
	c.servers = [2]*server{c.newServer(cfg.HTTP, false), c.newServer(cfg.HTTPS, true)}
	return c, nil
}

// Run serves until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer c.transport.Close()
	defer c.secrets.wait()
	defer stop()
	c.ingresses.AddHandler(client.Handler[*networkingv1.Ingress]{
		Add: func(*networkingv1.Ingress) { c.touch() }, Delete: func(*networkingv1.Ingress) { c.touch() },
		Update: func(_, _ *networkingv1.Ingress) { c.touch() }})
	c.classes.AddHandler(client.Handler[*networkingv1.IngressClass]{
		Add: func(*networkingv1.IngressClass) { c.touch() }, Delete: func(*networkingv1.IngressClass) { c.touch() },
		Update: func(_, _ *networkingv1.IngressClass) { c.touch() }})
	if !client.WaitForSync(ctx, c.ingresses.Informer(), c.classes.Informer()) {
		return nil
	}
	if !c.idle(ctx) {
		return nil
	}
	c.watchBackends()
	if !client.WaitForSync(ctx, c.services.Informer(), c.slices.Informer(), c.nodes.Informer()) {
		return nil
	}
	c.touch()
	c.sync(ctx)
	var serving sync.WaitGroup
	for _, s := range c.servers {
		if s.address == "" {
			continue
		}
		serving.Go(func() { s.run(ctx) })
	}
	c.work(ctx)
	serving.Wait()
	return nil
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

// work follows changes until ctx ends.
func (c *Controller) work(ctx context.Context) {
	for {
		select {
		case <-c.wake:
			c.sync(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// HTTPHandler answers requests as the listener for plain HTTP does.
func (c *Controller) HTTPHandler() http.Handler { return &front{c, false} }
