// SPDX-License-Identifier: Apache-2.0

package direct

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"kaji/internal/client"
	"kaji/internal/client/remote"
)

// router sends requests for what other API servers have (aggregation) the way a
// client of another process would, all others straight to the server. It is a
// Server.
type router struct {
	Server
	remote func() (*remote.Client, error) // nil where there is no way
}

func newRouter(server Server, config *rest.Config) *router {
	r := &router{Server: server}
	if config != nil {
		r.remote = sync.OnceValues(func() (*remote.Client, error) { return remote.New(config) })
	}
	return r
}

// to returns what serves a resource.
func (r *router) to(at client.Resource) (client.Verbs, error) {
	if r.remote == nil || !r.Server.Elsewhere(at.GroupVersion()) {
		return r.Server, nil
	}
	return r.remote()
}

// Get implements client.Verbs.
func (r *router) Get(ctx context.Context, at client.Resource, name string, opts metav1.GetOptions) (runtime.Object, error) {
	to, err := r.to(at)
	if err != nil {
		return nil, err
	}
	return to.Get(ctx, at, name, opts)
}

// List implements client.Verbs.
func (r *router) List(ctx context.Context, at client.Resource, opts metav1.ListOptions) (runtime.Object, error) {
	to, err := r.to(at)
	if err != nil {
		return nil, err
	}
	return to.List(ctx, at, opts)
}

// Held implements Server.
func (r *router) Held(gvr schema.GroupVersionResource) Server { return r.Server.Held(gvr) }

// ListShared implements Server.
func (r *router) ListShared(ctx context.Context, at client.Resource, opts metav1.ListOptions) (*internalversion.List, error) {
	to, err := r.to(at)
	if err != nil {
		return nil, err
	}
	if to == r.Server {
		return r.Server.ListShared(ctx, at, opts)
	}
	list, err := to.List(ctx, at, opts)
	if err != nil {
		return nil, err
	}
	out := &internalversion.List{}
	if m, err := meta.ListAccessor(list); err == nil {
		out.ResourceVersion, out.Continue, out.RemainingItemCount = m.GetResourceVersion(), m.GetContinue(), m.GetRemainingItemCount()
	}
	out.Items, err = meta.ExtractList(list)
	return out, err
}

// Watch implements client.Verbs. Informers list first: not every server can
// begin a watch with what exists, and old ones do not say so.
func (r *router) Watch(ctx context.Context, at client.Resource, opts metav1.ListOptions) (watch.Interface, error) {
	to, err := r.to(at)
	if err != nil {
		return nil, err
	}
	if to != r.Server && opts.SendInitialEvents != nil {
		return nil, apierrors.NewBadRequest("another API server is watched without initial events")
	}
	return to.Watch(ctx, at, opts)
}

// Create implements client.Verbs.
func (r *router) Create(ctx context.Context, at client.Resource, name string, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	to, err := r.to(at)
	if err != nil {
		return nil, err
	}
	return to.Create(ctx, at, name, obj, opts)
}

// Update implements client.Verbs.
func (r *router) Update(ctx context.Context, at client.Resource, name string, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	to, err := r.to(at)
	if err != nil {
		return nil, err
	}
	return to.Update(ctx, at, name, obj, opts)
}

// Patch implements client.Verbs.
func (r *router) Patch(ctx context.Context, at client.Resource, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	to, err := r.to(at)
	if err != nil {
		return nil, err
	}
	return to.Patch(ctx, at, name, pt, data, opts)
}

// Delete implements client.Verbs.
func (r *router) Delete(ctx context.Context, at client.Resource, name string, opts metav1.DeleteOptions) error {
	to, err := r.to(at)
	if err != nil {
		return err
	}
	return to.Delete(ctx, at, name, opts)
}

// DeleteCollection implements client.Verbs.
func (r *router) DeleteCollection(ctx context.Context, at client.Resource, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	to, err := r.to(at)
	if err != nil {
		return err
	}
	return to.DeleteCollection(ctx, at, opts, list)
}
