// SPDX-License-Identifier: Apache-2.0

// Package object keeps the ConfigMaps and Secrets that pods of this node refer
// to, each by a watch of its own: a node may read only those, by name. A pod's
// objects are watched from when it is registered until the last pod that
// refers to them is gone.
package object

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"kaji/internal/client"
)

// Config is what a Cache needs.
type Config struct {
	Client client.Interface
	Logger *slog.Logger
	// Changed is told of pods of which an object changed.
	Changed func(types.UID)
	// FirstWait bounds how long a read waits for an object's first answer;
	// zero means 5 s.
	FirstWait time.Duration
}

// Cache holds the objects. Its methods are safe for concurrent use.
type Cache struct {
	cfg     Config
	ctx     context.Context
	stop    context.CancelFunc
	watches sync.WaitGroup
	mu      struct {
		sync.Mutex
		items map[key]*item
		pods  map[types.UID]map[key]bool
	}
}

type key struct {
	resource        string
	namespace, name string
}

type item struct {
	stop  context.CancelFunc
	users map[types.UID]bool
	first chan struct{} // closed once object or err is known
	once  sync.Once
	// object and err are guarded by the cache's lock.
	object client.Object
	err    error
}

// New returns a cache; Close ends its watches.
func New(cfg Config) *Cache {
	if cfg.FirstWait == 0 {
		cfg.FirstWait = 5 * time.Second
	}
	c := &Cache{cfg: cfg}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.mu.items = map[key]*item{}
	c.mu.pods = map[types.UID]map[key]bool{}
	return c
}

// Close ends all watches and waits for them.
func (c *Cache) Close() {
	c.stop()
	c.watches.Wait()
}

// Register watches what a pod refers to, and no longer what it does not.
func (c *Cache) Register(pod *corev1.Pod) {
	wanted := References(pod)
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.mu.pods[pod.UID]
	if have == nil {
		have = map[key]bool{}
		c.mu.pods[pod.UID] = have
	}
	for k := range wanted {
		if !have[k] {
			have[k] = true
			c.use(k, pod.UID)
		}
	}
	for k := range have {
		if !wanted[k] {
			delete(have, k)
			c.leave(k, pod.UID)
		}
	}
}

// Unregister ends a pod's interest.
func (c *Cache) Unregister(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.mu.pods[uid] {
		c.leave(k, uid)
	}
	delete(c.mu.pods, uid)
}

func (c *Cache) use(k key, uid types.UID) {
	it := c.mu.items[k]
	if it == nil {
		ctx, cancel := context.WithCancel(c.ctx)
		it = &item{stop: cancel, users: map[types.UID]bool{}, first: make(chan struct{})}
		c.mu.items[k] = it
		c.watches.Go(func() { c.watch(ctx, k, it) })
	}
	it.users[uid] = true
}

func (c *Cache) leave(k key, uid types.UID) {
	it := c.mu.items[k]
	if it == nil {
		return
	}
	delete(it.users, uid)
	if len(it.users) == 0 {
		it.stop()
		delete(c.mu.items, k)
	}
}

func (k key) gvr() schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource(k.resource)
}

// watch follows one object until ctx ends or the object can change no more.
func (c *Cache) watch(ctx context.Context, k key, it *item) {
	r := client.Resource{GroupVersionResource: k.gvr(), Namespace: k.namespace}
	wait := 500 * time.Millisecond
	for ctx.Err() == nil {
		obj, err := c.cfg.Client.Get(ctx, r, k.name, metav1.GetOptions{})
		version := ""
		switch {
		case err == nil:
			version = c.put(it, obj, nil)
			wait = 500 * time.Millisecond
			if immutable(obj) {
				return
			}
		case apierrors.IsNotFound(err):
			c.put(it, nil, k.notFound())
		default:
			if ctx.Err() == nil {
				c.put(it, nil, err)
			}
		}
		if err == nil || apierrors.IsNotFound(err) {
			if c.follow(ctx, r, k, it, version) {
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(wait*2, 30*time.Second)
		}
	}
}

// follow applies the events of one watch; true says that it ran for a while.
func (c *Cache) follow(ctx context.Context, r client.Resource, k key, it *item, version string) bool {
	w, err := c.cfg.Client.Watch(ctx, r, metav1.ListOptions{FieldSelector: "metadata.name=" + k.name, ResourceVersion: version, AllowWatchBookmarks: true})
	if err != nil {
		return false
	}
	defer w.Stop()
	seen := false
	for {
		select {
		case <-ctx.Done():
			return true
		case event, ok := <-w.ResultChan():
			if !ok {
				return seen
			}
			switch event.Type {
			case watch.Added, watch.Modified:
				c.put(it, event.Object, nil)
			case watch.Deleted:
				c.put(it, nil, k.notFound())
			case watch.Error:
				return seen
			}
			seen = true
		}
	}
}

// put stores what is known of an object and wakes its pods if it is news.
func (c *Cache) put(it *item, obj runtime.Object, err error) (version string) {
	typed, _ := obj.(client.Object)
	c.mu.Lock()
	known := false
	select {
	case <-it.first:
		known = true
	default:
	}
	news := (it.object == nil) != (typed == nil) || typed != nil && it.object != nil && typed.GetResourceVersion() != it.object.GetResourceVersion()
	if typed != nil || apierrors.IsNotFound(err) || it.object == nil {
		// A server that cannot be reached takes nothing away.
		it.object, it.err = typed, err
	}
	var users []types.UID
	if news && known {
		for uid := range it.users {
			users = append(users, uid)
		}
	}
	c.mu.Unlock()
	it.once.Do(func() { close(it.first) })
	for _, uid := range users {
		c.cfg.Changed(uid)
	}
	if typed != nil {
		return typed.GetResourceVersion()
	}
	return ""
}

// notFound says that there is no such object, in the singular, as upstream's node
// agent does: secret "x" not found.
func (k key) notFound() error {
	return apierrors.NewNotFound(corev1.Resource(strings.TrimSuffix(k.resource, "s")), k.name)
}

func immutable(obj runtime.Object) bool {
	switch o := obj.(type) {
	case *corev1.ConfigMap:
		return o.Immutable != nil && *o.Immutable
	case *corev1.Secret:
		return o.Immutable != nil && *o.Immutable
	}
	return false
}

func (c *Cache) get(k key) (client.Object, error) {
	c.mu.Lock()
	it := c.mu.items[k]
	c.mu.Unlock()
	if it == nil {
		obj, err := c.cfg.Client.Get(c.ctx, client.Resource{GroupVersionResource: k.gvr(), Namespace: k.namespace}, k.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, k.notFound()
		}
		if err != nil {
			return nil, err
		}
		typed, _ := obj.(client.Object)
		return typed, nil
	}
	timer := time.NewTimer(c.cfg.FirstWait)
	defer timer.Stop()
	select {
	case <-it.first:
	case <-timer.C:
		return nil, apierrors.NewTimeoutError("failed to sync "+k.resource+" cache: timed out waiting for the condition", 1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return it.object, it.err
}

// ConfigMap returns a ConfigMap; the error is NotFound where there is none.
func (c *Cache) ConfigMap(namespace, name string) (*corev1.ConfigMap, error) {
	obj, err := c.get(key{"configmaps", namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ConfigMap), nil
}

// Secret returns a Secret; the error is NotFound where there is none.
func (c *Cache) Secret(namespace, name string) (*corev1.Secret, error) {
	obj, err := c.get(key{"secrets", namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Secret), nil
}
