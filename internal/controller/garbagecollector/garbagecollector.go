// SPDX-License-Identifier: Apache-2.0

// Package garbagecollector deletes objects whose owners are gone, and carries
// out the foreground and orphan policies of deletions: dependents go before
// their owner, or are released from it. It covers every resource that can be
// listed, watched and deleted, custom ones as they come and go. The controller
// manager runs it.
//
// Its graph holds the objects that have owners; whether an owner exists is read
// from the informers, and asked of the API server before anything is deleted.
package garbagecollector

import (
	"context"
	"errors"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/served"
)

const (
	workers = 20
	// patience is how long the first look at everything may take before
	// collection begins without what cannot be read.
	patience = 30 * time.Second
	// settle collects changes of what is served: many come at once.
	settle = 100 * time.Millisecond
	// again is when a group whose discovery failed is asked again.
	again = 30 * time.Second
)

// Config says what the collector works with.
type Config struct {
	Client client.Interface
	// Served tells what to watch; nil asks the API server.
	Served served.Lister
	Logger *slog.Logger
}

// Controller collects garbage.
type Controller struct {
	api     client.Interface
	served  served.Lister
	log     *slog.Logger
	events  *event.Recorder
	queue   *queue.Queue[types.UID]
	graph   *graph
	watches *watches
	absent  absent
	changed chan struct{}
}

// New returns the controller.
func New(cfg Config) *Controller {
	c := &Controller{api: cfg.Client, served: cfg.Served, log: cfg.Logger, graph: newGraph(), changed: make(chan struct{}, 1)}
	if c.served == nil {
		c.served = served.By(cfg.Client)
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.events = event.New(cfg.Client, "garbage-collector-controller", cfg.Logger)
	c.queue = queue.New("garbage_collector_attempt_to_delete", cfg.Logger, c.reconcile)
	c.watches = newWatches(cfg.Client, c.see, c.gone)
	c.watches.onDefinitions(func() {
		select {
		case c.changed <- struct{}{}:
		default:
		}
	})
	return c
}

// Run collects until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	defer c.watches.wait()
	retry := c.discover(ctx)
	c.watches.synced(ctx, patience)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.queue.Run(ctx, workers)
	}()
	for ctx.Err() == nil {
		var timer <-chan time.Time
		if retry > 0 {
			timer = time.After(retry)
		}
		select {
		case <-ctx.Done():
		case <-timer:
			retry = c.discover(ctx)
		case <-c.changed:
			select {
			case <-ctx.Done():
			case <-time.After(settle):
				retry = c.discover(ctx)
			}
		}
	}
	<-done
	return nil
}

// discover watches what is served now; it returns when to ask again, zero for
// not before something changes.
func (c *Controller) discover(ctx context.Context) time.Duration {
	all, err := c.served(ctx)
	var some *discovery.ErrGroupDiscoveryFailed
	switch {
	case ctx.Err() != nil:
		return 0
	case errors.As(err, &some):
		meter.From(ctx).GarbageError()
		c.log.Warn("some groups do not say what they serve", "err", err)
		c.watches.set(ctx, all, func(r served.Resource) bool { _, failed := some.Groups[r.GroupVersion()]; return failed })
		return again
	case err != nil:
		c.log.Warn("the API server does not say what it serves", "err", err)
		return time.Second
	}
	c.watches.set(ctx, all, func(served.Resource) bool { return false })
	return 0
}

// see notes an object's state and wakes what it may concern.
func (c *Controller) see(r served.Resource, o metav1.Object) {
	it := itemOf(client.Resource{GroupVersionResource: r.GroupVersionResource}, o)
	if it == nil && c.graph.get(o.GetUID()) == nil {
		return
	}
	before := c.graph.put(o.GetUID(), it)
	if before != nil {
		c.wakeOwners(before, it)
	}
	if it == nil {
		return
	}
	if it.foreground && (before == nil || !before.foreground) {
		for _, dep := range c.graph.of(it.uid) {
			c.queue.Add(dep.uid)
		}
	}
	if it.foreground || it.orphan || !c.solid(it) {
		c.queue.Add(it.uid)
	}
}

// wakeOwners wakes those that waited for an object that has let go of them.
func (c *Controller) wakeOwners(before, now *item) {
	for _, ref := range before.owners {
		if now != nil && now.blocks(ref.UID) {
			continue
		}
		if owner := c.graph.get(ref.UID); owner != nil && owner.foreground {
			c.queue.Add(ref.UID)
		}
	}
}

// gone forgets an object and wakes what depended on it.
func (c *Controller) gone(o metav1.Object) {
	uid := o.GetUID()
	if before := c.graph.put(uid, nil); before != nil {
		c.wakeOwners(before, nil)
	}
	for _, dep := range c.graph.of(uid) {
		c.queue.Add(dep.uid)
	}
}

// solid says whether all owners are known to be there and to stay.
func (c *Controller) solid(it *item) bool {
	for _, ref := range it.owners {
		owner := c.watches.find(ref, it.at.Namespace)
		if owner == nil || waits(owner) {
			return false
		}
	}
	return true
}

func (c *Controller) reconcile(ctx context.Context, uid types.UID) error {
	it := c.graph.get(uid)
	if it == nil {
		return nil
	}
	switch {
	case it.orphan:
		return ignoreGone(c.release(ctx, it))
	case it.foreground:
		return ignoreGone(c.waitForDependents(ctx, it))
	case it.deleting:
		return nil
	}
	return ignoreGone(c.judge(ctx, it))
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
