// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
)

// Object is an API object with metadata.
type Object interface {
	metav1.Object
	runtime.Object
}

// Typed are the verbs and the informer of one Go type, such as
// For[*corev1.Pod](c). It is a small value; make it where it is needed.
type Typed[T Object] struct {
	c    Interface
	gvr  schema.GroupVersionResource
	opts InformerOptions
}

// For returns the typed view of a built-in kind. It panics when T is not in
// client-go's scheme: that is a mistake of the program.
func For[T Object](c Interface) Typed[T] {
	return Typed[T]{c: c, gvr: ResourceOf[T]()}
}

// ResourceOf returns the resource a Go type of client-go's scheme is served at.
func ResourceOf[T Object]() schema.GroupVersionResource {
	var zero T
	obj := reflect.New(reflect.TypeOf(zero).Elem()).Interface().(T)
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		panic(fmt.Sprintf("client: %T is not a built-in kind: %v", zero, err))
	}
	gvr, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return gvr
}

// With returns a view whose informer is narrowed by opts.
func (t Typed[T]) With(opts InformerOptions) Typed[T] {
	t.opts = opts
	return t
}

// Resource returns what the verbs act on.
func (t Typed[T]) Resource(namespace string) Resource {
	return Resource{GroupVersionResource: t.gvr, Namespace: namespace}
}

func (t Typed[T]) sub(namespace, subresource string) Resource {
	return Resource{GroupVersionResource: t.gvr, Namespace: namespace, Subresource: subresource}
}

func as[T Object](o runtime.Object, err error) (T, error) {
	var zero T
	if err != nil {
		return zero, err
	}
	typed, ok := o.(T)
	if !ok {
		return zero, fmt.Errorf("client: server answered with a %T, want a %T", o, zero)
	}
	return typed, nil
}

// Get reads an object from the server, not from the informer.
func (t Typed[T]) Get(ctx context.Context, namespace, name string) (T, error) {
	return as[T](t.c.Get(ctx, t.Resource(namespace), name, metav1.GetOptions{}))
}

// List reads objects from the server, not from the informer.
func (t Typed[T]) List(ctx context.Context, namespace string, opts metav1.ListOptions) ([]T, error) {
	list, err := t.c.List(ctx, t.Resource(namespace), opts)
	if err != nil {
		return nil, err
	}
	var items []T
	err = meta.EachListItem(list, func(o runtime.Object) error {
		item, err := as[T](o, nil)
		items = append(items, item)
		return err
	})
	return items, err
}

// Create creates obj in its namespace.
func (t Typed[T]) Create(ctx context.Context, obj T) (T, error) {
	return as[T](t.c.Create(ctx, t.Resource(obj.GetNamespace()), "", obj, metav1.CreateOptions{}))
}

// Update replaces the object.
func (t Typed[T]) Update(ctx context.Context, obj T) (T, error) {
	return as[T](t.c.Update(ctx, t.Resource(obj.GetNamespace()), obj.GetName(), obj, metav1.UpdateOptions{}))
}

// UpdateStatus replaces the object's status.
func (t Typed[T]) UpdateStatus(ctx context.Context, obj T) (T, error) {
	return as[T](t.c.Update(ctx, t.sub(obj.GetNamespace(), "status"), obj.GetName(), obj, metav1.UpdateOptions{}))
}

// Patch patches the object or the named subresource ("" for none).
func (t Typed[T]) Patch(ctx context.Context, namespace, name string, pt types.PatchType, data []byte, subresource string) (T, error) {
	return as[T](t.c.Patch(ctx, t.sub(namespace, subresource), name, pt, data, metav1.PatchOptions{}))
}

// MergePatch sends patch, marshalled to JSON, as a merge patch.
func (t Typed[T]) MergePatch(ctx context.Context, namespace, name string, patch any, subresource string) (T, error) {
	data, err := json.Marshal(patch)
	if err != nil {
		var zero T
		return zero, err
	}
	return t.Patch(ctx, namespace, name, types.MergePatchType, data, subresource)
}

// Delete deletes an object; opts may be zero.
func (t Typed[T]) Delete(ctx context.Context, namespace, name string, opts metav1.DeleteOptions) error {
	return t.c.Delete(ctx, t.Resource(namespace), name, opts)
}

// Informer returns the shared informer behind the reads below.
func (t Typed[T]) Informer() cache.SharedIndexInformer { return t.c.Informer(t.gvr, t.opts) }

// HasSynced says whether the informer has its first list.
func (t Typed[T]) HasSynced() bool { return t.Informer().HasSynced() }

// Cached reads an object from the informer. The error is NotFound or nil.
func (t Typed[T]) Cached(namespace, name string) (T, error) {
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	item, ok, err := t.Informer().GetStore().GetByKey(key)
	if err == nil && !ok {
		err = apierrors.NewNotFound(t.gvr.GroupResource(), name)
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return item.(T), nil
}

// CachedList reads the objects of a namespace ("" for all) that match the
// selector (nil for all) from the informer, in no order.
func (t Typed[T]) CachedList(namespace string, selector labels.Selector) []T {
	var items []T
	keep := func(o any) {
		if item, ok := o.(T); ok && (selector == nil || selector.Matches(labels.Set(item.GetLabels()))) {
			items = append(items, item)
		}
	}
	indexer := t.Informer().GetIndexer()
	if namespace == "" {
		for _, o := range indexer.List() {
			keep(o)
		}
		return items
	}
	// The namespace index is part of every informer an engine makes.
	objs, _ := indexer.ByIndex(cache.NamespaceIndex, namespace)
	for _, o := range objs {
		keep(o)
	}
	return items
}

// AddIndex adds an index; adding the same name again is no error, and it must
// be added before the informer is started or by whoever uses it first.
func (t Typed[T]) AddIndex(name string, keys func(T) []string) {
	inf := t.Informer()
	if _, ok := inf.GetIndexer().GetIndexers()[name]; ok {
		return
	}
	// The only error is a conflict of names, excluded above.
	_ = inf.AddIndexers(cache.Indexers{name: func(o any) ([]string, error) { return keys(o.(T)), nil }})
}

// ByIndex reads the objects with the key in the named index.
func (t Typed[T]) ByIndex(name, key string) []T {
	objs, err := t.Informer().GetIndexer().ByIndex(name, key)
	if err != nil {
		return nil
	}
	items := make([]T, 0, len(objs))
	for _, o := range objs {
		items = append(items, o.(T))
	}
	return items
}

// Handler receives changes of one type; fields may be nil. Delete gets the
// last known state.
type Handler[T Object] struct {
	Add    func(obj T)
	Update func(old, obj T)
	Delete func(obj T)
}

// AddHandler subscribes h to the informer.
func (t Typed[T]) AddHandler(h Handler[T]) cache.ResourceEventHandlerRegistration {
	// An informer refuses handlers only after it was stopped; there is nothing
	// to be told then.
	reg, _ := t.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if h.Add != nil {
				h.Add(o.(T))
			}
		},
		UpdateFunc: func(old, o any) {
			if h.Update != nil {
				h.Update(old.(T), o.(T))
			}
		},
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if item, ok := o.(T); ok && h.Delete != nil {
				h.Delete(item)
			}
		},
	})
	return reg
}
