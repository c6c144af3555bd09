// SPDX-License-Identifier: Apache-2.0

package resourcequota

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/api/quota"
	"kaji/internal/client"
	"kaji/internal/controller/served"
)

// Bounds: how long a count waits for the first list of a resource, and how
// often at most the API server is asked what it serves.
const (
	syncTime      = 30 * time.Second
	discoveryTime = 30 * time.Second
)

// monitors watch the resources that quotas limit, each from the first count
// that needs it until no quota does.
type monitors struct {
	api     client.Interface
	served  served.Lister
	changed func(gr schema.GroupResource, namespace string)

	mu       sync.Mutex
	ctx      context.Context // of Run: monitors end with it
	running  map[schema.GroupResource]*monitor
	group    sync.WaitGroup
	versions map[schema.GroupResource]schema.GroupVersionResource
	asked    time.Time
	classes  bool
}

// monitor watches one resource.
type monitor struct {
	informer cache.SharedIndexInformer
	stop     func()
}

func (m *monitors) begin(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = ctx
}

// stopAll ends all monitors and waits for them.
func (m *monitors) stopAll() {
	m.keep(nil)
	m.group.Wait()
}

// keep ends the monitors of all other resources, and of those that are not
// served any more.
func (m *monitors) keep(limited map[schema.GroupResource]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = time.Time{}
	for gr, one := range m.running {
		if !limited[gr] {
			one.stop()
			delete(m.running, gr)
		}
	}
}

// watchClasses says, once, that the DeviceClasses are to be watched.
func (m *monitors) watchClasses() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := !m.classes
	m.classes = true
	return first
}

// objects returns the objects of a resource in a namespace. served is false
// when the API server does not have the resource.
func (m *monitors) objects(ctx context.Context, e *quota.Evaluator, namespace string) (all []runtime.Object, served bool, err error) {
	one, err := m.of(ctx, e)
	if err != nil || one == nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	if !client.WaitForSync(ctx, one.informer) {
		return nil, false, fmt.Errorf("%s: no list within %s", e.Resource, syncTime)
	}
	return m.known(e.Resource, namespace), true, nil
}

// known returns what a resource's monitor has, nothing without one.
func (m *monitors) known(gr schema.GroupResource, namespace string) []runtime.Object {
	m.mu.Lock()
	one := m.running[gr]
	m.mu.Unlock()
	if one == nil {
		return nil
	}
	items, _ := one.informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	all := make([]runtime.Object, 0, len(items))
	for _, item := range items {
		if obj, ok := item.(runtime.Object); ok {
			all = append(all, obj)
		}
	}
	return all
}

// cached returns one object of a resource's monitor, or nil.
func (m *monitors) cached(gr schema.GroupResource, namespace, name string) any {
	m.mu.Lock()
	one := m.running[gr]
	m.mu.Unlock()
	if one == nil {
		return nil
	}
	item, _, _ := one.informer.GetStore().GetByKey(namespace + "/" + name)
	return item
}

// of returns the monitor of a resource, started when it is new; nil when the
// resource is not served.
func (m *monitors) of(ctx context.Context, e *quota.Evaluator) (*monitor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one := m.running[e.Resource]; one != nil {
		return one, nil
	}
	gvr, ok, err := m.version(ctx, e.Resource)
	if err != nil || !ok {
		return nil, err
	}
	if m.ctx == nil || m.ctx.Err() != nil {
		return nil, context.Canceled
	}
	one, err := m.watch(gvr, e)
	if err != nil {
		return nil, err
	}
	m.running[e.Resource] = one
	return one, nil
}

// watch starts a monitor; m.mu is held. What every server has is watched by
// the informers that all controllers share; what may vanish, by one that can end.
func (m *monitors) watch(gvr schema.GroupVersionResource, e *quota.Evaluator) (*monitor, error) {
	_, measured := whole(e.Resource)
	if measured || e.Resource.Group == "" {
		inf := m.api.Informer(gvr, client.InformerOptions{Metadata: !measured})
		reg, err := inf.AddEventHandler(m.handler(e))
		if err != nil {
			return nil, err
		}
		return &monitor{informer: inf, stop: func() { _ = inf.RemoveEventHandler(reg) }}, nil
	}
	inf := m.informer(gvr)
	if _, err := inf.AddEventHandler(m.handler(e)); err != nil {
		return nil, err
	}
	own, stop := context.WithCancel(m.ctx)
	m.group.Go(func() { inf.RunWithContext(own) })
	return &monitor{informer: inf, stop: stop}, nil
}

// whole are the resources of which more than the number counts.
func whole(gr schema.GroupResource) (schema.GroupVersionResource, bool) {
	switch gr {
	case corev1.Resource("pods"), corev1.Resource("services"), corev1.Resource("persistentvolumeclaims"):
		return corev1.SchemeGroupVersion.WithResource(gr.Resource), true
	case resourcev1.Resource("resourceclaims"):
		return resourcev1.SchemeGroupVersion.WithResource(gr.Resource), true
	}
	return schema.GroupVersionResource{}, false
}

// version returns the version to watch a resource in; m.mu is held.
func (m *monitors) version(ctx context.Context, gr schema.GroupResource) (schema.GroupVersionResource, bool, error) {
	if gr.Group == "" {
		return corev1.SchemeGroupVersion.WithResource(gr.Resource), coreResource(gr.Resource), nil
	}
	if gvr, ok := whole(gr); ok {
		return gvr, true, nil
	}
	if gvr, ok := m.versions[gr]; ok || time.Since(m.asked) < discoveryTime {
		return gvr, ok, nil
	}
	all, err := m.discover(ctx)
	if err != nil {
		return schema.GroupVersionResource{}, false, err
	}
	m.asked = time.Now()
	m.versions = make(map[schema.GroupResource]schema.GroupVersionResource, len(all))
	for _, gvr := range all {
		m.versions[gvr.GroupResource()] = gvr
	}
	gvr, ok := m.versions[gr]
	return gvr, ok, nil
}

// coreResource says whether the core group has a namespaced resource: that
// group does not change.
func coreResource(name string) bool {
	switch name {
	case "pods", "services", "persistentvolumeclaims", "configmaps", "secrets", "resourcequotas", "replicationcontrollers",
		"endpoints", "limitranges", "podtemplates", "serviceaccounts":
		return true
	}
	return false
}

// discover returns the resources whose objects can be counted.
func (m *monitors) discover(ctx context.Context) ([]schema.GroupVersionResource, error) {
	all, err := m.served(ctx)
	if len(all) == 0 && err != nil {
		return nil, err
	}
	var countable []schema.GroupVersionResource
	for _, r := range all {
		if r.Namespaced && r.Can("list", "watch") {
			countable = append(countable, r.GroupVersionResource)
		}
	}
	return countable, nil
}

// informer watches a resource that is only counted.
func (m *monitors) informer(gvr schema.GroupVersionResource) cache.SharedIndexInformer {
	r := client.Resource{GroupVersionResource: gvr}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return m.api.List(ctx, r, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			return m.api.Watch(ctx, r, opts)
		},
	}
	inf := cache.NewSharedIndexInformer(lw, nil, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	// The only error is that the informer runs already.
	_ = inf.SetTransform(metadataOf)
	return inf
}

// handler reports what frees something.
func (m *monitors) handler(e *quota.Evaluator) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, now any) {
			before, ok1 := old.(runtime.Object)
			after, ok2 := now.(runtime.Object)
			if ok1 && ok2 && e.Frees(before, after) {
				m.report(e.Resource, now)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			m.report(e.Resource, obj)
		},
	}
}

func (m *monitors) report(gr schema.GroupResource, obj any) {
	if o, err := meta.Accessor(obj); err == nil {
		m.changed(gr, o.GetNamespace())
	}
}

// metadataOf keeps an object's name alone: nothing else is counted.
func metadataOf(obj any) (any, error) {
	o, err := meta.Accessor(obj)
	if err != nil {
		return obj, nil //nolint:nilerr // a tombstone
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
	}}, nil
}
