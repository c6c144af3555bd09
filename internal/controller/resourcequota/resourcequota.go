// SPDX-License-Identifier: Apache-2.0

// Package resourcequota counts what the objects of a namespace use of its
// ResourceQuotas, and writes it to their status. The admission plug-in of the
// API server charges new objects by itself; this controller does the first
// count of a quota, gives back what deleted and ended objects had, and corrects
// the rest by counting all quotas afresh every few minutes.
//
// The controller manager runs it. It watches a resource only while some quota
// limits it: a cluster without quotas watches quotas alone.
package resourcequota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api/quota"
	"kaji/internal/client"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/served"
)

// Defaults of upstream's kube-controller-manager.
const (
	defaultPeriod = 5 * time.Minute
	workers       = 5
	// again is when a quota is counted a second time after its limits changed:
	// what was made just before is charged by nobody, and informers may be late.
	again = 3 * time.Second
	// rest is how long a quota must have been left alone before less is written
	// than was charged: a charge stands before the object it is for. A quota that
	// is charged all the time is written after patience all the same.
	rest, patience = 200 * time.Millisecond, 5 * time.Second
)

// Config configures a Controller. Client is needed.
type Config struct {
	Client client.Interface
	// Served lists what is served; nil asks the API server's discovery.
	Served served.Lister
	// Period is how often all quotas are counted afresh; five minutes when zero.
	Period time.Duration
	Logger *slog.Logger
}

// Controller counts quotas. Make it with New.
type Controller struct {
	quotas  client.Typed[*corev1.ResourceQuota]
	classes client.Typed[*resourcev1.DeviceClass]
	queue   *queue.Queue[queue.Key]
	measure *quota.Set
	period  time.Duration
	log     *slog.Logger
	monitors

	mu    sync.Mutex
	lower map[queue.Key]lowering
}

// lowering is a quota of which less is used than was charged.
type lowering struct {
	revision    string    // of the quota as it was seen last
	seen, first time.Time // since when it was that, and since when less is used
}

// New returns a controller.
func New(cfg Config) *Controller {
	if cfg.Period == 0 {
		cfg.Period = defaultPeriod
	}
	if cfg.Served == nil {
		cfg.Served = served.By(cfg.Client)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		quotas:  client.For[*corev1.ResourceQuota](cfg.Client),
		classes: client.For[*resourcev1.DeviceClass](cfg.Client),
		period:  cfg.Period, log: cfg.Logger,
		lower: map[queue.Key]lowering{},
	}
	c.queue = queue.New("resourcequota_primary", cfg.Logger, c.reconcile)
	c.monitors = monitors{api: cfg.Client, served: cfg.Served, changed: c.changed, running: map[schema.GroupResource]*monitor{}}
	c.measure = quota.New(quota.Devices{Classes: c.deviceClasses, Pod: c.pod, Claims: c.claims})
	add := func(q *corev1.ResourceQuota) { c.queue.Add(queue.Key{Namespace: q.Namespace, Name: q.Name}) }
	c.quotas.AddHandler(client.Handler[*corev1.ResourceQuota]{
		Add: add,
		// The status changes with every charge; only other limits call for a count.
		Update: func(old, q *corev1.ResourceQuota) {
			if !quota.Equal(old.Spec.Hard, q.Spec.Hard) {
				add(q)
			}
		},
	})
	return c
}

// Run counts until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	defer c.stopAll()
	if !client.WaitForSync(ctx, c.quotas.Informer()) {
		return nil
	}
	c.begin(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.recount(ctx)
	}()
	c.queue.Run(ctx, workers)
	<-done
	return nil
}

// recount counts all quotas afresh now and then.
func (c *Controller) recount(ctx context.Context) {
	tick := time.NewTicker(c.period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		limited := map[schema.GroupResource]bool{}
		for _, q := range c.quotas.CachedList("", nil) {
			c.queue.Add(queue.Key{Namespace: q.Namespace, Name: q.Name})
			for _, e := range c.measure.Measuring(q.Spec.Hard) {
				limited[e.Resource] = true
			}
		}
		c.keep(limited)
	}
}

// changed counts the quotas of a namespace that limit a resource of which
// something became free.
func (c *Controller) changed(gr schema.GroupResource, namespace string) {
	e := c.measure.For(gr)
	if e == nil {
		return
	}
	for _, q := range c.quotas.CachedList(namespace, nil) {
		if len(e.Names(q.Spec.Hard)) > 0 {
			c.queue.Add(queue.Key{Namespace: q.Namespace, Name: q.Name})
		}
	}
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	q, err := c.quotas.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		c.settled(key)
		return nil
	}
	if err != nil {
		return err
	}
	counted, unserved, countErr := c.count(ctx, q)
	if unserved {
		c.queue.AddAfter(key, discoveryTime)
	}
	// What cannot be counted now keeps its last value.
	before := quota.Mask(q.Status.Used, quota.Names(q.Spec.Hard))
	used := maps.Clone(before)
	maps.Copy(used, counted)
	if less := quota.Exceeding(before, used); len(less) == 0 {
		c.settled(key)
	} else if !c.rested(key, q.ResourceVersion) {
		maps.Copy(used, quota.Mask(before, less))
		c.queue.AddAfter(key, rest)
	}
	if quota.Equal(q.Spec.Hard, q.Status.Hard) && quota.Equal(used, q.Status.Used) && q.Status.Hard != nil && q.Status.Used != nil {
		return countErr
	}
	if !quota.Equal(q.Spec.Hard, q.Status.Hard) {
		c.queue.AddAfter(key, again)
	}
	next := q.DeepCopy()
	next.Status.Hard, next.Status.Used = q.Spec.Hard.DeepCopy(), used
	_, err = c.quotas.UpdateStatus(ctx, next)
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return errors.Join(countErr, err)
}

// rested says whether a quota has been as it is for long enough to be sure that
// what is missing of what was charged does not just come into being.
func (c *Controller) rested(key queue.Key, revision string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	l, known := c.lower[key]
	if !known {
		l.first = now
	}
	if l.revision != revision {
		l.revision, l.seen = revision, now
	}
	c.lower[key] = l
	if now.Sub(l.seen) < rest && now.Sub(l.first) < patience {
		return false
	}
	delete(c.lower, key)
	return true
}

// settled forgets that less was used.
func (c *Controller) settled(key queue.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.lower, key)
}

// count measures everything that a quota limits. With an error it returns what
// could be measured. unserved says that the API server does not have one of the
// resources, such as one of a CustomResourceDefinition that is yet to come.
func (c *Controller) count(ctx context.Context, q *corev1.ResourceQuota) (sum corev1.ResourceList, unserved bool, err error) {
	sum = corev1.ResourceList{}
	var errs []error
	for _, e := range c.measure.Measuring(q.Spec.Hard) {
		objects, served, err := c.objects(ctx, e, q.Namespace)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !served {
			unserved = true
			continue
		}
		used, err := e.Count(q, e.Names(q.Spec.Hard), objects)
		if err != nil {
			errs = append(errs, fmt.Errorf("count %s: %w", e.Resource, err))
			continue
		}
		sum = quota.Add(sum, used)
	}
	return sum, unserved, errors.Join(errs...)
}

// deviceClasses is asked only where a quota limits extended resources.
func (c *Controller) deviceClasses() []*resourcev1.DeviceClass {
	if c.watchClasses() {
		all := func() {
			for _, q := range c.quotas.CachedList("", nil) {
				c.queue.Add(queue.Key{Namespace: q.Namespace, Name: q.Name})
			}
		}
		c.classes.AddHandler(client.Handler[*resourcev1.DeviceClass]{
			Add:    func(*resourcev1.DeviceClass) { all() },
			Update: func(_, _ *resourcev1.DeviceClass) { all() },
			Delete: func(*resourcev1.DeviceClass) { all() },
		})
	}
	return c.classes.CachedList("", nil)
}

func (c *Controller) pod(namespace, name string) *corev1.Pod {
	pod, _ := c.cached(corev1.Resource("pods"), namespace, name).(*corev1.Pod)
	return pod
}

func (c *Controller) claims(namespace string) []*resourcev1.ResourceClaim {
	var all []*resourcev1.ResourceClaim
	for _, obj := range c.known(resourcev1.Resource("resourceclaims"), namespace) {
		if claim, ok := obj.(*resourcev1.ResourceClaim); ok {
			all = append(all, claim)
		}
	}
	return all
}
