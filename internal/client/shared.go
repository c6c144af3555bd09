// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// WithInformers returns a connection that writes and reads live as own, and
// reads from the informers of shared: many components of a process can have an
// identity each and one copy of what they look at.
func WithInformers(own, shared Interface) Interface { return withInformers{own, shared} }

type withInformers struct {
	Interface
	shared Interface
}

// Informer implements Interface.
func (w withInformers) Informer(gvr schema.GroupVersionResource, opts InformerOptions) cache.SharedIndexInformer {
	return w.shared.Informer(gvr, opts)
}

// Start implements Interface.
func (w withInformers) Start(ctx context.Context) { w.shared.Start(ctx) }
