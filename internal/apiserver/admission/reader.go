// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/request"
)

// Reader is where plug-ins read stored objects: the server's own cache. It is
// safe for concurrent use.
type Reader struct {
	Cache *cache.Cache
	Kinds *request.Kinds
}

// Find returns a stored object; found is false when there is none or its kind
// is not served. What the cache does not know may have been written a moment
// ago: it is asked again when it has caught up with the store. The object is
// shared and must not be changed.
func Find[T api.Object](ctx context.Context, r Reader, kind schema.GroupVersionKind, namespace, name string) (obj T, found bool, err error) {
	served := r.Kinds.Kind(kind)
	if served == nil || name == "" {
		return obj, false, nil
	}
	entry, found, err := r.Cache.Get(ctx, served.Kind, namespace, name)
	if err == nil && !found {
		if _, err = r.Cache.WaitNewest(ctx); err == nil {
			entry, found, err = r.Cache.Get(ctx, served.Kind, namespace, name)
		}
	}
	if err != nil || !found {
		return obj, false, err
	}
	obj, ok := entry.Whole().(T)
	if !ok {
		return obj, false, fmt.Errorf("%s %s is stored as a %T", kind.Kind, name, entry.Object)
	}
	return obj, true, nil
}

// Each calls visit with every object of a kind in a namespace (in all when
// empty) until it returns false, in the order of their keys. The objects are
// shared and must not be changed.
func Each[T api.Object](ctx context.Context, r Reader, kind schema.GroupVersionKind, namespace string, visit func(T) bool) error {
	served := r.Kinds.Kind(kind)
	if served == nil {
		return nil
	}
	s, err := r.Cache.Snapshot(ctx, served.Kind)
	if err != nil {
		return err
	}
	for entry := range s.All(namespace, "") {
		if obj, ok := entry.Whole().(T); ok && !visit(obj) {
			break
		}
	}
	return nil
}

// Is says whether a request is about a resource itself, or with a subresource
// about that.
func (a *Attributes) Is(group, resource, subresource string) bool {
	return a.Resource.Resource == resource && a.Resource.Group == group && a.Subresource == subresource
}
