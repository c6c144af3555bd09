// SPDX-License-Identifier: Apache-2.0

// Package direct is the client engine that calls an API server in the same
// process: same authorization and admission as over HTTP, no sockets and no
// encoding. Its informers hold the server's own immutable objects.
//
// Package app makes one for each component that runs beside the API server. It
// does not import the API server, but takes what it needs as an interface.
package direct

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
)

// Server is what an API server offers one identity in process. Objects it
// hands out are shared and immutable; those it is given stay the caller's.
type Server interface {
	client.Verbs
	// ListShared is List without a copy: the items are the server's objects.
	ListShared(ctx context.Context, r client.Resource, opts metav1.ListOptions) (*internalversion.List, error)
	// Held returns the server as it hands out what it holds of a resource's
	// objects, at least their metadata, where that is less than all; nil where
	// it holds all.
	Held(gvr schema.GroupVersionResource) Server
	// Elsewhere says whether another API server has a version: it is asked by
	// requests that are sent on.
	Elsewhere(gv schema.GroupVersion) bool
}

// Client implements client.Interface.
type Client struct {
	client.Verbs
	server Server
	config *rest.Config

	mu struct {
		sync.Mutex
		informers map[informerKey]cache.SharedIndexInformer
		ctx       context.Context // set by Start
		running   sync.WaitGroup
	}
}

type informerKey struct {
	gvr  schema.GroupVersionResource
	opts client.InformerOptions
}

var _ client.Interface = (*Client)(nil)

// New returns a client of server. config is what RESTConfig returns for
// libraries that bring their own client, and how what other API servers have is
// reached; it may be nil where neither is used.
func New(server Server, config *rest.Config) *Client {
	all := newRouter(server, config)
	c := &Client{Verbs: all, server: all, config: config}
	c.mu.informers = map[informerKey]cache.SharedIndexInformer{}
	return c
}

// RESTConfig implements client.Interface.
func (c *Client) RESTConfig() *rest.Config { return c.config }

// Informer implements client.Interface.
func (c *Client) Informer(gvr schema.GroupVersionResource, opts client.InformerOptions) cache.SharedIndexInformer {
	c.mu.Lock()
	defer c.mu.Unlock()
	server := c.server
	if held := server.Held(gvr); opts.Metadata && held != nil {
		server = held
	} else {
		opts.Metadata = false // the server's own objects cost nothing more
	}
	key := informerKey{gvr, opts}
	if inf, ok := c.mu.informers[key]; ok {
		return inf
	}
	inf := cache.NewSharedIndexInformer(listWatch(server, gvr, opts), nil, 0,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	c.mu.informers[key] = inf
	c.run(inf)
	return inf
}

// Start implements client.Interface.
func (c *Client) Start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.ctx != nil {
		return
	}
	c.mu.ctx = ctx
	for _, inf := range c.mu.informers {
		c.run(inf)
	}
}

// run starts inf if the client was started; c.mu is held.
func (c *Client) run(inf cache.SharedIndexInformer) {
	if c.mu.ctx == nil {
		return
	}
	ctx := c.mu.ctx
	c.mu.running.Go(func() { inf.RunWithContext(ctx) })
}

// Wait returns when all informers have stopped after the context of Start ended.
func (c *Client) Wait() { c.mu.running.Wait() }

func listWatch(server Server, gvr schema.GroupVersionResource, o client.InformerOptions) cache.ListerWatcher {
	r := client.Resource{GroupVersionResource: gvr, Namespace: o.Namespace}
	shape := shapeOf(o)
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.LabelSelector, opts.FieldSelector = o.LabelSelector, o.FieldSelector
			list, err := server.ListShared(ctx, r, opts)
			if err != nil || shape == nil {
				return list, err
			}
			for i, item := range list.Items {
				if list.Items[i], err = shape(item); err != nil {
					return nil, err
				}
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector, opts.FieldSelector = o.LabelSelector, o.FieldSelector
			w, err := server.Watch(ctx, r, opts)
			if err != nil || shape == nil {
				return w, err
			}
			return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
				if _, ok := e.Object.(*metav1.Status); ok {
					return e, true
				}
				shaped, err := shape(e.Object)
				e.Object = shaped
				return e, err == nil
			}), nil
		},
	}
}

// shapeOf returns what turns objects into those the informer holds, or nil.
func shapeOf(o client.InformerOptions) func(runtime.Object) (runtime.Object, error) {
	if o.Dynamic {
		return func(obj runtime.Object) (runtime.Object, error) {
			if u, ok := obj.(*unstructured.Unstructured); ok {
				return u, nil
			}
			content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
			return &unstructured.Unstructured{Object: content}, err
		}
	}
	return nil
}
