// SPDX-License-Identifier: Apache-2.0

package garbagecollector

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
	"kaji/internal/controller/served"
)

// watches are the informers of everything that can be collected. Those of
// built-in resources are the client's, shared with everybody; those of custom
// ones end when the resource is no longer served.
type watches struct {
	api  client.Interface
	see  func(served.Resource, metav1.Object)
	gone func(metav1.Object)

	mu      sync.RWMutex
	running map[schema.GroupVersionResource]*watched
	kinds   map[schema.GroupKind]served.Resource
	group   sync.WaitGroup
}

type watched struct {
	served.Resource
	informer cache.SharedIndexInformer
	synced   cache.InformerSynced
	stop     context.CancelFunc // nil for the client's own informers
}

func newWatches(api client.Interface, see func(served.Resource, metav1.Object), gone func(metav1.Object)) *watches {
	return &watches{api: api, see: see, gone: gone,
		running: map[schema.GroupVersionResource]*watched{}, kinds: map[schema.GroupKind]served.Resource{}}
}

// The resources whose changes change what is served.
var definitions = []schema.GroupVersionResource{
	{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
}

// onDefinitions calls f after changes of what is served.
func (w *watches) onDefinitions(f func()) {
	for _, gvr := range definitions {
		// The informer reports an error only once it has stopped.
		_, _ = w.api.Informer(gvr, client.InformerOptions{Metadata: true}).AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { f() }, UpdateFunc: func(any, any) { f() }, DeleteFunc: func(any) { f() }})
	}
}

// collectable says whether objects of a resource are collected. Events have no
// owners and there are many.
func collectable(r served.Resource) bool {
	return r.Resource != "events" && r.Can("list", "watch", "delete")
}

// set watches exactly these resources, and those it watches already for which
// keep holds.
func (w *watches) set(ctx context.Context, all []served.Resource, keep func(served.Resource) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kinds := map[schema.GroupKind]served.Resource{}
	wanted := map[schema.GroupVersionResource]bool{}
	for _, r := range all {
		if !collectable(r) {
			continue
		}
		wanted[r.GroupVersionResource] = true
		if _, ok := kinds[r.GroupKind()]; !ok {
			kinds[r.GroupKind()] = r
		}
		if w.running[r.GroupVersionResource] == nil {
			w.running[r.GroupVersionResource] = w.start(ctx, r)
		}
	}
	for gvr, one := range w.running {
		switch {
		case wanted[gvr]:
		case keep(one.Resource):
			kinds[one.GroupKind()] = one.Resource
		default:
			if one.stop != nil {
				one.stop()
			}
			delete(w.running, gvr)
		}
	}
	w.kinds = kinds
}

func (w *watches) start(ctx context.Context, r served.Resource) *watched {
	one := &watched{Resource: r}
	if scheme.Scheme.IsVersionRegistered(r.GroupVersion()) || slices.Contains(definitions, r.GroupVersionResource) {
		one.informer = w.api.Informer(r.GroupVersionResource, client.InformerOptions{Metadata: true})
	} else {
		one.informer = w.own(r.GroupVersionResource)
		inner, stop := context.WithCancel(ctx)
		one.stop = stop
		w.group.Go(func() { one.informer.RunWithContext(inner) })
	}
	registration, err := one.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { w.see(r, o.(metav1.Object)) },
		UpdateFunc: func(_, o any) { w.see(r, o.(metav1.Object)) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			w.gone(o.(metav1.Object))
		},
	})
	if err == nil {
		one.synced = registration.HasSynced
	}
	return one
}

// own returns an informer of a custom resource that keeps metadata only.
func (w *watches) own(gvr schema.GroupVersionResource) cache.SharedIndexInformer {
	r := client.Resource{GroupVersionResource: gvr}
	inf := cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return w.api.List(ctx, r, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			return w.api.Watch(ctx, r, opts)
		},
	}, nil, 0, nil)
	// It fails only once the informer runs.
	_ = inf.SetTransform(func(o any) (any, error) {
		m, err := meta.Accessor(o)
		if err != nil {
			return o, nil
		}
		return meta.AsPartialObjectMetadata(m), nil
	})
	return inf
}

// synced waits until everything was seen once, or for so long.
func (w *watches) synced(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w.mu.RLock()
	var all []cache.InformerSynced
	for _, one := range w.running {
		if one.synced != nil {
			all = append(all, one.synced)
		}
	}
	w.mu.RUnlock()
	cache.WaitForCacheSync(ctx.Done(), all...)
}

// wait returns when the informers of its own have ended.
func (w *watches) wait() { w.group.Wait() }

// kind returns the resource whose objects are of a kind.
func (w *watches) kind(gk schema.GroupKind) (served.Resource, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	r, ok := w.kinds[gk]
	return r, ok
}

// resource returns a watched resource.
func (w *watches) resource(gvr schema.GroupVersionResource) (served.Resource, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if one := w.running[gvr]; one != nil {
		return one.Resource, true
	}
	return served.Resource{}, false
}

// find returns an owner as its informer shows it, nil when it does not.
func (w *watches) find(ref metav1.OwnerReference, namespace string) metav1.Object {
	r, ok := w.kind(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind())
	if !ok {
		return nil
	}
	store := w.store(r)
	if store == nil {
		return nil
	}
	key := ref.Name
	if r.Namespaced {
		key = namespace + "/" + ref.Name
	}
	o, ok, _ := store.GetByKey(key) // the store has no error to tell
	if !ok {
		return nil
	}
	if m := o.(metav1.Object); m.GetUID() == ref.UID {
		return m
	}
	return nil
}

func (w *watches) store(r served.Resource) cache.Store {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if one := w.running[r.GroupVersionResource]; one != nil {
		return one.informer.GetStore()
	}
	return nil
}

// elsewhere says whether an object of the resource with this UID exists,
// wherever.
func (w *watches) elsewhere(r served.Resource, uid types.UID) bool {
	store := w.store(r)
	return store != nil && slices.ContainsFunc(store.List(), func(o any) bool { return o.(metav1.Object).GetUID() == uid })
}
