// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
)

// Informer implements client.Interface.
func (c *Client) Informer(gvr schema.GroupVersionResource, opts client.InformerOptions) cache.SharedIndexInformer {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := informerKey{gvr, opts}
	if inf, ok := c.mu.informers[key]; ok {
		return inf
	}
	inf := cache.NewSharedIndexInformerWithOptions(c.listWatch(gvr, opts), example(gvr, opts), c.observed(gvr, opts))
	if !opts.Dynamic {
		_ = inf.SetTransform(trim) // fails only for one that runs
	}
	c.mu.informers[key] = inf
	c.run(inf)
	return inf
}

// observed are the options of a new informer; c.mu is held.
func (c *Client) observed(gvr schema.GroupVersionResource, opts client.InformerOptions) cache.SharedIndexInformerOptions {
	o := cache.SharedIndexInformerOptions{Indexers: cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}}
	if c.metrics == nil || opts.Namespace != "" || opts.LabelSelector != "" || opts.FieldSelector != "" {
		return o
	}
	for made := range c.mu.informers {
		if made.gvr == gvr && made.opts.Namespace == "" && made.opts.LabelSelector == "" && made.opts.FieldSelector == "" {
			return o
		}
	}
	o.Identifier, o.InformerMetricsProvider = c.name.WithResource(gvr), c.metrics
	return o
}

// trim leaves out who wrote which field, which no component asks for and which
// is a third of many objects. An update without it leaves it as it is.
func trim(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok && o.GetManagedFields() != nil {
		o.SetManagedFields(nil)
	}
	return obj, nil
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
func (c *Client) Wait() {
	c.mu.running.Wait()
	c.name.Release()
}

// example tells the informer's reflector what it holds; nil where the Go type
// is only known to the scheme, which the reflector does not need.
func example(_ schema.GroupVersionResource, opts client.InformerOptions) runtime.Object {
	switch {
	case opts.Metadata:
		return &metav1.PartialObjectMetadata{}
	case opts.Dynamic:
		return &unstructured.Unstructured{}
	}
	return nil
}

func (c *Client) listWatch(gvr schema.GroupVersionResource, o client.InformerOptions) cache.ListerWatcher {
	narrow := func(opts metav1.ListOptions) metav1.ListOptions {
		opts.LabelSelector, opts.FieldSelector = o.LabelSelector, o.FieldSelector
		return opts
	}
	r := client.Resource{GroupVersionResource: gvr, Namespace: o.Namespace}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			switch opts = narrow(opts); {
			case o.Metadata:
				return c.metadata.Resource(gvr).Namespace(o.Namespace).List(ctx, opts)
			case o.Dynamic:
				return c.dynamic.Resource(gvr).Namespace(o.Namespace).List(ctx, opts)
			}
			return c.List(ctx, r, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			switch opts = narrow(opts); {
			case o.Metadata:
				return c.metadata.Resource(gvr).Namespace(o.Namespace).Watch(ctx, opts)
			case o.Dynamic:
				return c.dynamic.Resource(gvr).Namespace(o.Namespace).Watch(ctx, opts)
			}
			return c.Watch(ctx, r, opts)
		},
	}
}
