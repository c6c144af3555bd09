// SPDX-License-Identifier: Apache-2.0

// Package client is the seam between the components and the API server: reads
// come from shared informers, writes are verbs. Every controller, the
// scheduler, the node agent and the network components are written over it.
//
// Engines: client/remote speaks HTTP; client/direct calls an API server in the
// same process. A component cannot tell which it has. Objects handed out are
// shared and immutable: copy before changing.
package client

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Resource names what a verb acts on: a resource of a served version, where
// namespaced in a namespace, optionally one subresource of it.
type Resource struct {
	schema.GroupVersionResource
	Namespace   string
	Subresource string
}

// Verbs are the writes and the live reads. Errors are *errors.StatusError of
// apimachinery as a server answers them.
type Verbs interface {
	Get(ctx context.Context, r Resource, name string, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, r Resource, opts metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, r Resource, opts metav1.ListOptions) (watch.Interface, error)
	// Create posts obj; name is used for subresources only (eviction, binding, token).
	Create(ctx context.Context, r Resource, name string, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error)
	Update(ctx context.Context, r Resource, name string, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error)
	Patch(ctx context.Context, r Resource, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error)
	Delete(ctx context.Context, r Resource, name string, opts metav1.DeleteOptions) error
	DeleteCollection(ctx context.Context, r Resource, opts metav1.DeleteOptions, list metav1.ListOptions) error
}

// InformerOptions narrow an informer. Informers with equal options are shared.
type InformerOptions struct {
	Namespace     string
	LabelSelector string
	FieldSelector string
	// Metadata is for the garbage collector and others that look at metadata
	// only: the informer may hold PartialObjectMetadata, or whole objects where
	// those are there anyway.
	Metadata bool
	// Dynamic holds *unstructured.Unstructured although a Go type is known.
	Dynamic bool
}

// Interface is a connection to an API server under one identity.
type Interface interface {
	Verbs
	// Informer returns the shared informer of a resource, created at the first
	// call. It runs once Start was called, also when it was asked for later.
	Informer(gvr schema.GroupVersionResource, opts InformerOptions) cache.SharedIndexInformer
	// Start runs all informers, present and future, until ctx ends. Calling it
	// again is no error and does nothing.
	Start(ctx context.Context)
	// RESTConfig is for libraries that bring their own client (leader
	// election, streaming). It must not be modified.
	RESTConfig() *rest.Config
}

// WaitForSync waits until informers have their first list; false says that
// ctx ended before.
func WaitForSync(ctx context.Context, informers ...cache.SharedIndexInformer) bool {
	synced := make([]cache.InformerSynced, len(informers))
	for i, inf := range informers {
		synced[i] = inf.HasSynced
	}
	return cache.WaitForCacheSync(ctx.Done(), synced...)
}
