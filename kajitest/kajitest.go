// SPDX-License-Identifier: Apache-2.0

// Package kajitest gives a Go test a real Kubernetes control plane in its own
// process: the API server on an in-memory store, up in milliseconds and gone
// with the test. Tests of operators and of kaji itself stand on it.
//
//	func TestIt(t *testing.T) {
//		cluster := kajitest.Start(t)
//		clientset := kubernetes.NewForConfigOrDie(cluster.RESTConfig())
//		...
//	}
//
// Every test has a cluster of its own; they share nothing and may run in
// parallel. Without RESTConfig no socket is opened and the cluster works inside
// a testing/synctest bubble.
package kajitest

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/rest"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/apiserver/authz"
	"kaji/internal/apiserver/impersonate"
	"kaji/internal/apiserver/review"
	"kaji/internal/client"
	"kaji/internal/client/direct"
	"kaji/internal/store"
	"kaji/internal/store/memory"
)

// Option changes what Start makes.
type Option func(*options)

type options struct {
	log    *slog.Logger
	roles  *roles // nil: everybody may do everything
	config []func(*apiserver.Config)
}

// WithLogger sends the control plane's logs to log; they are dropped otherwise.
func WithLogger(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// WithServer changes the API server's configuration, for tests inside kaji.
func WithServer(change func(*apiserver.Config)) Option {
	return func(o *options) { o.config = append(o.config, change) }
}

// Cluster is a running control plane. Its methods are safe for concurrent use.
type Cluster struct {
	t      testing.TB
	store  store.Store
	server *apiserver.Server
	client *direct.Client
	roles  *roles

	restOnce sync.Once
	rest     *rest.Config
}

// Start starts a control plane that ends with the test.
func Start(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	c := &Cluster{t: t, store: memory.New()}
	cfg := apiserver.Config{
		Store:         c.store,
		Kinds:         catalog.Current(),
		AlwaysAllow:   true,
		Authenticator: tokens{},
		Logger:        o.log,
		// No controllers run here: pods need no account, nodes are not tainted
		// until one has seen them, and volumes not kept until one lets them go.
		DisabledAdmission: []string{"ServiceAccount", "TaintNodesByCondition", "StorageObjectInUseProtection"},
	}
	if o.roles != nil {
		cfg.AlwaysAllow, cfg.Authorizer = false, o.roles.authorizer()
	}
	for _, change := range o.config {
		change(&cfg)
	}
	may := cfg.Authorizer
	if may == nil {
		may = authorizerfactory.NewAlwaysAllowAuthorizer()
	}
	if cfg.Impersonate == nil {
		cfg.Impersonate = impersonate.Station(impersonate.Config{Authorizer: may})
	}
	if cfg.Virtual == nil {
		cfg.Virtual = review.Config{Authenticator: cfg.Authenticator, Authorizer: may, Rules: authz.Rules()}.Virtual()
	}
	var err error
	if c.server, err = apiserver.New(cfg); err != nil {
		t.Fatalf("kajitest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.server.Run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("kajitest: %v", err)
		}
	})
	c.client = direct.New(c.server.Direct(admin(), "kajitest"), &rest.Config{
		Host: "https://kajitest", BearerToken: adminToken, QPS: -1, Transport: direct.Transport(c.server.Handler()),
	})
	c.client.Start(ctx)
	t.Cleanup(func() {
		cancel()
		c.client.Wait()
		running.Wait()
		if err := c.store.Close(); err != nil {
			t.Errorf("kajitest: close store: %v", err)
		}
	})
	<-c.server.Booted()
	if c.roles = o.roles; c.roles != nil {
		if err := c.roles.attach(ctx, c.server); err != nil {
			t.Fatalf("kajitest: %v", err)
		}
	}
	return c
}

// admin is the user of Client and RESTConfig.
func admin() user.Info {
	return &user.DefaultInfo{Name: "system:admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
}

// Client returns the control plane's in-process client, for tests inside
// kaji. Its informers are started.
func (c *Cluster) Client() client.Interface { return c.client }

// As returns an in-process client of another user; its informers are not
// started.
func (c *Cluster) As(who user.Info) *direct.Client {
	return direct.New(c.server.Direct(who, "kajitest"), nil)
}

// Server returns the API server, for tests inside kaji.
func (c *Cluster) Server() *apiserver.Server { return c.server }

// Store returns the store below the API server, for tests inside kaji.
func (c *Cluster) Store() store.Store { return c.store }

// Reset deletes every object and creates what a new cluster has.
func (c *Cluster) Reset() {
	c.t.Helper()
	ctx := context.Background()
	all, err := c.store.Range(ctx, store.Range{Start: "/registry/", End: store.PrefixEnd("/registry/")})
	if err != nil {
		c.t.Fatalf("kajitest: reset: %v", err)
	}
	var txn store.Txn
	for _, kv := range all.KVs {
		txn.Ops = append(txn.Ops, store.Op{Key: kv.Key, Delete: true})
	}
	res, err := c.store.Commit(ctx, txn)
	if err != nil {
		c.t.Fatalf("kajitest: reset: %v", err)
	}
	if err := c.server.Cache().WaitFor(ctx, res.Revision); err != nil {
		c.t.Fatalf("kajitest: reset: %v", err)
	}
	c.server.Bootstrap(ctx)
	if c.roles != nil {
		if err := c.roles.attach(ctx, c.server); err != nil {
			c.t.Fatalf("kajitest: reset: %v", err)
		}
	}
}
