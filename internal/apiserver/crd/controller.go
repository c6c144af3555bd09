// SPDX-License-Identifier: Apache-2.0

// Package crd serves custom resources: it turns CustomResourceDefinitions into
// kinds of the one REST machine, accepts their names, keeps their conditions
// and cleans up behind deleted ones.
//
// The API server runs its Controller and hands it the cache and its own verbs.
// Schemas are upstream's: structural schemas, pruning, defaulting and CEL come
// from k8s.io/apiextensions-apiserver, compiled when an object first needs
// them and dropped when none did for a while. It never touches the objects of
// a kind but to delete them with it.
package crd

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"kaji/internal/api"
	kinds "kaji/internal/api/apiextensions"
	"kaji/internal/apiserver/cache"
	"kaji/internal/client"
)

// Config configures a Controller. All but Convert and Logger are needed.
type Config struct {
	Cache *cache.Cache
	// Kind is CustomResourceDefinition, as the cache knows it.
	Kind *api.Kind
	// Client is the API server itself, under an identity that may do anything.
	Client client.Verbs
	// Serve adds a kind, or replaces the one of the same resource; Unserve
	// takes it away and ends its watches.
	Serve   func(*api.Kind)
	Unserve func(*api.Kind)
	// Convert makes the converter of a definition with the strategy Webhook;
	// nil refuses conversion.
	Convert func(*apiextensionsv1.CustomResourceDefinition) (Converter, error)
	Logger  *slog.Logger
}

// idleSchema is how long a compiled schema is kept without use.
const idleSchema = 5 * time.Minute

// Controller keeps the kinds served equal to the definitions that exist. Its
// methods are safe for concurrent use.
type Controller struct {
	cfg     Config
	log     *slog.Logger
	metrics *Metrics

	mu       sync.Mutex
	served   map[string]*definition    // by the definition's name, guarded by mu
	byKind   map[*api.Kind]*definition // guarded by mu
	ending   map[string]bool           // being cleaned up, guarded by mu
	cleaners sync.WaitGroup

	installing installing // of follow's goroutine
	writes     *writes
}

// New returns a controller.
func New(cfg Config) *Controller {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Controller{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(),
		served: map[string]*definition{}, byKind: map[*api.Kind]*definition{}, ending: map[string]bool{}, writes: newWrites(),
	}
}

// Metrics returns the figures to be registered.
func (c *Controller) Metrics() *Metrics { return c.metrics }

// resource is where definitions are.
var resource = apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")

// Run follows the definitions until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	defer c.cleaners.Wait()
	defer c.writes.all.Wait()
	sweep := time.NewTicker(idleSchema / 2)
	defer sweep.Stop()
	for {
		err := c.follow(ctx, sweep.C)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, cache.ErrEnded) {
			c.log.Error("custom resource definitions cannot be followed", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// follow serves what exists and then what changes. Writes that conflict or
// fail are tried again shortly.
func (c *Controller) follow(ctx context.Context, sweep <-chan time.Time) error {
	at, err := c.snapshot(ctx)
	if err != nil {
		return err
	}
	cursor := c.cfg.Cache.Cursor(at.Snapshot)
	c.syncAll(ctx, at)
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		for {
			events, err := drain(cursor)
			if err != nil {
				return err
			}
			if len(events) == 0 {
				break
			}
			if at, err = c.snapshot(ctx); err != nil {
				return err
			}
			c.syncEvents(ctx, at, events)
			if wait, some := c.installing.next(); some && wait == 0 {
				break // while definitions come without an end, others are established
			}
		}
		if wait, some := c.installing.next(); some {
			due.Reset(wait)
		}
		select {
		case <-cursor.Ready():
		case <-cursor.Ended():
			return cache.ErrEnded
		case <-due.C:
			if at, err = c.snapshot(ctx); err != nil {
				return err
			}
			c.establish(ctx, at)
		case <-c.writes.failed:
			retry.Reset(500 * time.Millisecond)
		case <-sweep:
			c.dropIdle(time.Now().Add(-idleSchema))
		case <-retry.C:
			if at, err = c.snapshot(ctx); err != nil {
				return err
			}
			c.syncAll(ctx, at)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain returns the events there are.
func drain(cursor *cache.Cursor) (events []*cache.Event, err error) {
	for {
		event, err := cursor.TryNext()
		if err != nil || event == nil {
			return events, err
		}
		events = append(events, event)
	}
}

// definitionOf returns an entry's definition, maybe without its schemas.
func definitionOf(e *cache.Entry) *apiextensionsv1.CustomResourceDefinition {
	return e.Object.(*apiextensionsv1.CustomResourceDefinition)
}

// syncAll brings everything up to date.
func (c *Controller) syncAll(ctx context.Context, at *newest) {
	names := map[string]bool{}
	c.syncSome(ctx, at, func(crd *apiextensionsv1.CustomResourceDefinition) bool {
		names[crd.Name] = true
		return true
	})
	c.mu.Lock()
	var gone []string
	for name := range c.served {
		if !names[name] {
			gone = append(gone, name)
		}
	}
	c.mu.Unlock()
	for _, name := range gone {
		c.withdraw(name)
	}
}

// syncEvents follows changes. Names that became free may be what other
// definitions of the group wait for.
func (c *Controller) syncEvents(ctx context.Context, at *newest, events []*cache.Event) {
	names, groups := map[string]bool{}, map[string]bool{}
	for _, event := range events {
		changed := definitionOf(event.Entry)
		if event.Deleted {
			c.withdraw(changed.Name)
		}
		names[changed.Name], groups[changed.Spec.Group] = true, true
	}
	c.syncSome(ctx, at, func(crd *apiextensionsv1.CustomResourceDefinition) bool {
		return names[crd.Name] || groups[crd.Spec.Group] && !kinds.IsTrue(crd, apiextensionsv1.NamesAccepted)
	})
}

// syncSome brings those definitions up to date that are wanted.
func (c *Controller) syncSome(ctx context.Context, at *newest, wanted func(*apiextensionsv1.CustomResourceDefinition) bool) {
	all := at.definitions()
	var states []state
	i := 0
	for e := range at.All("", "") {
		if wanted(all[i]) {
			if settled := c.sync(ctx, e, all[i], all); settled != nil {
				// Those that follow see what names it has taken.
				all[i] = settled
				states = append(states, state{e, settled})
			}
		}
		i++
	}
	c.write(ctx, states)
}

// sync brings one definition, of all those, up to date: crd is its newest state,
// e the one that is stored. It returns a state to write, nil for none.
func (c *Controller) sync(ctx context.Context, e *cache.Entry, crd *apiextensionsv1.CustomResourceDefinition, all []*apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinition {
	if crd.DeletionTimestamp != nil {
		c.serve(e, crd)
		c.clean(ctx, crd)
		return nil
	}
	settled := withOwnStatus(crd)
	settle(settled, e, all)
	if !equality.Semantic.DeepEqual(crd.Status, settled.Status) {
		c.serve(e, settled)
		if isInstalling(settled) {
			c.installing.add(crd.Name)
		}
		return settled
	}
	if isInstalling(crd) {
		c.installing.add(crd.Name)
	}
	c.serve(e, crd)
	return nil
}

// withOwnStatus returns a copy that shares all but the status.
func withOwnStatus(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinition {
	own := *crd
	crd.Status.DeepCopyInto(&own.Status)
	return &own
}

// serve serves the kind of a definition, a state of e, once its names are
// established.
func (c *Controller) serve(e *cache.Entry, crd *apiextensionsv1.CustomResourceDefinition) {
	if !kinds.IsTrue(crd, apiextensionsv1.Established) {
		c.withdraw(crd.Name)
		return
	}
	c.mu.Lock()
	old := c.served[crd.Name]
	c.mu.Unlock()
	if old != nil && sameKind(old.crd, crd) {
		if old.refresh(e, crd) {
			c.cfg.Serve(old.kind) // its watches go on
		}
		return
	}
	d := c.define(e, crd)
	c.mu.Lock()
	if old != nil {
		delete(c.byKind, old.kind)
	}
	c.served[crd.Name], c.byKind[d.kind] = d, d
	c.mu.Unlock()
	c.cfg.Serve(d.kind)
	if old == nil {
		c.metrics.changed(d, reasonAdd)
	} else {
		c.metrics.changed(d, reasonUpdate)
	}
}

// define builds a definition's kind with what converts its objects.
func (c *Controller) define(e *cache.Entry, crd *apiextensionsv1.CustomResourceDefinition) *definition {
	if conversion := crd.Spec.Conversion; conversion == nil || conversion.Strategy != apiextensionsv1.WebhookConverter {
		return define(e, crd, noConversion, nil)
	}
	w := c.webhook(crd)
	return define(e, crd, w.one, w.all)
}

// sameKind says whether two states of a definition are served alike.
func sameKind(a, b *apiextensionsv1.CustomResourceDefinition) bool {
	return a.UID == b.UID && a.Generation == b.Generation &&
		equality.Semantic.DeepEqual(a.Status.AcceptedNames, b.Status.AcceptedNames)
}

// withdraw stops serving a definition's kind.
func (c *Controller) withdraw(name string) {
	c.mu.Lock()
	d := c.served[name]
	if d != nil {
		delete(c.served, name)
		delete(c.byKind, d.kind)
	}
	c.mu.Unlock()
	if d != nil {
		c.cfg.Unserve(d.kind)
		c.metrics.changed(d, reasonRemove)
	}
}

func (c *Controller) dropIdle(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.served {
		d.dropIdle(since)
	}
}

// definition returns the definition of a kind, or nil.
func (c *Controller) definition(kind *api.Kind) *definition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKind[kind]
}
